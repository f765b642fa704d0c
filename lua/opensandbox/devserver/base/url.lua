--- Percent-encoding and query strings, as both APIs read them.

local url = {}

local function byte_of(hex)
  return string.char(tonumber(hex, 16))
end

--- Decodes %XX; with `plus` also "+" as a space, as in queries.
function url.decode(text, plus)
  if plus then text = text:gsub("%+", " ") end
  return (text:gsub("%%(%x%x)", byte_of))
end

--- Encodes everything but unreserved characters, and "/" when `keep_slash` is set.
function url.encode(text, keep_slash)
  return (text:gsub(keep_slash and "[^%w%-%._~/]" or "[^%w%-%._~]", function(character)
    return ("%%%02X"):format(character:byte())
  end))
end

--- The pairs of a query string in order.
-- @treturn {{name,value,has_equals},...}
function url.pairs(text)
  local list = {}
  for piece in text:gmatch("[^&]+") do
    local name, equals, value = piece:match("^([^=]*)(=?)(.*)$")
    list[#list + 1] = { url.decode(name, true), url.decode(value, true), equals == "=" }
  end
  return list
end

--- All values of every name of a query string: `{ path = { "a", "b" } }`.
function url.query(text)
  local values = {}
  for _, pair in ipairs(url.pairs(text)) do
    local name = pair[1]
    values[name] = values[name] or {}
    table.insert(values[name], pair[2])
  end
  return values
end

return url

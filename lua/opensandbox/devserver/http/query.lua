--- Query strings, read as forms: "+" is a space, and a name may occur several times.

local url = require "opensandbox.base.url"

local query = {}

local function decode(text)
  return url.unescape((text:gsub("%+", " ")))
end

--- Returns the pairs of a query string in their order.
---@param text string
---@return { [1]: string, [2]: string, [3]: boolean }[] pairs name, value, and whether there is a "=" between them
function query.pairs(text)
  local list = {}
  for piece in text:gmatch("[^&]+") do
    local name, equals, value = piece:match("^([^=]*)(=?)(.*)$")
    list[#list + 1] = { decode(name), decode(value), equals == "=" }
  end
  return list
end

--- Returns all values of every name: `{ path = { "a", "b" } }`.
---@param text string
---@return table<string, string[]>
function query.values(text)
  local values = {}
  for _, pair in ipairs(query.pairs(text)) do
    local name = pair[1]
    values[name] = values[name] or {}
    table.insert(values[name], pair[2])
  end
  return values
end

return query

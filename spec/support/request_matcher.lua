--- Returns whether a request has the same meaning as a recorded request.
--
-- Bytes are not compared where the protocol leaves them open: the order of query parameters, percent-encoding, the
-- order of keys and the spaces in JSON, the boundary of a multipart body.

local json = require "opensandbox.base.json"
local multipart = require "spec.support.multipart"

local request_matcher = {}

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- The path with its segments decoded one by one (an encoded slash is not a slash) and the parameters in a fixed order.
local function path_parts(target)
  local path, query = target:match("^([^?]*)%??(.*)$")
  local segments, parameters = {}, {}
  for segment in (path .. "/"):gmatch("([^/]*)/") do
    segments[#segments + 1] = (decoded(segment):gsub("/", "%%2F"))
  end
  for parameter in query:gmatch("[^&]+") do
    local name, value = parameter:gsub("%+", " "):match("^([^=]*)=?(.*)$")
    parameters[#parameters + 1] = decoded(name) .. "=" .. decoded(value)
  end
  table.sort(parameters)
  return table.concat(segments, "/"), table.concat(parameters, " & ")
end

-- Decoded, {} and [] are the same empty table; here they must differ, so empty arrays get an item that no request contains.
local function mark_empty_arrays(text)
  local parts, position = {}, 1
  while true do
    local first = text:find('["%[]', position)
    if not first then break end
    local last
    if text:sub(first, first) == '"' then
      last = first + 1
      while last <= #text and text:sub(last, last) ~= '"' do
        last = last + (text:sub(last, last) == "\\" and 2 or 1)
      end
      parts[#parts + 1] = text:sub(position, last)
    else
      local _, closing = text:find("^%[%s*%]", first)
      parts[#parts + 1] = text:sub(position, closing and first - 1 or first) .. (closing and '["\\u0000empty"]' or "")
      last = closing or first
    end
    position = last + 1
  end
  return table.concat(parts) .. text:sub(position)
end

-- A value as text in which equal values are equal. Nulls are kept: in a merge patch they are not the same as absence.
local function canonical(value)
  local kind = type(value)
  if kind == "number" then return ("%.17g"):format(value) end
  if kind == "string" then return ("%q"):format(value) end
  if kind ~= "table" then return value == json.null and "null" or tostring(value) end
  local parts = {}
  if value[1] ~= nil then
    for index, item in ipairs(value) do parts[index] = canonical(item) end
    return "[" .. table.concat(parts, ", ") .. "]"
  end
  for key, item in pairs(value) do parts[#parts + 1] = ("%q: %s"):format(key, canonical(item)) end
  table.sort(parts)
  return "{" .. table.concat(parts, ", ") .. "}"
end

local function json_text(text)
  local first = text:match("^%s*([%[{])")
  local value = first and json.decode_raw(mark_empty_arrays(text))
  if value ~= nil and value ~= false then return canonical(value) end
end

-- The parts of a multipart body in the way the server pairs them: by order within each name.
local function multipart_text(text, content_type)
  local parts, problem = multipart.parse(text, content_type)
  if not parts then return "not a multipart body: " .. problem end
  local order, by_name = {}, {}
  for _, part in ipairs(parts) do
    if not by_name[part.name] then
      by_name[part.name] = {}
      order[#order + 1] = part.name
    end
    local content = part.name == "metadata" and json_text(part.body) or ("%q"):format(part.body)
    table.insert(by_name[part.name], (part.filename and "with filename, " or "without filename, ") .. content)
  end
  table.sort(order)
  local lines = {}
  for _, name in ipairs(order) do
    for _, description in ipairs(by_name[name]) do lines[#lines + 1] = ("part %s %s"):format(name, description) end
  end
  return table.concat(lines, "\n")
end

-- What a body means, as text; recorded and received bodies are read in the same way.
local function meaning(body, content_type)
  if body == "" then return "no body" end
  if content_type:find("^multipart/") then return multipart_text(body, content_type) end
  return json_text(body) or ("%q"):format(body)
end

local function header(headers, wanted)
  for name, value in pairs(headers) do
    if name:lower() == wanted then return value end
  end
end

--- Compares a request with a recorded one.
-- @param recorded the request of a recording
-- @param request `method`, `path` (without the base), `headers`, `body`
-- @tparam boolean loose whether the body may differ
-- @treturn[1] nil when they mean the same
-- @treturn[2] string what differs
function request_matcher.difference(recorded, request, loose)
  local differences = {}
  local function compare(what, expected, got)
    if expected ~= got then
      expected, got = expected or "none", got or "none"
      differences[#differences + 1] = ("%s\n  expected: %s\n  received: %s"):format(what, expected, got)
    end
  end
  local path, query = path_parts(recorded.path)
  local got_path, got_query = path_parts(request.path)
  compare("method", recorded.method, request.method)
  compare("path", path, got_path)
  compare("query", query, got_query)
  for _, name in ipairs { "open-sandbox-api-key", "x-execd-access-token" } do
    local value = header(recorded.headers, name)
    if value then compare("header " .. name, value, request.headers[name]) end
  end
  compare("header range", header(recorded.headers, "range"), request.headers.range)
  if not loose then
    compare("body", meaning(recorded.body, header(recorded.headers, "content-type") or ""),
      meaning(request.body, request.headers["content-type"] or ""))
  end
  if #differences > 0 then return table.concat(differences, "\n") end
end

return request_matcher

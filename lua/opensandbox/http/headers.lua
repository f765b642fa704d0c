--- The headers of requests and responses.

local each = require "opensandbox.base.each"
local numbers = require "opensandbox.base.numbers"
local time = require "opensandbox.base.time"

local headers = {}

--- Returns whether a value is the name of a header.
---@param name any
---@return boolean
function headers.is_name(name)
  return type(name) == "string" and name:find("^[%w!#$%%&'*+.^_`|~-]+$") ~= nil
end

--- Checks a header of a request.
---@return string? problem nil if it is valid
function headers.validate(name, value)
  if not headers.is_name(name) then
    return ("'%s' is not a header name"):format(tostring(name))
  end
  if type(value) ~= "string" or value:find("%c") then
    return ("the value of header %s is not a string without control characters"):format(name)
  end
end

--- Checks a table of headers.
---@return string? problem nil if all are valid
function headers.validate_all(all)
  for name, value in each(all) do
    local problem = headers.validate(name, value)
    if problem then return problem end
  end
end

--- Returns a new table with the headers of all given tables. Later headers replace earlier ones, whatever the case of their names is.
---@return table<string, string>
function headers.merge(...)
  local merged, spelled = {}, {}
  for i = 1, select("#", ...) do
    for name, value in each((select(i, ...)) or {}) do
      local before = spelled[name:lower()]
      if before then merged[before] = nil end
      merged[name], spelled[name:lower()] = value, name
    end
  end
  return merged
end

--- Reads the head of a response. Its size is bounded by the core, and the time by its size.
---@param text string the lines of the head
---@return table<string, string> headers by lower-case name; the values of several headers with one name are joined by commas
function headers.parse(text)
  local values = {}
  for given, value in text:gmatch("\n([^:\r\n]+):[ \t]*([^\r\n]*)") do
    local name = given:lower()
    local last = value:find("[^ \t][ \t]*$") or 0 -- unlike a search for the trailing spaces, this reads each byte once
    values[name] = values[name] or {}
    table.insert(values[name], value:sub(1, last))
  end
  for name, list in each(values) do values[name] = table.concat(list, ", ") end
  return values
end

--- Reads the header Retry-After, which holds seconds or a date. A date is compared with the response's own Date, so that the clock of
--- this machine does not matter.
---@param received table<string, string> of headers.parse
---@param now number Unix seconds, for a response without a Date
---@return number? seconds
function headers.retry_after(received, now)
  local value = received["retry-after"]
  if not value then return nil end
  local seconds = numbers.parse(value)
  if seconds then return seconds >= 0 and seconds or nil end
  local at = time.parse_http_date(value)
  return at and math.max(at - (time.parse_http_date(received.date) or now), 0)
end

return headers

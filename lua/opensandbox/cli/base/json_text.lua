--- JSON for people and for programs: indented, with sorted keys.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"

local function unescape_slash(character)
  return character == "/" and "/" or nil
end

-- Writes a value that is neither an object nor an array. Some encoders escape slashes.
local function scalar(value)
  return (assert(json.encode { value }):gsub("^%[(.*)%]$", "%1"):gsub("\\(.)", unescape_slash))
end

local function write(value, indent, parts)
  if type(value) ~= "table" or value == json.null then
    parts[#parts + 1] = scalar(value)
    return
  end
  if next(value) == nil then
    parts[#parts + 1] = json.encode(value)
    return
  end
  local inner = indent .. "  "
  local is_array = value[1] ~= nil
  parts[#parts + 1] = is_array and "[" or "{"
  if is_array then
    for index, item in ipairs(value) do
      parts[#parts + 1] = (index > 1 and ",\n" or "\n") .. inner
      write(item, inner, parts)
    end
  else
    local keys = {}
    for key in each(value) do keys[#keys + 1] = tostring(key) end
    table.sort(keys)
    for index, key in ipairs(keys) do
      parts[#parts + 1] = (index > 1 and ",\n" or "\n") .. inner .. scalar(key) .. ": "
      write(value[key], inner, parts)
    end
  end
  parts[#parts + 1] = "\n" .. indent .. (is_array and "]" or "}")
end

--- Writes a value as JSON.
---@param value any
---@return string text ends with a newline
return function(value)
  local parts = {}
  write(value, "", parts)
  parts[#parts + 1] = "\n"
  return table.concat(parts)
end

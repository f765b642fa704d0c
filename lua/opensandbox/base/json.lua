--- JSON.
--
-- Every JSON text of the library passes through this file, because JSON libraries differ. Debian's lua-cjson (2.1.0) and the one on
-- LuaRocks (2.1.0.10) decode every number to a float and write at most 14 digits; newer ones know integers; OpenResty has its own. Here
-- all of them return the same values: integral numbers are integers where Lua has integers, `null` in an object is an absent key, and an
-- empty array is written as `[]` if it was marked by `array`.

local codec = require "opensandbox.base.json_codec"
local each = require "opensandbox.base.each"
local numbers = require "opensandbox.base.numbers"

local json = {}

local tointeger = math.tointeger
local mtype = math.type

--- The value that represents JSON null inside arrays, and that writes a null.
json.null = codec.null

--- The name of the JSON library in use.
json.codec_name = codec.name

local MAX_DEPTH = 1000 -- levels, the limit of lua-cjson
local NO_MEMORY = "not enough memory" -- Lua's error

local array_mt = { __name = "opensandbox.json.array" }

-- The oldest encoder knows no empty array, writes 14 digits of a number at most, and writes fractions as the locale has them. Such values
-- are encoded as a string between two marks, which becomes raw text afterwards. The mark is random, so that no text of a caller holds it.
local mark = ("opensandbox%s%08x%08x"):format(tostring({}):gsub("%W", ""), math.random(0, 0x7fffffff), os.time() % 0x7fffffff)

local function raw(text)
  return mark .. text .. mark
end

--- Marks a table as an array, so that it is written as `[]` even if it is empty.
---@param list table
---@return table list the same table
function json.array(list)
  return setmetatable(list, array_mt)
end

local function writable_number(value)
  if value ~= value or value == 1 / 0 or value == -1 / 0 then error("NaN and infinity cannot be written", 0) end
  if value % 1 == 0 and math.abs(value) < 2 ^ 63 then
    -- Some readers do not accept 1e+15 as an integer.
    return math.abs(value) < 1e14 and value or raw(("%d"):format(value))
  end
  local short = numbers.format(value, "%.14g")
  return raw(numbers.parse(short) == value and short or numbers.format(value, "%.17g"))
end

-- Returns the value in a form that the encoder can write. Copies only the tables in which something must change.
local function writable(value, depth)
  if type(value) == "number" then return writable_number(value) end
  if type(value) ~= "table" or value == json.null then return value end
  if depth > MAX_DEPTH then error("the value is nested too deeply, or contains itself", 0) end
  if next(value) == nil then
    return raw(getmetatable(value) == array_mt and "[]" or "{}") -- vim.json writes an empty object as an array
  end
  local copy
  for key, item in each(value) do
    local new = writable(item, depth + 1)
    if new ~= item then
      if not copy then
        copy = {}
        for k, v in each(value) do copy[k] = v end
      end
      copy[key] = new
    end
  end
  return copy or value
end

-- The reason of a failure, without the position in the codec's source. A lack of memory is raised again: it says nothing about the text.
local function reason(failure)
  if failure == NO_MEMORY then error(failure, 0) end
  return (tostring(failure):gsub("^[^:]+:%d+: ", ""))
end

--- Writes a value as JSON.
---@param value any tables, strings (bytes), numbers, booleans, `json.null`
---@return string? text
---@return string? problem why the value cannot be written
function json.encode(value)
  local ok, text = pcall(function() return codec.encode(writable(value, 1)) end)
  if not ok then return nil, reason(text) end
  if text:find(mark, 1, true) then text = text:gsub('"' .. mark .. "(.-)" .. mark .. '"', "%1") end
  return text
end

local function normalised(value, null)
  local kind = type(value)
  if kind == "number" then
    if tointeger and mtype(value) == "float" then return tointeger(value) or value end
    return value
  elseif kind ~= "table" then
    return value
  end
  local is_array = value[1] ~= nil
  for key, item in each(value) do
    if item == null then
      if not is_array then value[key] = nil end
    else
      local item_kind = type(item)
      if item_kind == "table" or (item_kind == "number" and tointeger) then value[key] = normalised(item, null) end
    end
  end
  return value
end

--- Reads a JSON text and returns the value as the codec has it: numbers may be floats, nulls are `json.null`. This is for the events of a
--- stream, of which there may be half a million, and of which the caller reads few fields.
---@param text string
---@return any value nil if the text is not JSON
---@return string? problem
function json.decode_raw(text)
  local ok, value = pcall(codec.decode, text)
  if ok then return value end
  return nil, reason(value)
end

--- Converts a value of `decode_raw` to what `decode` returns.
function json.normalise(value)
  return normalised(value, json.null)
end

--- Reads a JSON text.
---@param text string
---@return any value integral numbers as integers, nulls in objects absent; nil if the text is not JSON
---@return string? problem
function json.decode(text)
  local value, problem = json.decode_raw(text)
  if problem then return nil, problem end
  return json.normalise(value)
end

return json

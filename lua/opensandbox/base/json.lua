--- JSON, through one seam.
--
-- Every JSON text of the library passes here, because the decoders people have differ: Debian's lua-cjson (2.1.0) and the one
-- on LuaRocks (2.1.0.10) decode every number to a float and write at most 14 digits, newer ones know integers, OpenResty
-- brings its own, and Neovim has a fork of it as `vim.json`. Here all of them give the same values: integral numbers are
-- integers where Lua has integers, `null` in an object is an absent key, and an empty array is written as `[]` when it was
-- marked with `array`. The instance is our own, so the host's global cjson settings are neither read nor changed.

local json = {}

local tointeger = math.tointeger
local mtype = math.type

local has_cjson, cjson = pcall(require, "cjson")
local vim_json = not has_cjson and type(_G.vim) == "table" and _G.vim.json or nil
if not has_cjson and not vim_json then
  error("opensandbox needs lua-cjson: install it with `luarocks install lua-cjson` (Debian and Ubuntu: lua-cjson)", 0)
end

--- The value that stands for JSON null inside arrays, and to write a null on purpose.
json.null = has_cjson and cjson.null or _G.vim.NIL

local codec
if has_cjson then
  codec = cjson.new()
  codec.decode_invalid_numbers(false)   -- NaN, Infinity and hexadecimal are not JSON
  codec.encode_keep_buffer(false)       -- one large body must not stay in memory for ever
else
  codec = vim_json
end

local DEEPEST = 1000 -- levels, as the codec's own limit

local array_mt = { __name = "opensandbox.json.array" }

-- The oldest encoder knows no empty array and writes 14 digits of a number at most. What it cannot write, it is given as a
-- string between two marks, which become raw text afterwards; the mark is random, so no text of a caller can hold it.
local mark = ("opensandbox%s%08x%08x"):format(tostring({}):gsub("%W", ""), math.random(0, 0x7fffffff), os.time() % 0x7fffffff)

local function raw(text)
  return mark .. text .. mark
end

--- Marks a table as an array, so that it is written as `[]` even when it is empty.
-- @tparam table list
-- @treturn table the same table
function json.array(list)
  return setmetatable(list, array_mt)
end

-- The value as the encoder can write it. Copies only the tables in which something must change.
local function writable(value, depth)
  if type(value) == "number" then
    if value ~= value or value == 1 / 0 or value == -1 / 0 then return value end
    local short = ("%.14g"):format(value)
    if value % 1 == 0 and math.abs(value) < 2 ^ 63 then
      -- 1e+15 is not an integer to every reader.
      local plain = not short:find("e", 1, true) and tonumber(short) == value
      return plain and value or raw(("%d"):format(value))
    end
    return tonumber(short) == value and value or raw(("%.17g"):format(value))
  elseif type(value) ~= "table" then
    return value
  end
  if depth > DEEPEST then error("the value is nested too deeply, or holds itself", 0) end
  if next(value) == nil then
    return raw(getmetatable(value) == array_mt and "[]" or "{}") -- vim.json would write an empty object as an array
  end
  local copy
  for key, item in pairs(value) do
    local new = writable(item, depth + 1)
    if new ~= item then
      if not copy then
        copy = {}
        for k, v in pairs(value) do copy[k] = v end
      end
      copy[key] = new
    end
  end
  return copy or value
end

--- Writes a value as JSON.
-- @param value tables, strings (bytes), numbers, booleans, `json.null`
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] string why the value cannot be written
function json.encode(value)
  local ok, text = pcall(function() return codec.encode(writable(value, 1)) end)
  if not ok then return nil, (tostring(text):gsub("^[^:]+:%d+: ", "")) end
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
  for key, item in pairs(value) do
    if item == null then
      if not is_array then value[key] = nil end
    else
      local item_kind = type(item)
      if item_kind == "table" or (item_kind == "number" and tointeger) then value[key] = normalised(item, null) end
    end
  end
  return value
end

--- Reads a JSON text as the codec gives it: numbers may be floats, nulls are `json.null`. For frames of an event stream, where
-- the caller looks at few fields and there may be half a million of them.
-- @tparam string text
-- @return[1] the value
-- @treturn[2] nil
-- @treturn[2] string what is wrong with the text
function json.decode_raw(text)
  local ok, value = pcall(codec.decode, text)
  if ok then return value end
  return nil, (tostring(value):gsub("^[^:]+:%d+: ", ""))
end

--- A value of `decode_raw` as `decode` gives it.
function json.normalise(value)
  return normalised(value, json.null)
end

--- Reads a JSON text.
-- @tparam string text
-- @return[1] the value: integral numbers as integers, nulls in objects absent
-- @treturn[2] nil
-- @treturn[2] string what is wrong with the text
function json.decode(text)
  local value, problem = json.decode_raw(text)
  if problem then return nil, problem end
  return json.normalise(value)
end

return json

--- Fields of a decoded answer, in which a server can send any type. Each function returns the value if it has the documented type, else nil,
--- so that callers can join texts and index tables without a check of their own.

local numbers = require "opensandbox.base.numbers"

local fields = {}

---@param value any
---@return string?
function fields.text(value)
  return type(value) == "string" and value or nil
end

---@param value any
---@return integer? natural
function fields.natural(value)
  return numbers.is_natural(value) and value or nil
end

--- Returns the exit code of a command. Callers pass it to os.exit and write it with "%d", which raise for a number without an integer.
---@param value any
---@return integer?
function fields.exit_code(value)
  return type(value) == "number" and value % 1 == 0 and value >= -2 ^ 31 and value < 2 ^ 32 and value or nil
end

---@param value any
---@return boolean?
function fields.flag(value)
  if type(value) == "boolean" then return value end
end

---@param value any
---@return table?
function fields.object(value)
  return type(value) == "table" and value or nil
end

---@param value any
---@return any[]? list nil for an object, in which a loop over a list would find nothing
function fields.list(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil) and value or nil
end

---@param value any
---@return string[]? list nil if an entry is not a text
function fields.texts(value)
  if not fields.list(value) then return nil end
  for _, item in ipairs(value) do
    if type(item) ~= "string" then return nil end
  end
  return value
end

--- Decodes a list.
---@param value any
---@param decode fun(item: any): any returns nil for an item that is wrong
---@return any[]? list nil if it is none, or if an item is wrong, because a part of a list would look like the whole
function fields.decode_list(value, decode)
  if not fields.list(value) then return nil end
  local decoded = {}
  for i, item in ipairs(value) do
    decoded[i] = decode(item)
    if not decoded[i] then return nil end
  end
  return decoded
end

return fields

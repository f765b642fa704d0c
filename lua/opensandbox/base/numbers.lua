--- Numbers as text, in every locale.
--
-- string.format(), tostring() and tonumber() of PUC Lua use the decimal separator of the process's locale, which the host may set
-- at any time. Everything that the library sends, reads or shows uses a point, so every fraction passes through this file.

local numbers = {}

-- The decimal separator of the locale. It is a point in LuaJIT, whose conversions ignore the locale.
local function decimal_separator()
  return (("%.1f"):format(0.5):match("^0(.-)5$")) or "."
end

--- Writes a number, with a point if it has a fraction.
---@param value number
---@param form? string a format of string.format() for one number; default "%.14g", and "%d" for integral values
---@return string
function numbers.format(value, form)
  if not form then form = value % 1 == 0 and math.abs(value) < 2 ^ 53 and "%.0f" or "%.14g" end
  local text = form:format(value)
  local separator = decimal_separator()
  if separator == "." then return text end
  local first, last = text:find(separator, 1, true)
  return first and text:sub(1, first - 1) .. "." .. text:sub(last + 1) or text
end

--- Reads a decimal number.
---@param text string digits, with or without a sign, a fraction after a point, and an exponent
---@return number? value nil when the text is anything else: white space, hexadecimal, "nan", a decimal comma
function numbers.parse(text)
  local digits = text:match("^[+-]?(%d*%.?%d*)$") or text:match("^[+-]?(%d*%.?%d*)[eE][+-]?%d+$")
  if not digits or not digits:find("%d") then return nil end
  local value, point = tonumber(text), text:find(".", 1, true)
  if value or not point then return value end
  return tonumber(text:sub(1, point - 1) .. decimal_separator() .. text:sub(point + 1))
end

--- Returns whether a value is a whole number, 0 or greater, that numbers of Lua hold exactly.
---@param value any
---@return boolean
function numbers.is_natural(value)
  return type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2 ^ 53
end

return numbers

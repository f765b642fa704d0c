--- Modes of files in a sandbox, as users write them.

local options = require "opensandbox.base.options"

local modes = {}

local letters = { "r", "w", "x", "r", "w", "x", "r", "w", "x" }
local values = { 400, 200, 100, 40, 20, 10, 4, 2, 1 }

--- Converts a mode to the number that execd expects: the octal digits, read as a decimal number.
---@param op string
---@param mode? string|number "0644", "644", "rw-r--r--" or 644
---@return integer?
function modes.number(op, mode)
  if mode == nil then return nil end
  local digits
  if type(mode) == "number" then
    digits = mode % 1 == 0 and math.abs(mode) < 1000 and ("%d"):format(mode) or nil
  elseif type(mode) == "string" and #mode == 9 and mode:find("^[rwx-]+$") then
    local sum = 0
    for i = 1, 9 do
      local letter = mode:sub(i, i)
      if letter == letters[i] then sum = sum + values[i] elseif letter ~= "-" then sum = nil break end
    end
    digits = sum and tostring(sum)
  elseif type(mode) == "string" then
    digits = mode:match("^0?(%d+)$")
  end
  if not digits or not digits:find("^[0-7][0-7]?[0-7]?$") then
    local shown = type(mode) == "string" and ("%q"):format(mode) or tostring(mode)
    options.raise(op, ("mode %s is not valid: use %q, %q or 644 (execd keeps no setuid, setgid or sticky bit)"):format(
      shown, "0644", "rw-r--r--"))
  end
  return tonumber(digits)
end

--- The permission bits of such a mode, as the system takes them.
---@param op string
---@param mode? string|integer
---@return integer?
function modes.permission_bits(op, mode)
  local digits = modes.number(op, mode)
  return digits and tonumber(("%d"):format(digits), 8)
end

return modes

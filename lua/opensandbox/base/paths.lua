--- Paths and modes in a sandbox.

local options = require "opensandbox.base.options"

local paths = {}

--- What execd would expand or drop in a path: it expands `$NAME`, and drops `$` with a digit or one of `*#$@!?-` behind it without a
--- word. Nil when it takes the path as it is.
---@return string?
function paths.expansion(path)
  return path:match("%$[%w_{*#$@!?-]")
end

--- Checks a path for the file routes. One in which execd would expand something would name another file, so it is refused. An empty
--- path would mean execd's own directory.
function paths.check(op, path, what)
  options.argument(op, what or "the path", path, "text")
  local found = paths.expansion(path)
  if found then
    options.raise(op, ("%s %q holds '%s', which execd would expand or drop; rename it, or reach it through a command"):format(
      what or "the path", path, found))
  end
  return path
end

--- Checks the directory in which something is to run, if one is given: execd expands and drops the same in it.
function paths.check_directory(op, cwd)
  if cwd ~= nil then paths.check(op, cwd, "option 'cwd'") end
end

local letters = { "r", "w", "x", "r", "w", "x", "r", "w", "x" }
local values = { 400, 200, 100, 40, 20, 10, 4, 2, 1 }

--- The number that execd takes for a mode: the octal digits read as a decimal number. From "0644", "644", "rw-r--r--" or 644.
function paths.mode(op, mode)
  if mode == nil then return nil end
  local digits
  if type(mode) == "number" then
    digits = mode % 1 == 0 and ("%d"):format(mode) or nil
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
    options.raise(op, ("mode %s is not one: use %q, %q or 644 (execd keeps no setuid, setgid or sticky bit)"):format(
      shown, "0644", "rw-r--r--"))
  end
  return tonumber(digits)
end

--- The permission bits of such a mode, as the system takes them.
---@param op string
---@param mode? string|integer
---@return integer?
function paths.permission_bits(op, mode)
  local digits = paths.mode(op, mode)
  return digits and tonumber(("%d"):format(digits), 8)
end

return paths

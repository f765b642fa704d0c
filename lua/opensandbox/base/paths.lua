--- Paths and modes in a sandbox.

local options = require "opensandbox.base.options"

local paths = {}

--- Returns the first part of a path that execd would expand or drop. execd expands `$NAME`, and silently drops `$` before a digit or one
--- of `*#$@!?-`.
---@return string? part nil if execd uses the path unchanged
function paths.expansion(path)
  return path:match("%$[%w_{*#$@!?-]")
end

--- Checks a path for the file routes. A path that execd would expand is refused, because it would name another file. An empty path is
--- refused, because it would name execd's own directory.
function paths.check(op, path, what)
  options.argument(op, what or "the path", path, "nonempty string")
  local found = paths.expansion(path)
  if found then
    options.raise(op, ("%s %q holds '%s', which execd would expand or drop; rename it, or reach it through a command"):format(
      what or "the path", path, found))
  end
  return path
end

--- Checks a path for the file routes of an endpoint. Those of an isolated session use every path unchanged.
---@param endpoint opensandbox.Endpoint|string
function paths.check_at(endpoint, op, path)
  if type(endpoint) == "table" and endpoint.literal_paths then return options.argument(op, "the path", path, "nonempty string") end
  return paths.check(op, path)
end

--- Checks the directory in which a command will run, if one is given. The rules for paths apply.
function paths.check_directory(op, cwd)
  if cwd ~= nil then paths.check(op, cwd, "option 'cwd'") end
end

--- Returns an absolute path without ".", ".." and double slashes. Symlinks are not followed.
---@param path string
---@return string
function paths.clean(path)
  local steps = {}
  for step in path:gmatch("[^/]+") do
    if step == ".." then steps[#steps] = nil elseif step ~= "." then steps[#steps + 1] = step end
  end
  return "/" .. table.concat(steps, "/")
end

local letters = { "r", "w", "x", "r", "w", "x", "r", "w", "x" }
local values = { 400, 200, 100, 40, 20, 10, 4, 2, 1 }

--- Converts a mode to the number that execd expects: the octal digits, read as a decimal number.
---@param op string
---@param mode? string|number "0644", "644", "rw-r--r--" or 644
---@return integer?
function paths.mode(op, mode)
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
function paths.permission_bits(op, mode)
  local digits = paths.mode(op, mode)
  return digits and tonumber(("%d"):format(digits), 8)
end

return paths

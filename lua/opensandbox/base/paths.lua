--- Paths in a sandbox.

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
---@param remedy? string
function paths.check(op, path, what, remedy)
  options.argument(op, what or "the path", path, "nonempty string")
  local found = paths.expansion(path)
  if found then
    options.raise(op, ("%s %q holds '%s', which execd would expand or drop; rename it, or %s"):format(
      what or "the path", path, found, remedy or "reach it through a command"))
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
  if cwd ~= nil then paths.check(op, cwd, "option 'cwd'", "change to it in the command itself") end
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

return paths

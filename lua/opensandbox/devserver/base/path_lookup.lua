--- Finds programs as the processes of a sandbox do.

local uv = require "luv"

local path_lookup = {}

--- Returns the path by which a process of a sandbox can start a program.
---@param sandbox table
---@param name string as in a command line; a name with a slash is returned as it is
---@param path? string the variable PATH
---@return string? path nil when there is no such program
function path_lookup.find(sandbox, name, path)
  if name:find("/", 1, true) then return name end
  for directory in (path or ""):gmatch("[^:]+") do
    local candidate = directory .. "/" .. name
    local place = directory:sub(1, 1) == "/" and sandbox.strategy:place_of(sandbox.paths, candidate)
    local stat = place and uv.fs_stat(place.path)
    if stat and stat.type == "file" and uv.fs_access(place.path, "X") then return candidate end
  end
end

return path_lookup

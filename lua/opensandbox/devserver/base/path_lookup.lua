--- Finds programs as the processes of a sandbox would.

local uv = require "luv"

local programs = {}

--- The path of a program by which a sandbox's process can start it.
-- @param name as a command line has it; one with a slash is taken as it is
-- @param path the PATH to look in
-- @treturn string the path, or nil when there is no such program
function programs.find(sandbox, name, path)
  if name:find("/", 1, true) then return name end
  for directory in (path or ""):gmatch("[^:]+") do
    local candidate = directory .. "/" .. name
    local place = directory:sub(1, 1) == "/" and sandbox.strategy:place_of(sandbox.paths, candidate)
    local stat = place and uv.fs_stat(place.path)
    if stat and stat.type == "file" and uv.fs_access(place.path, "X") then return candidate end
  end
end

return programs

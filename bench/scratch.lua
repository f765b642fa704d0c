--- A temporary directory with files of a given size, removed after use.

local uv = require "luv"

local Scratch = {}
Scratch.__index = Scratch

local function new()
  local directory = assert(uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/opensandbox-bench-XXXXXX"))
  return setmetatable({ directory = directory, names = {} }, Scratch)
end

--- The path of a file that may be made.
function Scratch:path(name)
  local path = self.directory .. "/" .. name
  self.names[path] = true
  return path
end

--- Makes a file of that many bytes without writing them.
function Scratch:sparse(name, size)
  local path = self:path(name)
  local fd = assert(uv.fs_open(path, "w", tonumber("600", 8)))
  assert(uv.fs_ftruncate(fd, size))
  uv.fs_close(fd)
  return path
end

function Scratch:remove()
  for path in pairs(self.names) do uv.fs_unlink(path) end
  uv.fs_rmdir(self.directory)
end

--- Calls `action` with a scratch directory, and removes it also after an error.
local function with(action)
  local scratch = new()
  local ok, problem = pcall(action, scratch)
  scratch:remove()
  if not ok then error(problem, 0) end
end

return { with = with }

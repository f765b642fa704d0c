--- The directory in which a suite keeps its files while it runs, and each spec file has its TMPDIR.
--
-- It is in memory where that works: file systems on disks can take most of a test's time for thousands of files that live a moment.

local temporary = require "spec.support.temporary"
local uv = require "luv"

local workspace = {}

local MEMORY = "/dev/shm"
local NEEDED = 1024 * 1024 * 1024 -- bytes; a suite uses about 100 MB

-- Checks a directory in memory: containers often have a small one, or one from which no program can be started.
local function is_usable(directory)
  local stat = uv.fs_statfs(directory)
  if not stat or stat.bavail * stat.bsize < NEEDED then return false end
  local program = directory .. "/program"
  local file = uv.fs_open(program, "w", 448) -- 0700
  if not file then return false end
  uv.fs_write(file, "#!/bin/sh\n", 0)
  uv.fs_close(file)
  local status = os.execute(program .. " 2>/dev/null")
  os.remove(program)
  return status == true or status == 0
end

--- Makes the directory: below TMPDIR if that is set, or else in memory or below /tmp.
function workspace.make()
  if (os.getenv("TMPDIR") or "") == "" and uv.fs_access(MEMORY, "W") then
    local directory = temporary.directory(MEMORY)
    if is_usable(directory) then return directory end
    temporary.remove(directory)
  end
  return temporary.directory()
end

return workspace

--- What a test makes on this machine: files and directories below TMPDIR, and the way to remove them.

local uv = require "luv"

local temporary = {}

local function parent()
  local directory = os.getenv("TMPDIR")
  return directory and directory ~= "" and directory:gsub("(.)/+$", "%1") or "/tmp"
end

--- Makes a directory, in another one if that is given; returns its path.
function temporary.directory(directory)
  return assert(uv.fs_mkdtemp((directory or parent()) .. "/sandbox-test-XXXXXX"))
end

--- Makes a file with some content, in a directory if that is given; returns its path.
function temporary.file(content, directory)
  local fd, path = uv.fs_mkstemp((directory or parent()) .. "/sandbox-test-XXXXXX")
  assert(fd, path)
  if content then assert(uv.fs_write(fd, content, 0)) end
  uv.fs_close(fd)
  return path
end

--- Returns a path at which there is nothing.
function temporary.path()
  local path = temporary.file()
  os.remove(path)
  return path
end

--- The names in a directory, sorted.
function temporary.names(directory)
  local entries, list = assert(uv.fs_scandir(directory)), {}
  while true do
    local name = uv.fs_scandir_next(entries)
    if not name then break end
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

--- Removes a file, or a directory with its contents, also if their modes protect them.
function temporary.remove(path)
  local stat = uv.fs_lstat(path)
  if not stat then return end
  if stat.type ~= "directory" then return assert(uv.fs_unlink(path)) end
  uv.fs_chmod(path, 448) -- 0700
  for _, name in ipairs(temporary.names(path)) do temporary.remove(path .. "/" .. name) end
  assert(uv.fs_rmdir(path))
end

return temporary

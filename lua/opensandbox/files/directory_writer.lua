--- Writes a downloaded directory. The sandbox is not trusted.
--
-- Nothing is written outside of the directory: names are checked segment by segment, each parent must be a real directory, and
-- symlinks are made after everything else. A file is written under a temporary name in its directory and renamed.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local local_target = require "opensandbox.files.local_target"
local tables = require "opensandbox.base.tables"
local tree_count = require "opensandbox.files.tree_count"

local MAX_PATH_LENGTH = 4096  -- bytes: no system has longer paths
local MAX_SHOWN = 200         -- bytes of a name in an error
local CHUNK_SIZE = 120 * 1024 -- bytes copied at a time
local MODE_0700 = 448         -- of a directory while it is filled
local MODE_0777 = 511         -- less the umask: of a directory without an entry of its own

---@class opensandbox.DirectoryWriter
---@field count opensandbox.TreeCount
---@field op string
---@field root string
---@field directories table<string, { mode?: integer, mtime?: number }> the checked directories below the root; mode and time are set at the end
---@field symlinks table<string, { target: string, mtime?: number }> to be made at the end
---@field parts table<string, true> temporary files, by path
---@field file? table the open file: handle, part, name, mode, mtime, size
local Writer = {}
Writer.__index = Writer

local function quoted_name(name)
  return ("%q"):format(#name > MAX_SHOWN and name:sub(1, MAX_SHOWN) .. "..." or (name:gsub("%z", "?")))
end

--- Returns the error for an entry that cannot be written safely.
---@param name string
---@param problem string
---@return opensandbox.Error
function Writer:unsafe(name, problem)
  return errors.new { kind = "state", code = "unsafe_archive", op = self.op,
    message = ("the name %s %s: nothing was written for it"):format(quoted_name(name), problem) }
end

local function path_of(self, name)
  return self.root .. "/" .. name
end

local function failed(self, name, problem)
  return errors.local_file(self.op, path_of(self, name), problem)
end

-- Sets the modification time, if it is known.
local function set_time(path, mtime)
  if not mtime then return true end
  return core.utime(path, mtime)
end

local function parent_of(name)
  return name:match("^(.*)/") or ""
end

--- Returns a name of the sandbox without "." and empty segments; it is "" for the root. A name that leads out of the root is an
--- error.
---@param name string
---@return string? name
---@return opensandbox.Error? err
function Writer:safe_name(name)
  if #name > MAX_PATH_LENGTH then return nil, self:unsafe(name, ("is longer than %d bytes"):format(MAX_PATH_LENGTH)) end
  if name:find("%z") then return nil, self:unsafe(name, "holds a NUL byte") end
  if name:find("^/") then return nil, self:unsafe(name, "is absolute") end
  local segments = {}
  for segment in name:gmatch("[^/]+") do
    if segment == ".." then return nil, self:unsafe(name, "leads upwards") end
    if segment ~= "." then segments[#segments + 1] = segment end
  end
  return table.concat(segments, "/")
end

-- Creates a directory and its parents, or checks the existing ones. The mode is for a new directory.
local function ensure_directory(self, name, mode)
  if name == "" or self.directories[name] then return true end
  local ok, err = ensure_directory(self, parent_of(name), MODE_0777)
  if not ok then return nil, err end
  if self.symlinks[name] then return nil, self:unsafe(name, "is that of a symlink and of a directory") end
  local problem
  local kind, _, existing_mode = core.lstat(path_of(self, name))
  if kind == "symlink" then
    return nil, self:unsafe(name, "is that of a directory, but a symlink exists there, which is not followed")
  end
  if kind and kind ~= "directory" then return nil, self:unsafe(name, "is that of a directory, but a file exists there") end
  if not kind then
    ok, problem = core.mkdir(path_of(self, name), mode)
  elseif existing_mode < MODE_0700 then
    ok, problem = core.chmod(path_of(self, name), MODE_0700 + existing_mode % 64) -- its owner could not write there
  end
  if not ok then return nil, failed(self, name, problem) end
  self.directories[name] = {}
  return true
end

--- Creates a directory. Its mode and modification time are set at the end.
---@param name string safe
---@param mode integer permission bits
---@param mtime? number Unix seconds
---@return true? ok
---@return opensandbox.Error? err
function Writer:directory(name, mode, mtime)
  if name == "" then return true end -- the root keeps its mode
  local ok, err = ensure_directory(self, name, MODE_0700)
  if not ok then return nil, err end
  if not self.directories[name].mode then tree_count.add(self.count, "directory") end
  self.directories[name] = { mode = mode, mtime = mtime }
  return true
end

--- Returns the path of a temporary file in the directory of a file.
---@param name string safe
---@return string? path
---@return opensandbox.Error? err
function Writer:part_for(name)
  if name == "" then return nil, self:unsafe(name, "is that of a file and of the root") end
  local parent = parent_of(name)
  local ok, err = ensure_directory(self, parent, MODE_0777)
  if not ok then return nil, err end
  local kind = core.lstat(path_of(self, name))
  if self.directories[name] or kind == "directory" then
    return nil, self:unsafe(name, "is that of a file, but a directory exists there")
  end
  err = local_target.replacement_error(self.op, path_of(self, name), kind)
  if err then return nil, err end
  local path = path_of(self, (parent == "" and "" or parent .. "/") .. local_target.part_name())
  self.parts[path] = true
  return path
end

-- Moves a temporary file to its final name. Returns as the third value true if it was copied into an existing file.
local function install(self, part, name)
  local ok, err, was_copied = local_target.install(self.op, part, path_of(self, name))
  if not ok then return nil, err end
  self.parts[part] = nil
  self.symlinks[name] = nil
  return true, nil, was_copied
end

--- Sets the modification time and the mode of a complete temporary file, and renames it.
---@param part string path of `part_for`
---@param name string safe
---@param size integer bytes
---@param mode integer permission bits
---@param mtime? number Unix seconds
---@return true? ok
---@return opensandbox.Error? err
function Writer:commit(part, name, size, mode, mtime)
  local ok, problem = set_time(part, mtime)
  if ok then ok, problem = core.chmod(part, mode % 512) end
  if not ok then return nil, failed(self, name, problem) end
  local err, was_copied
  ok, err, was_copied = install(self, part, name)
  if not ok then return nil, err end
  if was_copied then -- as far as its owner permits
    set_time(path_of(self, name), mtime)
    core.chmod(path_of(self, name), mode % 512)
  end
  tree_count.add(self.count, "file", size)
  return true
end

--- Opens a file, to which `write` adds bytes.
---@param name string safe
---@param mode integer permission bits
---@param mtime? number Unix seconds
---@return true? ok
---@return opensandbox.Error? err
function Writer:open(name, mode, mtime)
  local part, err = self:part_for(name)
  if not part then return nil, err end
  local ok, problem = core.create(part)
  if ok then ok, problem = io.open(part, "wb") end
  if not ok then return nil, failed(self, name, problem) end
  self.file = { handle = ok, part = part, name = name, mode = mode, mtime = mtime, size = 0 }
  return true
end

--- Writes bytes to the open file.
---@param bytes string
---@return true? ok
---@return opensandbox.Error? err
function Writer:write(bytes)
  local file = self.file
  local ok, problem = file.handle:write(bytes)
  if not ok then return nil, failed(self, file.name, problem) end
  file.size = file.size + #bytes
  return true
end

--- Closes the open file, which is complete.
---@return true? ok
---@return opensandbox.Error? err
function Writer:close()
  local file = self.file
  self.file = nil
  local ok, problem = file.handle:close()
  if not ok then return nil, failed(self, file.name, problem) end
  return self:commit(file.part, file.name, file.size, file.mode, file.mtime)
end

--- Adds a symlink, which is made at the end.
---@param name string safe
---@param target string
---@param mtime? number Unix seconds
---@return true? ok
---@return opensandbox.Error? err
function Writer:symlink(name, target, mtime)
  if name == "" or self.directories[name] then return nil, self:unsafe(name, "is that of a symlink and of a directory") end
  if target == "" or target:find("%z") or #target > MAX_PATH_LENGTH then
    return nil, self:unsafe(name, "is that of a symlink with an invalid target")
  end
  self.symlinks[name] = { target = target, mtime = mtime }
  return true
end

-- Returns the name of the file that a hard link refers to. None of its parents may be a symlink.
local function resolve_hard_link(self, name, target)
  local clean, err = self:safe_name(target)
  if not clean then return nil, err end
  local parent = parent_of(clean)
  while parent ~= "" do
    if core.lstat(path_of(self, parent)) ~= "directory" then break end
    parent = parent_of(parent)
  end
  if parent == "" and core.lstat(path_of(self, clean)) == "file" then return clean end
  err = self:unsafe(name, "is that of a hard link to a file that is missing")
  err.hint = ("If %s is left out with 'ignore', leave its other name out too"):format(quoted_name(clean))
  return nil, err
end

--- Writes a hard link: a copy of a file that was written before.
---@param name string safe
---@param target string name of the other file, as the sandbox sent it
---@param mode integer permission bits
---@param mtime? number Unix seconds
---@return true? ok
---@return opensandbox.Error? err
function Writer:link(name, target, mode, mtime)
  local symlink = self.symlinks[self:safe_name(target) or ""]
  if symlink then return self:symlink(name, symlink.target, symlink.mtime) end
  local source, err = resolve_hard_link(self, name, target)
  if not source then return nil, err end
  local handle, problem = io.open(path_of(self, source), "rb")
  if not handle then return nil, failed(self, source, problem) end
  local ok
  ok, err = self:open(name, mode, mtime)
  while ok do
    local bytes
    bytes, problem = handle:read(CHUNK_SIZE)
    if not bytes then break end
    ok, err = self:write(bytes)
  end
  handle:close()
  if not ok then return nil, err end
  if problem then return nil, failed(self, source, problem) end
  return self:close()
end

local function make_symlink(self, name, symlink)
  local part, err = self:part_for(name)
  if not part then return nil, err end
  local ok, problem = core.symlink(symlink.target, part)
  if ok then ok, problem = set_time(part, symlink.mtime) end
  if not ok then return nil, failed(self, name, problem) end
  ok, err = install(self, part, name)
  if ok then tree_count.add(self.count, "symlink") end
  return ok, err
end

--- Makes the symlinks, and sets the modes and times of directories. Call it after all entries.
---@return true? ok
---@return opensandbox.Error? err
function Writer:finish()
  for _, name in ipairs(tables.sorted_keys(self.symlinks)) do
    local ok, err = make_symlink(self, name, self.symlinks[name])
    if not ok then return nil, err end
  end
  local names = tables.sorted_keys(self.directories)
  for i = #names, 1, -1 do -- children before their parents
    local path, wanted = path_of(self, names[i]), self.directories[names[i]]
    if wanted.mode then
      local ok, problem = set_time(path, wanted.mtime)
      if ok then ok, problem = core.chmod(path, wanted.mode % 512) end
      if not ok then return nil, failed(self, names[i], problem) end
    end
  end
  return true
end

--- Removes the incomplete files. After `finish` there are none.
function Writer:discard()
  if self.file then self.file.handle:close() end
  self.file = nil
  for part in each(self.parts) do os.remove(part) end
  self.parts = {}
end

local directory_writer = {}

-- Creates a local directory and its parents.
local function make_directory(path)
  if core.stat(path) == "directory" then return true end
  local parent = path:match("^(.+)/[^/]+/*$")
  if parent then
    local ok, problem = make_directory(parent)
    if not ok then return nil, problem end
  end
  local ok, problem = core.mkdir(path, MODE_0777)
  if not ok and core.stat(path) == "directory" then return true end
  return ok, problem
end

--- Creates a writer into a local directory, which is created if it is missing.
---@param op string
---@param root string
---@return opensandbox.DirectoryWriter? writer
---@return opensandbox.Error? err
function directory_writer.new(op, root)
  local ok, problem = make_directory(root)
  if not ok then return nil, errors.local_file(op, root, problem) end
  return setmetatable({
    op = op, root = root, count = tree_count.new(), directories = {}, symlinks = {}, parts = {},
  }, Writer)
end

return directory_writer

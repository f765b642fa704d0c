--- The workspace of an isolated session, or another of its directories, as the files API of the session sees it.
--
-- In the mode "rw" it is a directory of the sandbox, in which no link is followed. In the mode "ro" the same directory cannot be
-- changed. In the mode "overlay", changes go to an upper directory: that of the kernel's overlay, which the shell sees. execd writes into
-- it behind the kernel's back, and marks removed files with files `.wh.NAME`, which the kernel does not know. So shell and API disagree
-- after some changes. This does the same.

local uv = require "luv"
local each = require "opensandbox.base.each"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local list_directory = require "opensandbox.devserver.base.list_directory"

local MODE_0755, MODE_0700 = 493, 448
local REMOVED = ".wh."

local Workspace = {}
Workspace.__index = Workspace

--- Creates a workspace.
---@param sandbox table
---@param options table `place` (the directory of the sandbox), `mode`, `id` (of the session), `number` (among its directories), `uid`, `gid` (the owner of new files)
local function new(sandbox, options)
  local place = options.place
  local self = setmetatable({
    sandbox = sandbox, place = place, root = place.inside, mode = options.mode, uid = options.uid, gid = options.gid,
  }, Workspace)
  if self.mode == "overlay" then
    self.directory = ("%s/overlay-%s-%d"):format(sandbox.directory, options.id, options.number)
    self.upper = self.directory .. "/upper"
    self.shown_upper = ("/var/lib/execd/isolation/%s/upper"):format(options.id:gsub("%-", ""))
    for _, path in ipairs { self.directory, self.upper, self.directory .. "/work" } do assert(uv.fs_mkdir(path, MODE_0700)) end
    uv.fs_chmod(self.upper, MODE_0755)
  end
  return self
end

--- Removes the upper directory.
function Workspace:close()
  if self.directory then filesystem.remove_all(self.directory) end
end

local function join(directory, path)
  if path == "" then return directory end
  if directory == "" then return path end
  return directory == "/" and "/" .. path or directory .. "/" .. path
end

local function split(path)
  local parent, name = path:match("^(.*)/([^/]*)$")
  if parent then return parent, name end
  return "", path
end

--- Returns the path of a request relative to the workspace. Every absolute path lies below the workspace, also a path that does not name
--- it.
---@param path string
---@return string? relative "" for the workspace itself
---@return table? problem
---@return table workspace this one, because a session can have several
function Workspace:relative(path)
  local is_absolute, names = path:sub(1, 1) == "/", {}
  for name in path:gmatch("[^/]+") do
    if name == ".." and (is_absolute or names[1]) then
      names[#names] = nil
    elseif name == ".." then
      return nil, errno.new(nil, "path traversal denied: " .. path), self
    elseif name ~= "." then
      names[#names + 1] = name
    end
  end
  local clean = table.concat(names, "/")
  if not is_absolute then return clean, nil, self end
  local root = self.root:sub(2)
  if clean == root then return "", nil, self end
  return clean:sub(1, #root + 1) == root .. "/" and clean:sub(#root + 2) or clean, nil, self
end

--- Returns the path of a file on this machine to which the shell has written.
function Workspace:host_path(relative)
  return join(self.upper or self.place.path, relative)
end

-- The path as messages show it.
function Workspace:shown(relative)
  return join(self.root, relative)
end

local function missing(self, operation, relative)
  return errno.new("ENOENT", operation, self:shown(relative))
end

-- Returns the error of a path with a link in it; nil when it has none.
function Workspace:_link_problem(relative)
  local path = ""
  for name in relative:gmatch("[^/]+") do
    path = path == "" and name or path .. "/" .. name
    if uv.fs_readlink(join(self.place.path, path)) then
      return errno.new(nil, "symlink target denied: " .. self:shown(path))
    end
  end
end

-- Returns whether execd has marked a path, or a directory above it, as removed.
function Workspace:_is_removed(relative)
  local parent = ""
  for name in relative:gmatch("[^/]+") do
    if uv.fs_lstat(join(self.upper, join(parent, REMOVED .. name))) then return true end
    parent = parent == "" and name or parent .. "/" .. name
  end
  return false
end

-- Returns the path of this machine for a path in the upper directory; nil when a directory above it is a link.
function Workspace:_upper_path(relative)
  local path, parent = "", split(relative)
  for name in parent:gmatch("[^/]+") do
    path = path == "" and name or path .. "/" .. name
    if uv.fs_readlink(join(self.upper, path)) then return nil end
  end
  return join(self.upper, relative)
end

-- Returns the stat and the path of a file in the upper directory; nil when there is none.
function Workspace:_in_upper(relative)
  local path = self:_upper_path(relative)
  local stat = path and uv.fs_lstat(path)
  return stat, path
end

-- Returns the stat and the path of a file in the directory of the sandbox.
function Workspace:_in_lower(relative, keep_last)
  local place = self.sandbox.paths:resolve(self:shown(relative), keep_last)
  local stat = place and uv.fs_lstat(place.path)
  return stat, place and place.path
end

--- Returns the stat of a path itself, and its path on this machine.
---@param relative string
---@param operation? string for the message of an error
---@return table? stat
---@return any path; without a stat the problem
function Workspace:lstat(relative, operation)
  operation = operation or "lstat"
  if self.mode == "rw" then
    local problem = self:_link_problem(relative)
    if problem then return nil, problem end
  end
  if self.upper and self:_is_removed(relative) then return nil, missing(self, operation, relative) end
  local stat, path
  if self.upper then stat, path = self:_in_upper(relative) end
  if not stat then stat, path = self:_in_lower(relative, true) end
  if not stat then return nil, missing(self, operation, relative) end
  return stat, path
end

--- Returns the stat and the path on this machine of a file that is to be read.
function Workspace:find(relative)
  local stat, path = self:lstat(relative, "open")
  if not stat then return nil, path end
  -- The kernel marks a removed file with a device, which execd cannot open: it reads the file below.
  if stat.type == "link" or stat.type == "char" then stat, path = self:_in_lower(relative, false) end
  if not stat then return nil, missing(self, "open", relative) end
  return stat, path
end

--- Returns the entries of a directory in byte order, each with `name` and `stat`; nil if it is not a directory.
function Workspace:entries(relative)
  if self.upper and self:_is_removed(relative) then return nil end
  local directories, names, list = {}, {}, {}
  local function add(path)
    local found = path and uv.fs_lstat(path) and list_directory(path)
    if not found then return end
    directories[#directories + 1] = path
    for _, name in ipairs(found) do names[name] = names[name] or path end
  end
  if self.upper then add(self:_upper_path(relative)) end
  local _, lower = self:_in_lower(relative, false)
  add(lower)
  if not directories[1] then return nil end
  for name, path in each(names) do
    if name:sub(1, #REMOVED) ~= REMOVED and not names[REMOVED .. name] then
      local stat = uv.fs_lstat(join(path, name))
      if stat then list[#list + 1] = { name = name, stat = stat } end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- Returns the error of a change to a read-only workspace.
function Workspace:_denied(noun)
  if self.mode == "ro" then return errno.new(nil, noun .. " denied: workspace is read-only") end
end

-- Gives a new file to the user of the session.
function Workspace:_own(path)
  if self.uid and uv.getuid() == 0 then uv.fs_chown(path, self.uid, self.gid or self.uid) end
end

-- Creates a directory of this machine and its missing parents below `root`.
function Workspace:_make_directories(root, relative, mode, shown)
  local path = ""
  for name in relative:gmatch("[^/]+") do
    path = path == "" and name or path .. "/" .. name
    local full = join(root, path)
    local stat = uv.fs_lstat(full)
    if stat and stat.type ~= "directory" then return nil, errno.new("ENOTDIR", "mkdir", join(shown, path)) end
    if not stat then
      local ok, _, code = uv.fs_mkdir(full, mode)
      if not ok then return nil, errno.new(code, "mkdir", join(shown, path)) end
      uv.fs_chmod(full, mode)
      self:_own(full)
    end
  end
  return true
end

-- The directory of this machine that changes go to, and how messages show it.
function Workspace:_target()
  if self.upper then return self.upper, self.shown_upper end
  return self.place.path, self.root
end

-- Prepares a path for a change: removes the mark of a removed file, and creates its parents.
---@return string? path on this machine
---@return table? problem
function Workspace:_prepare(relative)
  if self.mode == "rw" then
    local problem = self:_link_problem(relative)
    if problem then return nil, problem end
  end
  local root, shown = self:_target()
  local parent, name = split(relative)
  local ok, problem = self:_make_directories(root, parent, MODE_0755, shown)
  if not ok then return nil, problem end
  if self.upper then uv.fs_unlink(join(root, join(parent, REMOVED .. name))) end
  return join(root, relative)
end

--- Creates a directory and its missing parents, all with the same mode.
function Workspace:make_directory(relative, mode)
  local denied = self:_denied("mkdir")
  if denied then return nil, denied end
  if self.mode == "rw" then
    local problem = self:_link_problem(relative)
    if problem then return nil, problem end
  end
  local root, shown = self:_target()
  return self:_make_directories(root, relative, mode, shown)
end

--- Returns the path on this machine to which a new content of a file is to be written. Existing content below an overlay is replaced.
---@return string? path
---@return table? problem
function Workspace:writable(relative)
  local denied = self:_denied("write")
  if denied then return nil, denied end
  local path, problem = self:_prepare(relative)
  if not path then return nil, problem end
  local stat = uv.fs_lstat(path)
  if stat and stat.type == "directory" then return nil, errno.new("EISDIR", "open", self:shown(relative)) end
  if self.upper and stat and stat.type ~= "file" then uv.fs_unlink(path) end
  return path
end

--- Sets the mode and the owner of a file that has been written.
function Workspace:finish(path, mode)
  uv.fs_chmod(path, mode)
  self:_own(path)
end

-- Marks a file of the lower directory as removed, where there is one.
function Workspace:_mark_removed(relative)
  if not self.upper or not self:_in_lower(relative, true) then return end
  local parent, name = split(relative)
  if not self:_make_directories(self.upper, parent, MODE_0755, self.shown_upper) then return end
  local fd = uv.fs_open(join(self.upper, join(parent, REMOVED .. name)), "w", 420)
  if fd then uv.fs_close(fd) end
end

--- Removes a file or an empty directory.
function Workspace:remove(relative)
  local denied = self:_denied("remove")
  if denied then return nil, denied end
  local absent = errno.new(nil, "file does not exist")
  local root, shown = self:_target()
  if self.mode == "rw" and not uv.fs_stat(join(root, relative)) then return nil, absent end
  local stat, path = self:lstat(relative)
  if not stat then return nil, path.code and absent or path end
  local in_target = not self.upper or self:_in_upper(relative)
  if in_target then
    local remove = stat.type == "directory" and uv.fs_rmdir or uv.fs_unlink
    local ok, _, code = remove(path)
    if not ok then return nil, errno.new(code, "remove", join(shown, relative)) end
  end
  self:_mark_removed(relative)
  return true
end

--- Removes a tree. A missing one is removed already.
function Workspace:remove_all(relative)
  local denied = self:_denied("remove")
  if denied then return nil, denied end
  local problem = self.mode == "rw" and self:_link_problem(split(relative))
  if problem then return nil, problem end
  local root = self:_target()
  local path = self.upper and self:_upper_path(relative) or join(root, relative)
  local ok, code = filesystem.remove_all(path)
  if not ok then return nil, errno.new(code, "unlinkat", self:shown(relative)) end
  self:_mark_removed(relative)
  return true
end

-- Copies a file of the lower directory to the upper one, unless there is one.
function Workspace:_copy_up(relative, stat)
  local path, problem = self:_prepare(relative)
  if not path then return nil, problem end
  if not self.upper or uv.fs_lstat(path) then return path end
  local _, lower = self:_in_lower(relative, false)
  if stat.type == "directory" then
    uv.fs_mkdir(path, stat.mode % 512)
  else
    local ok, _, code = uv.fs_copyfile(lower, path)
    if not ok then return nil, errno.new(code, "open", self:shown(relative)) end
  end
  return path
end

--- Moves a file. An existing file at the target is replaced, a directory is not.
function Workspace:rename(from, to)
  local denied = self:_denied("rename")
  if denied then return nil, denied end
  local stat, problem = self:lstat(from, "open")
  if not stat then return nil, problem end
  local source, target
  source, problem = self:_copy_up(from, stat)
  if not source then return nil, problem end
  target, problem = self:_prepare(to)
  if not target then return nil, problem end
  local existing = uv.fs_lstat(target)
  local ok, _, code = nil, nil, "EEXIST"
  if not (existing and existing.type == "directory") or stat.type == "directory" then
    ok, _, code = uv.fs_rename(source, target)
  end
  if not ok then
    local shown = select(2, self:_target())
    return nil, errno.new(nil, ("rename %s %s: %s"):format(join(shown, from), join(shown, to), errno.text(code)))
  end
  self:_mark_removed(from)
  return true
end

--- Sets the mode of a file.
function Workspace:chmod(relative, mode)
  local denied = self:_denied("chmod")
  if denied then return nil, denied end
  local stat, path = self:find(relative)
  if not stat then return nil, path end
  local problem
  path, problem = self:_copy_up(relative, stat)
  if not path then return nil, problem end
  local ok, _, code = uv.fs_chmod(path, mode)
  if not ok then return nil, errno.new(code, "chmod", self:shown(relative)) end
  return true
end

return { new = new, join = join }

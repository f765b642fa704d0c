--- Writes a directory as it comes down from a sandbox, which may lie.
--
-- Nothing is written outside of the directory: names are checked step by step, each directory on the way must be a real one, and no
-- symlink is made before everything else stands. A file is written under a temporary name beside its place and renamed.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local random = require "opensandbox.base.random"
local tree = require "opensandbox.files.directory_walk"

local LONGEST_NAME = 4096 -- bytes: more than any system's paths
local PIECE = 120 * 1024  -- bytes copied at a time
local PRIVATE = 448       -- 0700: of a directory while it is filled
local OPEN = 511          -- 0777, less the umask: of a directory whose mode nobody told

---@class opensandbox.TreeWriter
---@field count opensandbox.TreeCount
local Writer = {}
Writer.__index = Writer

local function shown(name)
  return ("%q"):format(#name > 200 and name:sub(1, 200) .. "..." or (name:gsub("%z", "?")))
end

--- An error about what the sandbox sent.
function Writer:unsafe(name, what)
  return errors.new { kind = "state", code = "unsafe_archive", op = self.op,
    message = ("the name %s %s: nothing was written for it"):format(shown(name), what) }
end

function Writer:failed(name, problem)
  return errors.local_file(self.op, self:path(name), problem)
end

function Writer:path(name)
  return self.root .. "/" .. name
end

local function parent_of(name)
  return name:match("^(.*)/") or ""
end

--- A name of the sandbox in its shortest form, "" for the uppermost directory; nil and an error for one that leads elsewhere.
---@param name string
---@return string? name
---@return opensandbox.Error? err
function Writer:clean(name)
  if #name > LONGEST_NAME then return nil, self:unsafe(name, ("is longer than %d bytes"):format(LONGEST_NAME)) end
  if name:find("%z") then return nil, self:unsafe(name, "holds a NUL byte") end
  if name:find("^/") then return nil, self:unsafe(name, "is absolute") end
  local steps = {}
  for step in name:gmatch("[^/]+") do
    if step == ".." then return nil, self:unsafe(name, "leads upwards") end
    if step ~= "." then steps[#steps + 1] = step end
  end
  return table.concat(steps, "/")
end

-- Sees to it that a directory is there, and is one. `mode` is for a new one.
function Writer:ensure(name, mode)
  if name == "" or self.directories[name] then return true end
  local ok, err = self:ensure(parent_of(name), OPEN)
  if not ok then return nil, err end
  if self.symlinks[name] then return nil, self:unsafe(name, "is a symlink's, and a directory's too") end
  local problem
  local kind, _, existing = core.lstat(self:path(name))
  if kind == "symlink" then return nil, self:unsafe(name, "is a directory's, but a symlink stands there, which is not followed") end
  if kind and kind ~= "directory" then return nil, self:unsafe(name, "is a directory's, but a file stands there") end
  if not kind then
    ok, problem = core.mkdir(self:path(name), mode)
  elseif existing < PRIVATE then
    ok, problem = core.chmod(self:path(name), PRIVATE + existing % 64) -- its owner could not write there
  end
  if not ok then return nil, self:failed(name, problem) end
  self.directories[name] = {}
  return true
end

--- Makes a directory. Its mode and time are given to it at the end.
---@param name string clean
---@return true? ok
---@return opensandbox.Error? err
function Writer:directory(name, mode, mtime)
  if name == "" then return true end -- the uppermost one is the caller's
  local ok, err = self:ensure(name, PRIVATE)
  if not ok then return nil, err end
  if not self.directories[name].mode then tree.add(self.count, "directory") end
  self.directories[name] = { mode = mode, mtime = mtime }
  return true
end

--- A temporary path beside the place of a file, to write it to.
---@param name string clean
---@return string? path
---@return opensandbox.Error? err
function Writer:place(name)
  if name == "" then return nil, self:unsafe(name, "is a file's, and the uppermost directory's too") end
  local parent = parent_of(name)
  local ok, err = self:ensure(parent, OPEN)
  if not ok then return nil, err end
  if self.directories[name] or core.lstat(self:path(name)) == "directory" then
    return nil, self:unsafe(name, "is a file's, but a directory stands there")
  end
  local path = self:path((parent == "" and "" or parent .. "/") .. ".opensandbox-" .. random.hex(6) .. ".part")
  self.parts[path] = true
  return path
end

-- Gives what was written to a temporary path its name.
function Writer:rename(part, name)
  local ok, problem = os.rename(part, self:path(name))
  if not ok then return nil, self:failed(name, problem) end
  self.parts[part] = nil
  self.symlinks[name] = nil
  return true
end

--- A file is complete: it gets its time, its mode and its name.
---@param part string what `place` gave
---@param name string clean
---@return true? ok
---@return opensandbox.Error? err
function Writer:commit(part, name, size, mode, mtime)
  local ok, problem = core.utime(part, mtime)
  if ok then ok, problem = core.chmod(part, mode % 512) end
  if not ok then return nil, self:failed(name, problem) end
  local err
  ok, err = self:rename(part, name)
  if ok then tree.add(self.count, "file", size) end
  return ok, err
end

--- Opens a file whose bytes come next.
---@param name string clean
---@return true? ok
---@return opensandbox.Error? err
function Writer:open(name, mode, mtime)
  local part, err = self:place(name)
  if not part then return nil, err end
  local ok, problem = core.create(part)
  if ok then ok, problem = io.open(part, "wb") end
  if not ok then return nil, self:failed(name, problem) end
  self.file = { handle = ok, part = part, name = name, mode = mode, mtime = mtime, size = 0 }
  return true
end

function Writer:write(bytes)
  local file = self.file
  local ok, problem = file.handle:write(bytes)
  if not ok then return nil, self:failed(file.name, problem) end
  file.size = file.size + #bytes
  return true
end

--- The file that was opened is complete.
---@return true? ok
---@return opensandbox.Error? err
function Writer:close()
  local file = self.file
  self.file = nil
  local ok, problem = file.handle:close()
  if not ok then return nil, self:failed(file.name, problem) end
  return self:commit(file.part, file.name, file.size, file.mode, file.mtime)
end

--- A symlink, which is made at the end.
---@param name string clean
---@return true? ok
---@return opensandbox.Error? err
function Writer:symlink(name, target, mtime)
  if name == "" or self.directories[name] then return nil, self:unsafe(name, "is a symlink's, and a directory's too") end
  if target == "" or target:find("%z") or #target > LONGEST_NAME then
    return nil, self:unsafe(name, "is of a symlink to nothing that can be")
  end
  self.symlinks[name] = { target = target, mtime = mtime }
  return true
end

-- The local file that a hard link means; it must lie where no symlink leads.
function Writer:linked(name, target)
  local clean, err = self:clean(target)
  if not clean then return nil, err end
  local parent = parent_of(clean)
  while parent ~= "" do
    if core.lstat(self:path(parent)) ~= "directory" then break end
    parent = parent_of(parent)
  end
  if parent == "" and core.lstat(self:path(clean)) == "file" then return clean end
  err = self:unsafe(name, "is of a link to nothing that came before")
  err.hint = ("If %s is left out with 'ignore', leave its other name out too"):format(shown(clean))
  return nil, err
end

--- Another name of a file that has come before: a copy of it.
---@param name string clean
---@param target string as the sandbox says it
---@return true? ok
---@return opensandbox.Error? err
function Writer:link(name, target, mode, mtime)
  local symlink = self.symlinks[self:clean(target) or ""]
  if symlink then return self:symlink(name, symlink.target, symlink.mtime) end
  local source, err = self:linked(name, target)
  if not source then return nil, err end
  local handle, problem = io.open(self:path(source), "rb")
  if not handle then return nil, self:failed(source, problem) end
  local ok
  ok, err = self:open(name, mode, mtime)
  while ok do
    local bytes
    bytes, problem = handle:read(PIECE)
    if not bytes then break end
    ok, err = self:write(bytes)
  end
  handle:close()
  if not ok then return nil, err end
  if problem then return nil, self:failed(source, problem) end
  return self:close()
end

function Writer:make_symlink(name, symlink)
  local part, err = self:place(name)
  if not part then return nil, err end
  local ok, problem = core.symlink(symlink.target, part)
  if ok then ok, problem = core.utime(part, symlink.mtime) end
  if not ok then return nil, self:failed(name, problem) end
  ok, err = self:rename(part, name)
  if ok then tree.add(self.count, "symlink") end
  return ok, err
end

local function names_of(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- All has come: symlinks are made, and directories get their modes and times.
---@return true? ok
---@return opensandbox.Error? err
function Writer:finish()
  for _, name in ipairs(names_of(self.symlinks)) do
    local ok, err = self:make_symlink(name, self.symlinks[name])
    if not ok then return nil, err end
  end
  local names = names_of(self.directories)
  for i = #names, 1, -1 do -- what lies in a directory is done before it
    local path, wanted = self:path(names[i]), self.directories[names[i]]
    if wanted.mode then
      local ok, problem = core.utime(path, wanted.mtime)
      if ok then ok, problem = core.chmod(path, wanted.mode % 512) end
      if not ok then return nil, self:failed(names[i], problem) end
    end
  end
  return true
end

--- Removes what is not complete. Nothing after `finish`.
function Writer:discard()
  if self.file then self.file.handle:close() end
  self.file = nil
  for part in pairs(self.parts) do os.remove(part) end
  self.parts = {}
end

local writer = {}

-- Makes a local directory and those above it.
local function make_all(path)
  if core.stat(path) == "directory" then return true end
  local parent = path:match("^(.+)/[^/]+/*$")
  if parent then
    local ok, problem = make_all(parent)
    if not ok then return nil, problem end
  end
  local ok, problem = core.mkdir(path, OPEN)
  if not ok and core.stat(path) == "directory" then return true end
  return ok, problem
end

--- Begins to write into a local directory, which is made if it is not there.
---@param op string
---@param root string
---@return opensandbox.TreeWriter? writer
---@return opensandbox.Error? err
function writer.new(op, root)
  local ok, problem = make_all(root)
  if not ok then return nil, errors.local_file(op, root, problem) end
  return setmetatable({
    op = op, root = root, count = tree.count(), directories = {}, symlinks = {}, parts = {},
  }, Writer)
end

return writer

--- The local file that receives a download. An existing device, symlink, mounted file or hard link is not replaced by a regular
--- file.
--
-- The download is written to a temporary file first. An ordinary file is then replaced by renaming, so that the old one exists
-- until then. For any other existing file the bytes are copied into it. FIFOs and sockets are refused, because writing to them
-- could block this process.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local random = require "opensandbox.base.random"

local local_target = {}

local CHUNK_SIZE = 120 * 1024           -- bytes copied at a time
local YIELD_INTERVAL = 64 * 1024 * 1024 -- bytes after which other tasks run
local PRIVATE_MODE = "0600"             -- of a temporary file whose bytes will be copied

local refused_kinds = { directory = "is a directory", fifo = "is a FIFO", socket = "is a socket", other = "is not a regular file" }

-- Returns the error for a kind of file to which nothing is written, or nil.
local function kind_error(op, path, kind)
  local text = refused_kinds[kind]
  if not text then return nil end
  local err = errors.local_file(op, path, text)
  if kind ~= "directory" then err.hint = "Read the file with files:open, and write the bytes there yourself" end
  return err
end

--- Returns the name of a temporary file. It is short, because the target's own name may be as long as the system allows.
---@return string
function local_target.part_name()
  return ".opensandbox-" .. random.hex(6) .. ".part"
end

-- Copies from one handle to another. Returns a text if that failed.
local function copy(op, from, to)
  local copied, next_yield = 0, YIELD_INTERVAL
  while true do
    local bytes, problem = from:read(CHUNK_SIZE)
    if not bytes then return problem end
    local ok
    ok, problem = to:write(bytes)
    if not ok then return problem end
    copied = copied + #bytes
    if copied >= next_yield then
      next_yield = next_yield + YIELD_INTERVAL
      loop.sleep(op, 0, true) -- a cancelled task completes the copy, because half of one would be worse
    end
  end
end

-- Copies a temporary file into the target, and removes the temporary one.
local function copy_into(op, part, path)
  local from, problem = io.open(part, "rb")
  if not from then return nil, errors.local_file(op, part, problem) end
  local to
  to, problem = io.open(path, "wb")
  if to then
    problem = copy(op, from, to)
    local ok, close_problem = to:close()
    if not ok then problem = problem or close_problem end
    if problem then problem = problem .. " (the file is incomplete now)" end
  end
  from:close()
  os.remove(part)
  if problem then return nil, errors.local_file(op, path, problem) end
  return true
end

--- Returns the error if a file of this kind must not be replaced by another one, or nil.
---@param op string
---@param path string
---@param kind? string of core.lstat
---@return opensandbox.Error?
function local_target.replacement_error(op, path, kind)
  if kind == "device" then return errors.local_file(op, path, "is a device") end
  return kind_error(op, path, kind)
end

--- Moves a complete temporary file, or a symlink, to its place. An existing symlink is replaced, not followed. For a file
--- with other names or another owner, and for a mounted one, the bytes are copied into it.
---@param op string
---@param part string path of the temporary file, in the same directory
---@param path string
---@return true? ok
---@return opensandbox.Error? err
---@return boolean? was_copied
function local_target.install(op, part, path)
  local kind = core.lstat(path)
  local err = local_target.replacement_error(op, path, kind)
  if err then return nil, err end
  local can_copy = kind == "file" and core.lstat(part) == "file"
  if not can_copy or core.is_replaceable(path) then
    local ok, problem = os.rename(part, path)
    if ok then return true end
    if not can_copy then return nil, errors.local_file(op, path, problem) end
  end
  local ok
  ok, err = copy_into(op, part, path)
  return ok, err, ok
end

---@class opensandbox.LocalTarget
---@field op string
---@field path string
---@field part string path of a temporary file that does not exist yet
---@field part_mode? string its mode
---@field is_copied boolean the bytes will be copied into the target
---@field state { part?: string } the temporary file, while it may exist
---@field finalizer table removes it if the host ends the coroutine
local Target = {}
Target.__index = Target

-- Returns whether a file can be created at a path.
local function can_create(path)
  return core.create(path) and os.remove(path) and true or false
end

local function temporary_directory()
  local directory = os.getenv("TMPDIR")
  return directory and directory ~= "" and directory or "/tmp"
end

--- Checks the target of a download.
---@param op string
---@param path string
---@return opensandbox.LocalTarget? target
---@return opensandbox.Error? err
function local_target.open(op, path)
  local kind, problem, mode = core.stat(path)
  local err = kind_error(op, path, kind)
  if not kind and mode ~= "ENOENT" then err = errors.local_file(op, path, problem) end
  if err then return nil, err end
  if kind == "file" then
    local handle
    handle, problem = io.open(path, "r+b")
    if not handle then return nil, errors.local_file(op, path, problem) end
    handle:close()
  end
  local own_kind = core.lstat(path)
  local part = (path:match("^.*/") or "") .. local_target.part_name()
  local is_copied = own_kind ~= nil and not (own_kind == "file" and core.is_replaceable(path) and can_create(part))
  if is_copied then part = temporary_directory() .. "/" .. local_target.part_name() end
  local state = { part = part }
  return setmetatable({
    op = op, path = path, part = part, is_copied = is_copied, state = state,
    -- Users who could not read the old file cannot read the new one.
    part_mode = is_copied and PRIVATE_MODE or kind and ("%04o"):format(mode) or nil,
    finalizer = finalizer(function()
      if state.part then os.remove(state.part) end
    end),
  }, Target)
end

--- Moves the complete temporary file to the target, or copies it.
---@return true? ok
---@return opensandbox.Error? err
function Target:commit()
  local ok, err
  if self.is_copied then
    ok, err = copy_into(self.op, self.part, self.path)
  else
    ok, err = local_target.install(self.op, self.part, self.path)
    if not ok then os.remove(self.part) end
  end
  self.state.part = nil -- not before: the host can end the coroutine in a pause of the copy
  return ok, err
end

--- Removes the temporary file.
function Target:discard()
  os.remove(self.part)
  self.state.part = nil
end

return local_target

--- Operations on the files of a sandbox that the file routes share. Every path goes through the sandbox's mapping, and every failure
-- is an error in execd's words.

local uv = require "luv"
local list_directory = require "opensandbox.devserver.base.list_directory"
local spawn = require "opensandbox.devserver.base.spawn"
local errno = require "opensandbox.devserver.base.errno"
local go_text = require "opensandbox.devserver.execd.go_text"

local filesystem = {}

--- The flags to open a file for reading whose name a sandbox can change. A named pipe in its place is opened at once, and holds nothing.
filesystem.READ_ONLY = uv.constants.O_RDONLY + uv.constants.O_NONBLOCK

local WRITE = uv.constants.O_WRONLY + uv.constants.O_CREAT + uv.constants.O_TRUNC + uv.constants.O_NONBLOCK
local OPEN_FLAGS = { r = filesystem.READ_ONLY, w = WRITE }
local PIPE = "PIPE" -- the code of the error that a file is a named pipe

-- The names and numbers of /etc/passwd and /etc/group, read once.
local accounts = {}

local function account_file(path)
  if not accounts[path] then
    local names, numbers = {}, {}
    local file = io.open(path)
    if file then
      for line in file:lines() do
        local name, number, group = line:match("^([^:]+):[^:]*:(%d+):?(%d*)")
        if name then
          names[tonumber(number)] = names[tonumber(number)] or name
          numbers[name] = { id = tonumber(number), group = tonumber(group) }
        end
      end
      file:close()
    end
    accounts[path] = { names = names, numbers = numbers }
  end
  return accounts[path]
end

--- Returns the primary group of a user, 0 for an unknown user.
function filesystem.primary_group(uid)
  local users = account_file("/etc/passwd")
  local name = users.names[uid]
  return name and users.numbers[name].group or 0
end

--- Expands a path of a request and finds it on this machine.
---@param sandbox table
---@param path string
---@param keep_last? boolean a link in the last place stays itself
---@param operation? string for the message of an error
---@return table? place as `Paths:resolve` returns it; `named` is the absolute path with its links
---@return table? problem
function filesystem.locate(sandbox, path, keep_last, operation)
  local expanded, problem = sandbox.paths:expand(path)
  if not expanded then return nil, problem end
  local named = sandbox.paths:clean(expanded)
  local place, code = sandbox.paths:resolve(named, keep_last)
  if not place then return nil, errno.new(code, operation or "stat", named) end
  place.named = named
  return place
end

--- Calls a function of luv on a place. The error names the path as the sandbox knows it.
---@param operation string for the message of an error
---@param fn function
---@param place table
---@param writes? boolean whether the function changes the place
---@return any result
---@return table? problem
function filesystem.call(operation, fn, place, writes, ...)
  if writes and place.read_only then return nil, errno.new(place.read_only, operation, place.named) end
  local result, _, code = fn(place.path, ...)
  if result == nil then return nil, errno.new(code, operation, place.named) end
  return result
end

--- Returns the stat of a path, following links, and its place; nil and the error.
function filesystem.stat(sandbox, path)
  local place, problem = filesystem.locate(sandbox, path)
  if not place then return nil, problem end
  local stat
  stat, problem = filesystem.call("stat", uv.fs_stat, place)
  if not stat then return nil, problem end
  return stat, place
end

--- Opens a file whose name a sandbox can change, with the arguments and results of `uv.fs_open`. It never waits for the other end of a
--- named pipe, because this server has one thread: a pipe is an error, see `is_pipe`.
---@param path string on this machine
---@param flags "r"|"w"
---@param mode integer of a new file
---@return integer? fd
---@return string? message
---@return string? code
function filesystem.open(path, flags, mode)
  local fd, message, code = uv.fs_open(path, OPEN_FLAGS[flags], mode)
  local stat
  if fd then stat = uv.fs_fstat(fd) elseif code == "ENXIO" then stat = uv.fs_stat(path) end -- ENXIO: the pipe has no reader
  if not stat or stat.type ~= "fifo" then return fd, message, code end
  if fd then uv.fs_close(fd) end
  return nil, "the file is a named pipe", PIPE
end

--- Returns whether a file could not be opened because it is a named pipe. execd waits for the other end then, so it sends no response.
---@param problem table
---@return boolean
function filesystem.is_pipe(problem)
  return problem.code == PIPE
end

--- Creates a directory and its missing parents.
---@return table|false|nil first the place of the topmost created directory, false when there was none to create
---@return table? problem
function filesystem.make_all(sandbox, path, mode)
  local stat, place = filesystem.stat(sandbox, path)
  if stat then
    if stat.type == "directory" then return false end
    return nil, errno.new("ENOTDIR", "mkdir", place.named)
  end
  local problem
  place, problem = filesystem.locate(sandbox, path, false, "mkdir")
  if not place then return nil, problem end
  local parent = place.inside:match("^(.*)/[^/]+$")
  local first
  first, problem = filesystem.make_all(sandbox, parent == "" and "/" or parent, mode)
  if first == nil then return nil, problem end
  local made
  made, problem = filesystem.call("mkdir", uv.fs_mkdir, place, true, mode)
  if not made then return nil, problem end
  return first or place
end

--- Reads decimal digits as an octal number: 644 is rw-r--r--. Special bits are dropped, as execd does.
---@param digits number
---@return integer? mode
---@return table? problem
function filesystem.mode(digits)
  local text = ("%.0f"):format(digits)
  local value = text:match("^[0-7]+$") and tonumber(text, 8)
  if not value then return nil, errno.new(nil, ('strconv.ParseUint: parsing "%s": invalid syntax'):format(text)) end
  return value % 512
end

-- Returns the number of a name, -1 for an absent name; nil and the error for an unknown one.
local function lookup(path, kind, unknown, name)
  if not name or name == "" then return -1 end
  local account = account_file(path).numbers[name]
  if account then return account.id end
  return nil, errno.new(nil, ("failed to lookup %s %s: %s %s"):format(kind, name, unknown, name))
end

-- In a user namespace of one user, that user is 0 inside and another number outside.
local function stored_as(id, own)
  return id == 0 and own or id
end

local function seen_as(id, own)
  return id == own and 0 or id
end

--- Sets the owner and the group of a place, by name.
function filesystem.set_ownership(sandbox, place, permission)
  local uid, problem = lookup("/etc/passwd", "user", "user: unknown user", permission.owner)
  if not uid then return nil, problem end
  local gid
  gid, problem = lookup("/etc/group", "group", "group: unknown group", permission.group)
  if not gid then return nil, problem end
  if uid == -1 and gid == -1 then return true end
  local ok
  ok, problem = filesystem.call("chown", uv.fs_chown, place, true,
    stored_as(uid, sandbox.strategy.own_uid), stored_as(gid, sandbox.strategy.own_gid))
  if not ok then return nil, errno.wrap("failed to set owner/group for " .. place.named, problem) end
  return true
end

--- Applies `{mode, owner, group}` to a path. Absent members and a mode of 0 change nothing.
function filesystem.set_permission(sandbox, path, permission)
  local place, problem = filesystem.locate(sandbox, path, false, "chmod")
  if not place then return nil, problem end
  if (permission.mode or 0) ~= 0 then
    local mode, ok
    mode, problem = filesystem.mode(permission.mode)
    if not mode then return nil, problem end
    ok, problem = filesystem.call("chmod", uv.fs_chmod, place, true, mode)
    if not ok then return nil, problem end
  end
  return filesystem.set_ownership(sandbox, place, permission)
end

--- The members of permissions of a request, for go_json.
filesystem.PERMISSION_FIELDS = { { "owner", "string" }, { "group", "string" }, { "mode", "int" } }

local TYPES = { file = "file", directory = "directory", link = "symlink" }

--- Returns the description of a file as the API shows it.
---@param sandbox table
---@param named string the path to show
---@param stat table the result of lstat
function filesystem.describe(sandbox, named, stat)
  local uid = seen_as(stat.uid, sandbox.strategy.own_uid)
  local gid = seen_as(stat.gid, sandbox.strategy.own_gid)
  return {
    path = named, type = TYPES[stat.type] or "other", size = stat.size,
    modified_at = go_text.instant(stat.mtime.sec, stat.mtime.nsec), created_at = go_text.instant(stat.ctime.sec, stat.ctime.nsec),
    owner = account_file("/etc/passwd").names[uid] or tostring(uid), group = account_file("/etc/group").names[gid] or tostring(gid),
    mode = tonumber(("%o"):format(stat.mode % 512)),
  }
end

--- Returns the entries of a directory in byte order.
---@return table[]? entries each has `name`, `place` and `stat` (the result of lstat)
---@return table? problem
function filesystem.entries(sandbox, place)
  local found, problem = filesystem.call("open", list_directory, place)
  if not found then return nil, problem end
  local list = {}
  for index, name in ipairs(found) do list[index] = { name = name } end
  table.sort(list, function(a, b) return a.name < b.name end)
  local base = place.named == "/" and "/" or place.named .. "/"
  local inside = place.inside == "/" and "/" or place.inside .. "/"
  for _, entry in ipairs(list) do
    entry.place, problem = sandbox.paths:resolve(inside .. entry.name, true)
    if not entry.place then return nil, errno.new(problem, "lstat", base .. entry.name) end
    entry.place.named = base .. entry.name
    entry.stat, problem = filesystem.call("lstat", uv.fs_lstat, entry.place)
    if not entry.stat then return nil, problem end
  end
  return list
end

--- Copies the contents of a directory of this machine into another one, with owners, modes and times.
---@param from string
---@param to string
---@param callback fun(problem?: string)
function filesystem.copy_all(from, to, callback)
  local log = assert(uv.fs_open("/dev/null", "w", 0))
  local pid, code = spawn {
    argv = { "/bin/cp", "-a", "--reflink=auto", from .. "/.", to }, stdout = log, stderr = log,
    on_exit = function(exit_code) callback(exit_code ~= 0 and ("cp ended with %d"):format(exit_code) or nil) end,
  }
  uv.fs_close(log)
  if not pid then callback(code) end
end

--- Removes a tree of this machine. A missing one is removed already.
---@param path string
---@return true? ok
---@return string? code of the error
---@return string? where the path at which it stopped
function filesystem.remove_all(path)
  local stat = uv.fs_lstat(path)
  if not stat then return true end
  if stat.type == "directory" then
    -- The owner may be without rights to its own directory, and needs them to empty it.
    if stat.mode % 512 < 448 then uv.fs_chmod(path, 448) end
    local found, _, code = list_directory(path)
    if not found then return nil, code, path end
    for _, name in ipairs(found) do
      local ok, problem, where = filesystem.remove_all(path .. "/" .. name)
      if not ok then return nil, problem, where end
    end
    local ok
    ok, _, code = uv.fs_rmdir(path)
    return ok, code, path
  end
  local ok, _, code = uv.fs_unlink(path)
  return ok, code, path
end

return filesystem

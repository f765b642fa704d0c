--- Operations on the files of a sandbox that the file routes share: every path goes through the sandbox's mapping, and
-- every failure is an error in execd's words.

local uv = require "luv"
local list_names = require "opensandbox.devserver.base.list_directory"
local spawn = require "opensandbox.devserver.base.spawn"
local errno = require "opensandbox.devserver.base.errno"
local time = require "opensandbox.devserver.base.time"

local filesystem = {}

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

--- The primary group of a user, 0 for an unknown one.
function filesystem.primary_group(uid)
  local users = account_file("/etc/passwd")
  local name = users.names[uid]
  return name and users.numbers[name].group or 0
end

--- Expands a path of a request and finds it on this machine.
-- @param keep_last whether a link at the end stays itself
-- @treturn[1] table as `Paths:resolve` gives it; `named` is the absolute path without links resolved
-- @treturn[2] nil
-- @treturn[2] table the error
function filesystem.locate(sandbox, path, keep_last, operation)
  local expanded, problem = sandbox.paths:expand(path)
  if not expanded then return nil, problem end
  local named = sandbox.paths:clean(expanded)
  local place, code = sandbox.paths:resolve(named, keep_last)
  if not place then return nil, errno.new(code, operation or "stat", named) end
  place.named = named
  return place
end

--- Calls a luv file system function on a place; its error names the path as the sandbox knows it.
-- @param writes whether it changes the place
function filesystem.call(operation, fn, place, writes, ...)
  if writes and place.read_only then return nil, errno.new("EROFS", operation, place.named) end
  local result, _, code = fn(place.path, ...)
  if result == nil then return nil, errno.new(code, operation, place.named) end
  return result
end

--- Stat of a path, following links.
function filesystem.stat(sandbox, path)
  local place, problem = filesystem.locate(sandbox, path)
  if not place then return nil, problem end
  local stat
  stat, problem = filesystem.call("stat", uv.fs_stat, place)
  if not stat then return nil, problem end
  return stat, place
end

--- Makes a directory with all that lead to it.
-- @treturn[1] table the topmost one that was made, or false
-- @treturn[2] nil
-- @treturn[2] table the error
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

--- The number that decimal digits are in base eight: 644 is rw-r--r--. Special bits are dropped, as execd does.
-- @treturn[1] number
-- @treturn[2] nil
-- @treturn[2] table the error
function filesystem.mode(digits)
  local text = ("%.0f"):format(digits)
  local value = text:match("^[0-7]+$") and tonumber(text, 8)
  if not value then return nil, errno.new(nil, ('strconv.ParseUint: parsing "%s": invalid syntax'):format(text)) end
  return value % 512
end

-- Looks a name up; an error unless it is absent.
local function lookup(path, kind, unknown, name)
  if not name or name == "" then return -1 end
  local account = account_file(path).numbers[name]
  if account then return account.id end
  return nil, errno.new(nil, ("failed to lookup %s %s: %s %s"):format(kind, name, unknown, name))
end

-- In a namespace of one user, that user is 0 inside and another number outside.
local function stored_as(id, own)
  return id == 0 and own or id
end

local function seen_as(id, own)
  return id == own and 0 or id
end

--- Gives a place to an owner and a group, by name. An isolated session's files have none.
function filesystem.set_ownership(sandbox, place, permission)
  if sandbox.is_view then return true end
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

--- Applies `{mode, owner, group}` to a path; what is absent or zero stays as it is.
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

--- Whether a value can be permissions of a request.
function filesystem.is_permission(value)
  return type(value) == "table" and (value.mode == nil or (type(value.mode) == "number" and value.mode % 1 == 0))
    and (value.owner == nil or type(value.owner) == "string") and (value.group == nil or type(value.group) == "string")
end

local NEVER = "0001-01-01T00:00:00Z"   -- Go's zero, where nobody has looked
local TYPES = { file = "file", directory = "directory", link = "symlink" }

--- A file's description as the API gives it: for an isolated session without owner, group and time of creation.
-- @param sandbox
-- @param named the absolute path to show
-- @param stat what lstat said
function filesystem.describe(sandbox, named, stat)
  local uid = seen_as(stat.uid, sandbox.strategy.own_uid)
  local gid = seen_as(stat.gid, sandbox.strategy.own_gid)
  local function instant(at) return time.format(at.sec, at.nsec, 9, true) end
  local view = sandbox.is_view
  return {
    path = named, type = TYPES[stat.type] or "other", size = stat.size,
    modified_at = instant(stat.mtime), created_at = view and NEVER or instant(stat.ctime),
    owner = view and "" or account_file("/etc/passwd").names[uid] or tostring(uid),
    group = view and "" or account_file("/etc/group").names[gid] or tostring(gid),
    mode = tonumber(("%o"):format(stat.mode % 512)),
  }
end

--- The entries of a directory in byte order, each with its place and what lstat says.
-- @treturn[1] {{name,place,stat},...}
-- @treturn[2] nil
-- @treturn[2] table the error
function filesystem.entries(sandbox, place)
  local found, problem = filesystem.call("open", list_names, place)
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

--- Copies what is in a directory of this machine into another, with everything that belongs to it.
-- @param callback called with nil, or with what went wrong
function filesystem.copy_all(from, to, callback)
  local log = assert(uv.fs_open("/dev/null", "w", 0))
  local pid, code = spawn {
    argv = { "/bin/cp", "-a", "--reflink=auto", from .. "/.", to }, stdout = log, stderr = log,
    on_exit = function(exit_code) callback(exit_code ~= 0 and ("cp ended with %d"):format(exit_code) or nil) end,
  }
  uv.fs_close(log)
  if not pid then callback(code) end
end

--- Removes a tree of this machine, which need not exist.
-- @treturn[1] true
-- @treturn[2] nil
-- @treturn[2] string the error's code
-- @treturn[2] string the path at which it stopped
function filesystem.remove_all(path)
  local stat = uv.fs_lstat(path)
  if not stat then return true end
  if stat.type == "directory" then
    -- An owner can always open its own directory again, and must, to empty it.
    if stat.mode % 512 < 448 then uv.fs_chmod(path, 448) end
    local found, _, code = list_names(path)
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

--- Commands in namespaces made by bubblewrap: a sandbox sees its own directory as `/`, below it this machine's
-- programs read-only, its own processes, and this machine's network.
--
-- One bubblewrap process for each sandbox runs the entrypoint and holds the namespaces; commands enter them with
-- nsenter, which dies of the signal its command died of, where bubblewrap would say 128+n and hide the difference.
-- Killing the first process of the namespace makes the kernel kill all others, whatever groups and sessions they made.

local uv = require "luv"
local json = require "opensandbox.base.json"
local names = require "opensandbox.devserver.base.list_directory"
local guard = require "opensandbox.devserver.base.safe_callback"
local spawn = require "opensandbox.devserver.base.spawn"
local timer = require "opensandbox.devserver.base.timer"
local variables = require "opensandbox.devserver.isolation.env_file"

local PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
local SHARED = { "usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32" }
-- What programs run by root may still do, so that one who installs or builds things can, and cannot undo the isolation.
local CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+net_bind_service,+sys_chroot"

local Bubblewrap = {}
Bubblewrap.__index = Bubblewrap

local function find(program)
  for directory in PATH:gmatch("[^:]+") do
    local path = directory .. "/" .. program
    if uv.fs_access(path, "X") then return path end
  end
end

--- @param shell the path of the shell that runs commands
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string which program is missing
local function new(shell)
  local self = setmetatable({ name = "bwrap", shell = shell, host_trees = {}, links = {} }, Bubblewrap)
  for _, name in ipairs { "bwrap", "nsenter", "setpriv", "env" } do
    self[name] = find(name)
    if not self[name] then return nil, "the program " .. name .. " is not installed" end
  end
  for _, name in ipairs(SHARED) do
    local target = uv.fs_readlink("/" .. name)
    if target then
      self.links[name] = target
    elseif uv.fs_stat("/" .. name) then
      self.host_trees[name] = true
    end
  end
  self.is_root = uv.getuid() == 0
  -- The user of this machine that is 0 inside; nobody when no user namespace is needed.
  self.own_uid = not self.is_root and uv.getuid() or nil
  self.own_gid = not self.is_root and uv.getgid() or nil
  return self
end

--- The environment that commands start with.
function Bubblewrap.environment()
  return { PATH = PATH, HOME = "/root", LANG = "C.UTF-8", TERM = "dumb", EXECD_ENVS = variables.PATH }
end

--- The home directory as the file API names it.
function Bubblewrap.home() return "/root" end

local function append(list, items)
  for _, item in ipairs(items) do list[#list + 1] = item end
  return list
end

-- Variables that would change the programs that lead to a command, which still run outside.
local HAZARDOUS = { "^LD_", "^GLIBC_", "^GCONV_", "^LOCPATH$", "^NLSPATH$", "^MALLOC_" }

local function is_hazardous(name)
  for _, pattern in ipairs(HAZARDOUS) do
    if name:find(pattern) then return true end
  end
  return false
end

-- The arguments that run `argv` with limited rights, and the environment to start them in. Hazardous variables are set
-- by an argument at the end of the way; the others are not, because arguments can be seen by every user.
function Bubblewrap:_confined(options)
  local argv = { self.setpriv, "--bounding-set=" .. CAPABILITIES }
  if self.is_root and options.uid then
    append(argv, { "--reuid=" .. options.uid, "--regid=" .. (options.gid or 0), "--clear-groups" })
  end
  append(argv, { "--" })
  local env, late = {}, { self.env, "--" }
  for name, value in pairs(options.env) do
    if is_hazardous(name) then late[#late + 1] = name .. "=" .. value else env[name] = value end
  end
  if late[3] then append(argv, late) end
  return append(argv, options.argv), env
end

function Bubblewrap:_holder(root, options)
  local argv = {
    self.bwrap, "--die-with-parent", "--unshare-pid", "--json-status-fd", "3", "--bind", root, "/",
  }
  if not self.is_root then append(argv, { "--unshare-user", "--uid", "0", "--gid", "0" }) end
  for name in pairs(self.host_trees) do append(argv, { "--ro-bind", "/" .. name, "/" .. name }) end
  append(argv, { "--proc", "/proc", "--dev", "/dev", "--chdir", "/", "--" })
  -- The line on descriptor 4 says that the namespaces are complete.
  local entry = append({ "/bin/sh", "-c", 'echo >&4; exec "$@" 4>&-', "sh" }, options.argv)
  local confined, env = self:_confined { argv = entry, env = options.env }
  return append(argv, confined), env
end

--- Prepares a sandbox and starts its entrypoint.
-- @param box holds what is known of the sandbox's processes
-- @param on_ready called when commands can run, or with a message when they never will
-- @param on_exit called with exit code and signal when the entrypoint has ended, and everything else with it
function Bubblewrap:open(box, options, on_ready, on_exit)
  for name, target in pairs(self.links) do uv.fs_symlink(target, box.root .. "/" .. name) end
  local status, complete = uv.new_pipe(false), uv.new_pipe(false)
  local report = ""
  local function settle(problem)
    if on_ready and (problem or (box.init and box.complete)) then
      local callback = on_ready
      on_ready = nil
      callback(problem)
    end
  end
  local argv, env = self:_holder(box.root, options)
  local holder, code = spawn {
    argv = argv, env = env, stdout = options.log, stderr = options.log,
    pipes = { status, complete },
    on_exit = function(exit_code, signal)
      status:close()
      box.holder = nil
      settle("the entrypoint ended before the sandbox was ready")
      on_exit(exit_code, signal)
      if box.on_empty then box.on_empty() end
    end,
  }
  if not holder then
    status:close()
    complete:close()
    return settle(code)
  end
  box.holder = holder
  status:read_start(guard.wrap(function(_, data)
    report = report .. (data or "")
    local line = not box.init and report:match("^[^\n]*\n")
    if line then box.init = (json.decode(line) or {})["child-pid"] end
    settle()
  end))
  complete:read_start(guard.wrap(function(_, data)
    box.complete = data ~= nil
    complete:close()
    settle()
  end))
end

--- An error's code when no process can be started as this user.
function Bubblewrap:refuses(uid, gid)
  if self.is_root then return nil end
  -- The namespace knows one user, who is 0 inside and the server's own outside.
  local fine = (not uid or uid == 0 or uid == uv.getuid()) and (not gid or gid == 0 or gid == uv.getgid())
  return not fine and "EPERM" or nil
end

-- The living members of a process group but its leader; only the leader's child when `alone` is set.
local function members(leader, alone)
  local list = {}
  for _, entry in ipairs(names("/proc") or {}) do
    local pid = tonumber(entry)
    local file = pid and pid ~= leader and io.open("/proc/" .. entry .. "/stat")
    if file then
      -- The name, in parentheses, may hold anything; then come the state, the parent and the group.
      local state, parent, group = (file:read("*a") or ""):match("^.*%) (%S) (%d+) (%d+)")
      file:close()
      local wanted = tonumber(group) == leader and (not alone or tonumber(parent) == leader)
      if wanted and state ~= "Z" then list[#list + 1] = pid end
    end
  end
  return list
end

local MOST_ROUNDS = 20   -- a command that forks while it is signalled gets some more

-- Sends a signal to a command's process group without nsenter, which leads it: nsenter must live on to pass on how the
-- command ends. Were it killed too, its child would be the orphan of the machine's first process, and the namespace
-- could not end before that one has looked after it, which some take seconds for.
--
-- Each is signalled once, in rounds: one that was begun after a round looked, by one that had no signal yet, is seen by the next.
local function signal_group(leader, name, alone)
  local reached = {}
  for _ = 1, MOST_ROUNDS do
    local any = false
    for _, pid in ipairs(members(leader, alone)) do
      if not reached[pid] then
        any, reached[pid] = true, true
        uv.kill(pid, name)
      end
    end
    if not any then break end
  end
  return next(reached) ~= nil
end

-- The same for a command that may have been started so recently that nsenter has not made its process yet.
local function signal_soon(leader, name, alone, is_running)
  if signal_group(leader, name, alone) then return end
  local retry, tries = nil, 0
  retry = timer.every(10, function()
    tries = tries + 1
    if not is_running() or tries > MOST_ROUNDS or signal_group(leader, name, alone) then retry:close() end
  end)
end

--- Starts a command.
-- @param options as for `spawn`, but `cwd` is a resolved path
-- @treturn[1] function sends a signal to the command's process group, or with `true` to its first process only
-- @treturn[2] nil
-- @treturn[2] string the error's code
function Bubblewrap:spawn(box, options)
  local refused = self:refuses(options.uid, options.gid)
  if refused then return nil, refused end
  -- With --root: in a chroot, bubblewrap moves only the chroot, and the root of the new namespace is still the real one.
  local argv = { self.nsenter, "--target", tostring(box.init), "--mount", "--pid", "--root" }
  if not self.is_root then append(argv, { "--user", "--preserve-credentials" }) end
  append(argv, { ("--wd=/proc/%d/root%s"):format(box.init, options.cwd.inside), "--" })
  local confined, env = self:_confined(options)
  append(argv, confined)
  local pid, code
  pid, code = spawn {
    argv = argv, env = env, stdout = options.stdout, stderr = options.stderr, pipes = options.pipes,
    on_exit = function(...)
      box.leaders[pid] = nil
      options.on_exit(...)
    end,
  }
  if not pid then return nil, code end
  box.leaders = box.leaders or {}
  box.leaders[pid] = true
  return function(name, alone) signal_soon(pid, name, alone, function() return box.leaders[pid] end) end
end

--- How commands name a place.
function Bubblewrap.name_of(_, place) return place.inside end

--- The place that commands name so, or nil: nothing of it is taken for granted, because they made it.
function Bubblewrap.place_of(_, paths, name) return (paths:resolve(name)) end

-- The processes in the sandbox's namespace that are not in `state` yet, with their numbers out here.
local function others(box, wanted)
  local list = {}
  local namespace = uv.fs_readlink(("/proc/%d/ns/pid"):format(box.init))
  for _, entry in ipairs(names("/proc") or {}) do
    local pid = tonumber(entry)
    if pid and namespace and uv.fs_readlink("/proc/" .. entry .. "/ns/pid") == namespace then
      local file = io.open("/proc/" .. entry .. "/stat")
      local state = file and (file:read("*a") or ""):match("^.*%) (%S)")
      if file then file:close() end
      if state and state ~= "Z" and (state == "T") ~= wanted then list[#list + 1] = pid end
    end
  end
  return list
end

-- nsenter stops with the command it waits for, and goes on only when it is told.
local function continue_leaders(box)
  for pid in pairs(box.leaders or {}) do uv.kill(pid, "sigcont") end
end

--- Stops every process of the sandbox, or lets all go on.
function Bubblewrap.freeze(_, box, frozen)
  for _ = 1, MOST_ROUNDS do -- one that forks meanwhile leaves another
    local found = others(box, frozen)
    for _, pid in ipairs(found) do uv.kill(pid, frozen and "sigstop" or "sigcont") end
    if #found == 0 then break end
  end
  if not frozen then continue_leaders(box) end
end

--- Ends every process of the sandbox.
function Bubblewrap.close(_, box, callback)
  if not box.holder then return callback() end
  box.on_empty = callback
  if not box.init or not uv.kill(box.init, "sigkill") then uv.kill(box.holder, "sigkill") end
  continue_leaders(box) -- the namespace ends when they have seen their commands end
end

return { new = new }

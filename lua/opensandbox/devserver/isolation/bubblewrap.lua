--- Sandboxes in namespaces made by bubblewrap: a sandbox sees its own directory as `/`, below it this machine's programs read-only,
-- its own processes, and this machine's network.
--
-- One bubblewrap process for each sandbox runs the entrypoint and holds the namespaces. Commands enter them with nsenter, which dies
-- of the signal that its command died of; bubblewrap would exit with 128+n instead. Killing the first process of the PID namespace
-- makes the kernel kill all others.

local uv = require "luv"
local confine = require "opensandbox.devserver.isolation.confine"
local each = require "opensandbox.base.each"
local env_file = require "opensandbox.devserver.isolation.env_file"
local holder = require "opensandbox.devserver.isolation.holder"
local isolated_shell = require "opensandbox.devserver.isolation.isolated_shell"
local processes = require "opensandbox.devserver.isolation.processes"
local shell_words = require "opensandbox.base.shell"
local spawn = require "opensandbox.devserver.base.spawn"

local PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
local SHARED = { "usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32" }

local Bubblewrap = {}
Bubblewrap.__index = Bubblewrap

local function find(program)
  for directory in PATH:gmatch("[^:]+") do
    local path = directory .. "/" .. program
    if uv.fs_access(path, "X") then return path end
  end
end

--- Creates the strategy.
---@param shell string the path of the shell that runs commands
---@return table? strategy
---@return string? problem which program is missing
local function new(shell)
  local self = setmetatable({ name = "bwrap", shell = shell, host_trees = {}, links = {}, programs = {} }, Bubblewrap)
  for _, name in ipairs { "bwrap", "nsenter", "setpriv", "setsid", "env" } do
    self.programs[name] = find(name)
    if not self.programs[name] then return nil, "the program " .. name .. " is not installed" end
  end
  for _, name in ipairs(SHARED) do
    local target = uv.fs_readlink("/" .. name)
    if target then
      self.links[name] = target
    elseif uv.fs_stat("/" .. name) then
      self.host_trees[name] = true
    end
  end
  local version = assert(io.popen(shell_words.quote(self.programs.bwrap) .. " --version"))
  self.version = version:read("*a"):match("%d[%d%.]*")
  version:close()
  self.is_root = uv.getuid() == 0
  -- The user of this machine that is 0 in the sandbox; nil when the sandbox has no user namespace.
  self.own_uid = not self.is_root and uv.getuid() or nil
  self.own_gid = not self.is_root and uv.getgid() or nil
  return self
end

--- Returns the environment that commands start with.
function Bubblewrap.environment()
  return { PATH = PATH, HOME = "/root", LANG = "C.UTF-8", TERM = "dumb", EXECD_ENVS = env_file.PATH }
end

--- Returns the home directory as the file API names it.
function Bubblewrap.home() return "/root" end

--- Returns the directory of this machine below which a container's /proc and /dev can be read; nil when there is none.
function Bubblewrap.mounts(_, container)
  return container.init and ("/proc/%d/root"):format(container.init)
end

-- The arguments of bubblewrap that are the same for a sandbox and for an isolated session of it.
function Bubblewrap:arguments(root, root_option, is_root)
  local argv = { self.programs.bwrap, "--die-with-parent", "--unshare-pid", "--json-status-fd", "3", root_option, root, "/" }
  local function add(...)
    for index = 1, select("#", ...) do argv[#argv + 1] = (select(index, ...)) end
  end
  if not is_root then add("--unshare-user", "--uid", "0", "--gid", "0") end
  for name in each(self.host_trees) do add("--ro-bind", "/" .. name, "/" .. name) end
  add("--proc", "/proc", "--dev", "/dev", "--chdir", "/")
  return argv
end

--- Prepares a sandbox and starts its entrypoint.
---@param container table describes the processes of the sandbox; its `root` is the sandbox's directory
---@param options table `argv`, `env`, `log` (a descriptor)
---@param on_ready fun(problem?: string) called when commands can run, or with the reason why they never will
---@param on_exit fun(code: integer, signal: integer) called when the entrypoint has ended, and all other processes with it
function Bubblewrap:open(container, options, on_ready, on_exit)
  for name, target in each(self.links) do uv.fs_symlink(target, container.root .. "/" .. name) end
  container.leaders = {} -- nsenter processes of commands, by pid
  container.shells = {} -- those of isolated sessions
  container.holder = holder.start {
    arguments = self:arguments(container.root, "--bind", self.is_root),
    command = confine(self.programs, { argv = options.argv, env = options.env }),
    stdout = options.log, stderr = options.log,
    on_ready = function(problem, init)
      container.init = init
      on_ready(problem)
    end,
    on_exit = function(code, signal)
      container.holder = nil
      on_exit(code, signal)
      if container.on_empty then container.on_empty() end
    end,
  }
end

--- Returns the code of an error when no process can be started as this user.
---@param uid? integer
---@param gid? integer
---@return string?
function Bubblewrap:refuses(uid, gid)
  if self.is_root then return nil end
  -- The namespace has one user, who is 0 in it and the server's own outside.
  local fine = (not uid or uid == 0 or uid == uv.getuid()) and (not gid or gid == 0 or gid == uv.getgid())
  return not fine and "EPERM" or nil
end

--- Starts a command.
---@param container table
---@param options table as for `spawn`, but `cwd` is a resolved path; `session`: "terminal": the standard input of the command becomes
-- its controlling terminal
---@return (fun(name: string, alone?: boolean, sent?: fun()))? send sends a signal to the command's process group, or only to its first
-- process, and calls `sent` when that is done
---@return string? code of an error
function Bubblewrap:spawn(container, options)
  local refused = self:refuses(options.uid, options.gid)
  if refused then return nil, refused end
  -- With --root: in a chroot, bubblewrap moves only the chroot, and the root of the new namespace is still the real one.
  local argv = { self.programs.nsenter, "--target", tostring(container.init), "--mount", "--pid", "--root" }
  local function add(items)
    for _, item in ipairs(items) do argv[#argv + 1] = item end
  end
  if not self.is_root then add { "--user", "--preserve-credentials" } end
  add { ("--wd=/proc/%d/root%s"):format(container.init, options.cwd.inside), "--" }
  local command = confine(self.programs, {
    argv = options.argv, env = options.env, uid = self.is_root and options.uid or nil, gid = options.gid,
    prefix = { self.programs.setsid, options.session == "terminal" and "--ctty" or nil },
  })
  add(command.argv)
  local pid, code
  pid, code = spawn {
    argv = argv, env = command.env, stdin = options.stdin, stdout = options.stdout, stderr = options.stderr, pipes = options.pipes,
    on_exit = function(...)
      container.leaders[pid] = nil
      options.on_exit(...)
    end,
  }
  if not pid then return nil, code end
  container.leaders[pid] = true
  -- The command leads a group of its own, because nsenter is not signalled: it must live to report how the command ends. Were it killed,
  -- its child would become a child of the machine's first process, and the namespace could not end before that one has waited for it.
  return function(name, alone, sent)
    local function is_running() return container.leaders[pid] end
    processes.signal_child_soon(pid, name, { alone = alone, is_running = is_running, sent = sent })
  end
end

--- Opens an isolated session: a shell in namespaces of its own (see isolated_shell.lua).
function Bubblewrap:open_shell(container, options)
  return isolated_shell.open(self, container, options)
end

--- Returns how commands name a place.
function Bubblewrap.name_of(_, place) return place.inside end

--- Returns the place that commands name so, or nil. The name is not trusted, because it comes from commands.
function Bubblewrap.place_of(_, paths, name) return (paths:resolve(name)) end

-- nsenter stops with the command that it waits for, and has to be continued by itself.
local function continue_leaders(container)
  for pid in each(container.leaders) do uv.kill(pid, "sigcont") end
end

--- Stops every process of the sandbox, or continues them.
function Bubblewrap.freeze(_, container, frozen)
  processes.freeze(container.init, frozen)
  for shell in each(container.shells) do processes.freeze(shell.init, frozen) end
  if not frozen then continue_leaders(container) end
end

--- Kills every process of the sandbox.
---@param container table
---@param callback fun() called when none is left
function Bubblewrap.close(_, container, callback)
  if not container.holder then return callback() end
  container.on_empty = callback
  if not container.init or not uv.kill(container.init, "sigkill") then uv.kill(container.holder, "sigkill") end
  continue_leaders(container) -- the namespace ends after they have seen their commands end
end

return { new = new }

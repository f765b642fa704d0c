--- Sandboxes as plain processes of this machine, for machines where bubblewrap does not work. Nothing is hidden from commands: only
-- the file API and the default working directory stay in the sandbox's directory. There are no isolated sessions: this strategy has no
-- `open_shell`.

local uv = require "luv"
local each = require "opensandbox.base.each"
local env_file = require "opensandbox.devserver.isolation.env_file"
local processes = require "opensandbox.devserver.isolation.processes"
local spawn = require "opensandbox.devserver.base.spawn"

local Unisolated = {}
Unisolated.__index = Unisolated

--- The trees of this machine that the file API shows, read-only.
Unisolated.host_trees = { usr = true, etc = true, opt = true, bin = true, sbin = true, lib = true, lib64 = true }

local function new(shell)
  return setmetatable({ name = "none", shell = shell }, Unisolated)
end

--- Returns the environment that commands start with.
function Unisolated.environment(_, root)
  return {
    PATH = os.getenv("PATH") or "/usr/bin:/bin", HOME = root, TMPDIR = root .. "/tmp", LANG = "C.UTF-8", TERM = "dumb",
    EXECD_ENVS = root .. env_file.PATH,
  }
end

--- Returns the home directory as the file API names it.
function Unisolated.home() return "/" end

--- Returns the directory of this machine below which /proc and /dev can be read.
function Unisolated.mounts() return "" end

local function kill_all(container)
  for pid in each(container.groups) do
    if not uv.kill(-pid, "sigkill") then uv.kill(pid, "sigkill") end
  end
end

--- Prepares a sandbox and starts its entrypoint.
---@param container table describes the processes of the sandbox; its `root` is the sandbox's directory
---@param options table `argv`, `env`, `log` (a descriptor)
---@param on_ready fun(problem?: string) called when commands can run, or with the reason why they never will
---@param on_exit fun(code: integer, signal: integer) called when the entrypoint has ended
function Unisolated:open(container, options, on_ready, on_exit)
  container.groups, container.live = {}, 0
  local argv = { "/bin/sh", "-c", 'exec "$@"', "sh" }
  for _, argument in ipairs(options.argv) do argv[#argv + 1] = argument end
  local _, code = self:spawn(container, {
    argv = argv, env = options.env, cwd = { path = container.root }, stdout = options.log, stderr = options.log,
    on_exit = function(...)
      kill_all(container) -- the end of a container's first process ends all others
      on_exit(...)
    end,
  })
  on_ready(code)
end

--- Returns the code of an error when no process can be started as this user.
function Unisolated.refuses(_, uid, gid)
  local real = uv.getuid()
  local same = (uid or real) == real and (gid or uv.getgid()) == uv.getgid()
  return real ~= 0 and not same and "EPERM" or nil
end

--- Starts a command.
---@param container table
---@param options table as for `spawn`, but `cwd` is a resolved path; `session`: "terminal" or "plain": the command begins a session,
-- with its standard input as the controlling terminal, or without a terminal
---@return (fun(name: string, alone?: boolean, sent?: fun()))? send sends a signal to the command's process group, or only to its first
-- process, and calls `sent` when that is done
---@return string? code of an error
function Unisolated:spawn(container, options)
  local refused = self:refuses(options.uid, options.gid)
  if refused then return nil, refused end
  local argv = {}
  local prefix = options.session and { "setsid", options.session == "terminal" and "--ctty" or nil } or {}
  for _, list in ipairs { prefix, options.argv } do
    for _, argument in ipairs(list) do argv[#argv + 1] = argument end
  end
  local pid, code
  pid, code = spawn {
    argv = argv, env = options.env, cwd = options.cwd.path, stdin = options.stdin, stdout = options.stdout, stderr = options.stderr,
    pipes = options.pipes, uid = options.uid, gid = options.gid, detached = not options.session,
    on_exit = function(exit_code, signal)
      container.live = container.live - 1
      -- The jobs of a shell are in groups of their own.
      if options.session then processes.signal_session(pid, "sigkill") end
      -- Processes that a command left running belong to the sandbox, so its group is forgotten only when it is empty.
      if not uv.kill(-pid, 0) then container.groups[pid] = nil end
      options.on_exit(exit_code, signal)
      if container.live == 0 and container.on_empty then container.on_empty() end
    end,
  }
  if not pid then return nil, code end
  container.groups[pid], container.live = true, container.live + 1
  return function(name, alone, sent)
    -- A command that is to lead a session leads no group at first.
    if alone or not uv.kill(-pid, name) then uv.kill(pid, name) end
    if sent then sent() end
  end
end

--- Returns how commands name a place.
function Unisolated.name_of(_, place) return place.path end

--- Returns the place that commands name so.
function Unisolated.place_of(_, _, name) return { path = name, inside = name } end

--- Stops every process of the sandbox, or continues them.
function Unisolated.freeze(_, container, frozen)
  for pid in each(container.groups) do uv.kill(-pid, frozen and "sigstop" or "sigcont") end
end

--- Kills every process of the sandbox.
---@param container table
---@param callback fun() called when none is left
function Unisolated.close(_, container, callback)
  kill_all(container)
  if container.live == 0 then return callback() end
  container.on_empty = callback
end

return { new = new }

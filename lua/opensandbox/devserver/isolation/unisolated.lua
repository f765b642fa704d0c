--- Commands as plain processes of this machine: nothing is hidden from them.
--
-- For machines where bubblewrap does not work. Only the file API and the default working directory stay inside the
-- sandbox's directory here.

local uv = require "luv"
local spawn = require "opensandbox.devserver.base.spawn"
local variables = require "opensandbox.devserver.isolation.env_file"

local Plain = {}
Plain.__index = Plain

--- The trees of this machine that the file API shows, read-only.
Plain.host_trees = { usr = true, etc = true, opt = true, bin = true, sbin = true, lib = true, lib64 = true }

local function new(shell)
  return setmetatable({ name = "none", shell = shell }, Plain)
end

--- The environment that commands start with.
function Plain.environment(_, root)
  return {
    PATH = os.getenv("PATH") or "/usr/bin:/bin", HOME = root, TMPDIR = root .. "/tmp", LANG = "C.UTF-8", TERM = "dumb",
    EXECD_ENVS = root .. variables.PATH,
  }
end

--- The home directory as the file API names it.
function Plain.home() return "/" end

local function kill_all(box)
  for pid in pairs(box.groups) do uv.kill(-pid, "sigkill") end
end

--- Prepares a sandbox and starts its entrypoint.
-- @param box holds what is known of the sandbox's processes
-- @param on_ready called when commands can run, or with a message when they never will
-- @param on_exit called with exit code and signal when the entrypoint has ended
function Plain:open(box, options, on_ready, on_exit)
  box.groups, box.live = {}, 0
  local argv = { "/bin/sh", "-c", 'exec "$@"', "sh" }
  for _, argument in ipairs(options.argv) do argv[#argv + 1] = argument end
  local _, code = self:spawn(box, {
    argv = argv, env = options.env, cwd = { path = box.root }, stdout = options.log, stderr = options.log,
    on_exit = function(...)
      kill_all(box)   -- as the end of a container's first process ends all others
      on_exit(...)
    end,
  })
  on_ready(code)
end

--- Whether a process can be started as another user; an error's code when not.
function Plain.refuses(_, uid, gid)
  local real = uv.getuid()
  local same = (uid or real) == real and (gid or uv.getgid()) == uv.getgid()
  return real ~= 0 and not same and "EPERM" or nil
end

--- Starts a command.
-- @param options as for `spawn`, but `cwd` is a resolved path
-- @treturn[1] function sends a signal to the command's process group, or with `true` to its first process only
-- @treturn[2] nil
-- @treturn[2] string the error's code
function Plain:spawn(box, options)
  local refused = self:refuses(options.uid, options.gid)
  if refused then return nil, refused end
  local pid, code
  pid, code = spawn {
    argv = options.argv, env = options.env, cwd = options.cwd.path, stdout = options.stdout, stderr = options.stderr,
    pipes = options.pipes, uid = options.uid, gid = options.gid,
    on_exit = function(exit_code, signal)
      box.live = box.live - 1
      -- What a command left running belongs to the sandbox; its group is forgotten only when it is empty.
      if not uv.kill(-pid, 0) then box.groups[pid] = nil end
      options.on_exit(exit_code, signal)
      if box.live == 0 and box.on_empty then box.on_empty() end
    end,
  }
  if not pid then return nil, code end
  box.groups[pid], box.live = true, box.live + 1
  return function(name, alone) uv.kill(alone and pid or -pid, name) end
end

--- How commands name a place.
function Plain.name_of(_, place) return place.path end

--- The place that commands name so.
function Plain.place_of(_, _, name) return { path = name, inside = name } end

--- Stops every process of the sandbox, or lets all go on.
function Plain.freeze(_, box, frozen)
  for pid in pairs(box.groups) do uv.kill(-pid, frozen and "sigstop" or "sigcont") end
end

--- Ends every process of the sandbox.
function Plain.close(_, box, callback)
  kill_all(box)
  if box.live == 0 then return callback() end
  box.on_empty = callback
end

return { new = new }

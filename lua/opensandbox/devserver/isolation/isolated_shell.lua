--- The shell of an isolated session: in namespaces of its own, which see the sandbox's files read-only, except for its workspace.

local uv = require "luv"
local confine = require "opensandbox.devserver.isolation.confine"
local holder = require "opensandbox.devserver.isolation.holder"
local processes = require "opensandbox.devserver.isolation.processes"
local shell = require "opensandbox.base.shell"

local isolated_shell = {}

-- Where the upper directory of an overlay is while it is being mounted. /run of a session is empty.
local OVERLAY = "/run/overlay"

local Shell = {}
Shell.__index = Shell

--- Sends a signal to all processes of the session.
function Shell:signal(name)
  if self.pid then processes.signal_namespace(self.init, name) end
end

--- Kills all processes of the session.
function Shell:kill()
  if self.pid and not uv.kill(self.init, "sigkill") then uv.kill(self.pid, "sigkill") end
end

-- The script that mounts the overlay. The lower directory is the workspace of the sandbox, which the overlay then hides.
local function overlay_script(workspace, is_root)
  local options = ("lowerdir=%s,upperdir=%s/upper,workdir=%s/work%s"):format(workspace, OVERLAY, OVERLAY,
    is_root and "" or ",userxattr")
  return ("mount -t overlay overlay -o %s %s && umount -l %s"):format(shell.quote(options), shell.quote(workspace), OVERLAY)
end

--- Opens a shell.
---@param strategy table the one of bubblewrap
---@param container table of the sandbox
---@param options table `argv`, `env`, `uid`, `gid`, `stdin`, `output` (descriptors); `workspace` (a place), `mode` ("rw", "ro" or "overlay"),
-- `overlay` (a directory of this machine with `upper` and `work`); `profile`, `binds` (`source` and `dest` places, `readonly`),
-- `writable` (places), `share_net`; `on_ready(problem)`, `on_exit()` (called after `on_ready` without a problem)
---@return table shell
function isolated_shell.open(strategy, container, options)
  local argv = strategy:arguments(container.root, "--ro-bind", strategy.is_root)
  local function add(...)
    for index = 1, select("#", ...) do argv[#argv + 1] = (select(index, ...)) end
  end
  add("--tmpfs", "/run")
  if options.profile == "balanced" then
    add("--bind", container.root .. "/tmp", "/tmp")
  else
    add("--tmpfs", "/tmp")
  end
  local workspace, is_overlay = options.workspace, options.mode == "overlay"
  -- The overlay hides a bind mount, because it cannot be mounted on a directory of a read-only one that it reads from.
  add(options.mode == "rw" and "--bind" or "--ro-bind", workspace.path, workspace.inside)
  if is_overlay then add("--bind", options.overlay, OVERLAY) end
  for _, bind in ipairs(options.binds) do
    add(bind.readonly and "--ro-bind" or "--bind", bind.source.path, bind.dest.inside)
  end
  for _, place in ipairs(options.writable) do add("--bind", place.path, place.inside) end
  if options.share_net == false then add("--unshare-net") end
  add("--cap-add", "ALL") -- for the mount; the shell has only those that every command has

  local self = setmetatable({}, Shell)
  self.pid = holder.start {
    arguments = argv, setup = is_overlay and overlay_script(workspace.inside, strategy.is_root) or nil,
    command = confine(strategy.programs, {
      argv = options.argv, env = options.env, uid = strategy.is_root and options.uid or nil, gid = options.gid,
    }),
    stdin = options.stdin, stdout = options.output, stderr = options.output,
    on_ready = function(problem, init)
      self.init = init
      if problem then self.failed = true else container.shells[self] = true end
      options.on_ready(problem)
    end,
    on_exit = function()
      self.pid = nil
      container.shells[self] = nil
      if not self.failed then options.on_exit() end
    end,
  }
  return self
end

return isolated_shell

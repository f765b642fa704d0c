--- The shell of an isolated session: in namespaces of its own, which see the sandbox's files read-only, except for its directories.

local uv = require "luv"
local confine = require "opensandbox.devserver.isolation.confine"
local holder = require "opensandbox.devserver.isolation.holder"
local processes = require "opensandbox.devserver.isolation.processes"
local shell = require "opensandbox.base.shell"

local isolated_shell = {}

-- Where the upper directories of overlays, and directories below overlays, are while they are being mounted. /run of a session is empty.
local STAGE = "/run/mounts/%d"

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

-- The script that mounts an overlay. The lower directory is that of the sandbox, which the overlay then hides. Changes that last go to a
-- directory of this machine, and others into memory.
local function overlay_script(mount, stage, is_root)
  local options = ("lowerdir=%s,upperdir=%s/upper,workdir=%s/work%s"):format(mount.place.inside, stage, stage,
    is_root and "" or ",userxattr")
  local in_memory = mount.overlay and "" or ("mount -t tmpfs tmpfs %s && mkdir %s/upper %s/work && "):format(stage, stage, stage)
  return ("%smount -t overlay overlay -o %s %s && umount -l %s"):format(in_memory, shell.quote(options),
    shell.quote(mount.place.inside), stage)
end

-- Returns whether a directory lies below an overlay among the ones before it, which would hide it.
local function is_hidden(list, index)
  local path = list[index].place.inside
  for before = 1, index - 1 do
    local mount = list[before]
    if mount.mode == "overlay" and path:sub(1, #mount.place.inside + 1) == mount.place.inside .. "/" then return true end
  end
  return false
end

-- Adds the arguments for the session's directories. Returns the script for the mounts that bubblewrap cannot make, or nil.
local function add_mounts(add, given, is_root)
  local list, steps = {}, {}
  for index, mount in ipairs(given) do list[index] = mount end
  table.sort(list, function(a, b) return #a.place.inside < #b.place.inside end) -- those above first
  for index, mount in ipairs(list) do
    local stage, inside, option = STAGE:format(index), mount.place.inside, mount.mode == "rw" and "--bind" or "--ro-bind"
    -- The overlay hides a bind mount, because it cannot be mounted on a directory of a read-only mount that it reads from.
    if inside ~= "/" then add(option, mount.place.path, inside) end
    if mount.mode == "overlay" then
      if mount.overlay then add("--bind", mount.overlay, stage) else add("--dir", stage) end
      steps[#steps + 1] = overlay_script(mount, stage, is_root)
    elseif is_hidden(list, index) then
      add(option, mount.place.path, stage)
      local quoted = shell.quote(inside)
      steps[#steps + 1] = ("mkdir -p %s && mount --bind %s %s && umount -l %s"):format(quoted, stage, quoted, stage)
    end
  end
  return steps[1] and table.concat(steps, " && ")
end

--- Opens a shell.
---@param strategy table of bubblewrap
---@param container table of the sandbox
---@param options table `argv`, `env`, `uid`, `gid`, `stdin`, `output` (descriptors); `mounts` (`place`; `mode`: "rw", "ro"
-- or "overlay"; `overlay`: a directory of this machine with `upper` and `work`, nil for changes in memory); `profile`, `binds` (`source` and `dest` places, `readonly`),
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
  local setup = add_mounts(add, options.mounts, strategy.is_root)
  for _, bind in ipairs(options.binds) do
    add(bind.readonly and "--ro-bind" or "--bind", bind.source.path, bind.dest.inside)
  end
  for _, place in ipairs(options.writable) do add("--bind", place.path, place.inside) end
  if options.share_net == false then add("--unshare-net") end
  add("--cap-add", "ALL") -- for the mount; the shell has only those that every command has

  local self = setmetatable({}, Shell)
  self.pid = holder.start {
    arguments = argv, setup = setup,
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

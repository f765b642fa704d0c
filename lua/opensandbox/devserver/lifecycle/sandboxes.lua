--- The sandboxes of the server: making them, finding them, and how they end: deleted, expired, or by their entrypoint.

local uv = require "luv"
local commands = require "opensandbox.devserver.execd.commands"
local contexts = require "opensandbox.devserver.execd.code"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local guard = require "opensandbox.devserver.base.safe_callback"
local isolated = require "opensandbox.devserver.execd.isolated"
local isolation = require "opensandbox.devserver.isolation.detect"
local paths = require "opensandbox.devserver.isolation.paths"
local random = require "opensandbox.devserver.base.random"
local sessions = require "opensandbox.devserver.execd.sessions"
local time = require "opensandbox.devserver.base.time"
local timer = require "opensandbox.devserver.base.timer"
local variables = require "opensandbox.devserver.isolation.env_file"

local function environment(base, env, changes)
  local merged = {}
  for _, source in ipairs { base, env or {}, changes or {} } do
    for name, value in pairs(source) do merged[name] = value end
  end
  return merged
end

local Sandbox = {}
Sandbox.__index = Sandbox

--- The variables of a command: the sandbox's own, those of the file of variables, and `envs` of the request.
function Sandbox:variables(envs)
  local place = self.paths:resolve(variables.PATH)
  return environment(self.environment, place and variables.read(place.path, self.environment), envs)
end

--- Its state, with the reason and message of a Docker server.
function Sandbox:status()
  local exit = self.exit
  if not exit and self.paused then
    return { state = "Paused", reason = "CONTAINER_PAUSED", message = "Sandbox container is paused.",
      lastTransitionAt = time.format(self.created[1], self.created[2], 6) }
  elseif not exit then
    return { state = "Running", reason = "CONTAINER_RUNNING", message = "Sandbox container is running.",
      lastTransitionAt = time.format(self.created[1], self.created[2], 6) }
  end
  local at = time.format(exit.at[1], exit.at[2], 6)
  if exit.code == 0 then
    return { state = "Terminated", reason = "CONTAINER_EXITED", message = "Sandbox container exited successfully.",
      lastTransitionAt = at }
  end
  return { state = "Failed", reason = "CONTAINER_EXITED_ERROR",
    message = ("Sandbox container exited with code %d."):format(exit.code), lastTransitionAt = at }
end

--- Stops all that runs in it. Its execd answers nobody meanwhile, as in a frozen container.
function Sandbox:pause()
  self.paused = {}
  self.strategy:freeze(self.box, true)
end

--- Lets it go on, and answers those who have asked meanwhile.
function Sandbox:resume()
  local held = self.paused
  self.paused = nil
  self.strategy:freeze(self.box, false)
  for _, answer in ipairs(held) do answer() end
end

--- Keeps a request to a paused sandbox until it goes on.
function Sandbox:hold(request, response, answer)
  self.responses[response] = true
  request:hold()
  table.insert(self.paused, guard.wrap(function()
    answer()
    request:release()
  end, function() response:abort() end))
end

--- Cuts every connection to its execd, as the end of a container does.
function Sandbox:cut()
  for response in pairs(self.responses) do response:abort() end
end

local Store = {}
Store.__index = Store

--- `gateway_port` is set before the first sandbox is made.
-- @param options `directory` (where sandboxes live), `strategy` (the isolation), `grace` (milliseconds)
local function new(options)
  return setmetatable({
    directory = options.directory, strategy = options.strategy, grace = options.grace, by_id = {}, made = 0,
  }, Store)
end

function Store:get(id)
  return self.by_id[id]
end

--- All sandboxes, the newest first.
function Store:list()
  local list = {}
  for _, sandbox in pairs(self.by_id) do list[#list + 1] = sandbox end
  table.sort(list, function(a, b) return a.number > b.number end)
  return list
end

function Store:_arm(sandbox)
  if sandbox.timer then
    sandbox.timer:close()
    sandbox.timer = nil
  end
  if not sandbox.expires then return end
  local seconds, microseconds = time.now()
  local left = sandbox.expires[1] - seconds + (sandbox.expires[2] - microseconds) / 1e6
  sandbox.timer = timer.after(left * 1000, function() self:remove(sandbox) end)
end

--- Sets when a sandbox ends, as seconds and microseconds since 1970.
function Store:renew(sandbox, seconds, microseconds)
  sandbox.expires = { seconds, microseconds }
  self:_arm(sandbox)
end

--- Makes a sandbox.
-- @param request the body of POST /sandboxes, checked
-- @param source a directory whose files it begins with, or nil
-- @param callback gets the sandbox, or nil and a message
function Store:create(request, source, callback)
  local id, strategy = random.uuid(), self.strategy
  local directory = self.directory .. "/" .. id
  local root = directory .. "/root"
  self.made = self.made + 1
  -- The official code interpreter waits until somebody listens where Jupyter does. What takes its place is this server.
  local jupyter = { JUPYTER_PORT = ("%d"):format(self.gateway_port) }
  local own = environment(strategy:environment(root), jupyter, request.env)
  local created = { time.now() }
  local sandbox = setmetatable({
    id = id, number = self.made, token = random.hex(24), directory = directory, root = root,
    spool = directory .. "/spool", strategy = strategy, box = { root = root }, grace = self.grace,
    responses = setmetatable({}, { __mode = "k" }), environment = own, created = created, request = request,
    metadata = environment(request.metadata or {}),
    expires = request.timeout and { created[1] + request.timeout, created[2] } or nil,
  }, Sandbox)
  sandbox.paths = paths.new(root, strategy.host_trees, environment(own, nil, { HOME = strategy:home() }))
  sandbox.commands, sandbox.sessions = commands.new(sandbox), sessions.new(sandbox)
  sandbox.contexts, sandbox.isolated = contexts.new(sandbox), isolated.new(sandbox)

  assert(uv.fs_mkdir(directory, 448))   -- 0700: other users of this machine have no business here
  assert(uv.fs_mkdir(sandbox.spool, 448))
  -- What was in a snapshot lies over what every sandbox has.
  isolation.make_root(root)
  if not source then return self:_start(sandbox, callback) end
  filesystem.copy_all(source, root, function(problem)
    if not problem then return self:_start(sandbox, callback) end
    filesystem.remove_all(directory)
    callback(nil, problem)
  end)
end

-- Starts the entrypoint of a sandbox whose files are there.
function Store:_start(sandbox, callback)
  local id, directory, strategy, request = sandbox.id, sandbox.directory, sandbox.strategy, sandbox.request
  local log = assert(uv.fs_open(directory .. "/entrypoint.log", "a", 384))
  strategy:open(sandbox.box, { argv = request.entrypoint, env = sandbox.environment, log = log }, function(problem)
    if problem and not sandbox.exit then
      filesystem.remove_all(directory)
      return callback(nil, problem)
    end
    self.by_id[id] = sandbox
    if self.closed then return self:remove(sandbox) end   -- the server was stopped meanwhile
    self:_arm(sandbox)
    callback(sandbox)
  end, function(code, signal)
    sandbox.exit = { code = signal > 0 and 128 + signal or code, at = { time.now() } }
    sandbox:cut()
  end)
  uv.fs_close(log)
end

--- Ends a sandbox with all its processes and removes its files; unknown from now on.
-- @param callback called when nothing of it is left
function Store:remove(sandbox, callback)
  if not self.by_id[sandbox.id] then return callback and callback() end
  self.by_id[sandbox.id] = nil
  if sandbox.timer then sandbox.timer:close() end
  sandbox:cut()
  sandbox.sessions:close_all()
  sandbox.isolated:close_all()
  sandbox.strategy:close(sandbox.box, function()
    local ok, code, where = filesystem.remove_all(sandbox.directory)
    if not ok then guard.log(("cannot remove %s: %s"):format(where, code)) end
    if callback then callback() end
  end)
end

--- Ends all sandboxes, those that are still being made included.
function Store:close(callback)
  self.closed = true
  local list = self:list()
  local left = #list
  if left == 0 then return callback() end
  for _, sandbox in ipairs(list) do
    self:remove(sandbox, function()
      left = left - 1
      if left == 0 then callback() end
    end)
  end
end

return { new = new }

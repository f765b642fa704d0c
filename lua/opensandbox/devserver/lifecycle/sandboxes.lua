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
-- @param options `directory` (where sandboxes live), `strategy` (the isolation), and in milliseconds `grace`, `create_delay`,
-- `delete_delay`
local function new(options)
  return setmetatable({
    directory = options.directory, strategy = options.strategy, grace = options.grace, by_id = {}, made = 0,
    existing = 0, -- sandboxes that have a directory, those that are being created or deleted included
    create_delay = options.create_delay, delete_delay = options.delete_delay,
  }, Store)
end

-- Calls back after a delay, at once when there is none.
local function wait(milliseconds, callback)
  if milliseconds > 0 then timer.after(milliseconds, callback) else callback() end
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

--- Makes a sandbox, also when the client that asked for it goes away meanwhile.
--
-- The first half of the delay stands for the pull of the image: the sandbox does not exist yet. In the second half it exists, and
-- lists show it, but the create has not been answered.
-- @param request the body of POST /sandboxes, checked
-- @param source a directory whose files it begins with, or nil
-- @param callback gets the sandbox, or nil and a message
function Store:create(request, source, callback)
  wait(self.create_delay / 2, function()
    if self.closed then return callback(nil, "the server is stopping") end
    self:_make(request, source, function(sandbox, problem)
      if not sandbox then return callback(nil, problem) end
      wait(self.create_delay / 2, function() callback(sandbox) end)
    end)
  end)
end

function Store:_make(request, source, callback)
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

  self.existing = self.existing + 1
  assert(uv.fs_mkdir(directory, 448))   -- 0700: other users of this machine have no business here
  assert(uv.fs_mkdir(sandbox.spool, 448))
  -- What was in a snapshot lies over what every sandbox has.
  isolation.make_root(root)
  if not source then return self:_start(sandbox, callback) end
  filesystem.copy_all(source, root, function(problem)
    if not problem then return self:_start(sandbox, callback) end
    self:_remove_files(sandbox)
    callback(nil, problem)
  end)
end

-- Starts the entrypoint of a sandbox whose files are there.
function Store:_start(sandbox, callback)
  local id, directory, strategy, request = sandbox.id, sandbox.directory, sandbox.strategy, sandbox.request
  local log = assert(uv.fs_open(directory .. "/entrypoint.log", "a", 384))
  strategy:open(sandbox.box, { argv = request.entrypoint, env = sandbox.environment, log = log }, function(problem)
    if problem and not sandbox.exit then
      self:_remove_files(sandbox)
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

--- Deletes a sandbox after the delay of deletes; until then it runs.
-- @param callback gets true when nothing of the sandbox is left, false when it was deleted before
function Store:delete(sandbox, callback)
  wait(self.delete_delay, function()
    if not self.by_id[sandbox.id] then return callback(false) end
    self:remove(sandbox, function() callback(true) end)
  end)
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
    self:_remove_files(sandbox)
    if callback then callback() end
  end)
end

function Store:_remove_files(sandbox)
  local ok, code, where = filesystem.remove_all(sandbox.directory)
  if not ok then guard.log(("cannot remove %s: %s"):format(where, code)) end
  self.existing = self.existing - 1
  self:_check_empty()
end

function Store:_check_empty()
  local callback = self.existing == 0 and self.on_empty
  if not callback then return end
  self.on_empty = nil
  callback()
end

--- Removes all sandboxes, those included that are being created or deleted, and creates no more.
-- @param callback called when nothing of them is left
function Store:close(callback)
  self.closed, self.on_empty = true, callback
  for _, sandbox in ipairs(self:list()) do self:remove(sandbox) end
  self:_check_empty()
end

return { new = new }

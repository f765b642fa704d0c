--- The sandboxes of the server: how they are created and found, and how they end: deleted, expired, or by their entrypoint.

local uv = require "luv"
local clock = require "opensandbox.devserver.base.clock"
local commands = require "opensandbox.devserver.execd.commands"
local contexts = require "opensandbox.devserver.execd.code"
local each = require "opensandbox.base.each"
local env_file = require "opensandbox.devserver.isolation.env_file"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local images = require "opensandbox.devserver.lifecycle.images"
local isolated_sessions = require "opensandbox.devserver.execd.isolated_sessions"
local isolation = require "opensandbox.devserver.isolation.detect"
local paths = require "opensandbox.devserver.isolation.paths"
local random = require "opensandbox.base.random"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local sessions = require "opensandbox.devserver.execd.sessions"
local tables = require "opensandbox.base.tables"
local time = require "opensandbox.base.time"
local timer = require "opensandbox.devserver.base.timer"

local Sandbox = {}
Sandbox.__index = Sandbox

--- Returns the environment of a command: the sandbox's own, the variables of its file, and those of the request.
---@param envs? table<string, string>
---@return table<string, string>
function Sandbox:variables(envs)
  local place = self.paths:resolve(env_file.PATH)
  return tables.merge(self.environment, place and env_file.read(place.path, self.environment), envs)
end

--- Returns the state, with the reason and the message of a server on Docker.
function Sandbox:status()
  local exit = self.exit
  local function status(state, reason, message)
    return { state = state, reason = reason, message = message, lastTransitionAt = time.format(exit and exit.at or self.created) }
  end
  if not exit and self.paused then
    return status("Paused", "CONTAINER_PAUSED", "Sandbox container is paused.")
  elseif not exit then
    return status("Running", "CONTAINER_RUNNING", "Sandbox container is running.")
  elseif exit.code == 0 then
    return status("Terminated", "CONTAINER_EXITED", "Sandbox container exited successfully.")
  end
  return status("Failed", "CONTAINER_EXITED_ERROR", ("Sandbox container exited with code %d."):format(exit.code))
end

--- Stops all its processes. Its execd answers no request until `resume`, as in a frozen container.
function Sandbox:pause()
  self.paused = {}
  self.strategy:freeze(self.container, true)
end

--- Lets its processes continue, and answers the requests that arrived meanwhile.
function Sandbox:resume()
  local waiting = self.paused
  self.paused = nil
  self.strategy:freeze(self.container, false)
  for _, answer in ipairs(waiting) do answer() end
end

--- Lets `answer` answer a request, when the sandbox is not paused. The response is aborted when the sandbox ends before.
---@param request table
---@param response table
---@param answer fun()
function Sandbox:answer(request, response, answer)
  self.responses[response] = true
  if not self.paused then return answer() end
  request:pause_reading()
  table.insert(self.paused, safe_callback.wrap(function()
    answer()
    request:resume_reading()
  end, function() response:abort() end))
end

--- Closes every connection to its execd, as the end of a container does.
function Sandbox:abort_responses()
  for response in each(self.responses) do response:abort() end
end

local Store = {}
Store.__index = Store

--- Creates a store. `gateway_port` is set before the first sandbox is created.
---@param options table `directory` (of all sandboxes), `strategy` (of isolation); milliseconds: `grace`, `create_delay`,
-- `delete_delay`, `collect_interval`; `loses_output`: whether terminals lose output at the exit; `newest_execd`: whether execd is that
-- of server 1.1.1
local function new(options)
  return setmetatable({
    directory = options.directory, strategy = options.strategy, grace = options.grace, by_id = {}, count = 0,
    existing = 0, -- sandboxes that have a directory, those included that are being created or deleted
    create_delay = options.create_delay, delete_delay = options.delete_delay, collect_interval = options.collect_interval,
    loses_output = options.loses_output, newest_execd = options.newest_execd,
  }, Store)
end

-- Calls back after a delay, at once when there is none.
local function wait(milliseconds, callback)
  if milliseconds > 0 then timer.after(milliseconds, callback) else callback() end
end

function Store:get(id)
  return self.by_id[id]
end

--- Returns all sandboxes, the newest first.
function Store:list()
  local list = {}
  for _, sandbox in each(self.by_id) do list[#list + 1] = sandbox end
  table.sort(list, function(a, b) return a.number > b.number end)
  return list
end

function Store:_start_timer(sandbox)
  if sandbox.timer then
    sandbox.timer:close()
    sandbox.timer = nil
  end
  if not sandbox.expires then return end
  sandbox.timer = timer.after((sandbox.expires - clock.now()) * 1000, function() self:remove(sandbox) end)
end

--- Sets when a sandbox expires.
---@param sandbox table
---@param expires number seconds since 1970
function Store:renew(sandbox, expires)
  sandbox.expires = expires
  self:_start_timer(sandbox)
end

--- Creates a sandbox, also when the client that asked for it goes away meanwhile.
--
-- The first half of the delay stands for the pull of the image: the sandbox does not exist yet. In the second half it exists, and
-- lists show it, but the create has not been answered.
---@param request table the body of POST /sandboxes
---@param parts table `snapshot` (the sandbox begins with its files and metadata), `sidecar` (of egress), `is_fast` (it was made from a template)
---@param callback fun(sandbox?: table, code?: string, message?: string)
function Store:create(request, parts, callback)
  wait(self.create_delay / 2, function()
    local problem = request.image and images.pull_problem(request.image.uri)
    if problem then return callback(nil, "DOCKER::SANDBOX_IMAGE_PULL_FAILED", problem) end
    if self.closed then return callback(nil, "DOCKER::SANDBOX_START_FAILED", "the server is stopping") end
    local sandbox = self:_make(request, parts)
    local function started(failure)
      if failure then return callback(nil, "DOCKER::SANDBOX_START_FAILED", failure) end
      wait(self.create_delay / 2, function() callback(sandbox) end)
    end
    local snapshot = parts.snapshot
    if not snapshot then return self:_start(sandbox, started) end
    -- The files of a snapshot lie over those that every sandbox has.
    filesystem.copy_all(snapshot.directory, sandbox.root, function(failure)
      if not failure then return self:_start(sandbox, started) end
      self:_remove_files(sandbox)
      started(failure)
    end)
  end)
end

-- Makes the object and the directory of a sandbox.
function Store:_make(request, parts)
  local id, strategy = (parts.is_fast and "fsb-" or "") .. random.uuid(), self.strategy
  local directory = self.directory .. "/" .. id
  local root = directory .. "/root"
  self.count, self.existing = self.count + 1, self.existing + 1
  -- The official code interpreter waits until a program listens at Jupyter's port. This server stands for Jupyter.
  local jupyter = { JUPYTER_PORT = ("%d"):format(self.gateway_port) }
  local environment = tables.merge(strategy:environment(root), jupyter, { OPENSANDBOX_ID = id }, request.env)
  local created = clock.now()
  local metadata = tables.merge(parts.snapshot and parts.snapshot.metadata, request.metadata)
  local sandbox = setmetatable({
    id = id, number = self.count, token = random.hex(24), directory = directory, root = root,
    spool = directory .. "/spool", strategy = strategy, container = { root = root }, grace = self.grace,
    responses = setmetatable({}, { __mode = "k" }), environment = environment, created = created, request = request,
    metadata = metadata, metadata_at_create = tables.merge(metadata), egress = parts.sidecar,
    is_fast = parts.is_fast,
    expires = request.timeout and created + request.timeout or nil,
    -- Real containers have the rights for isolated sessions only with this extension.
    allows_isolation = strategy.open_shell ~= nil and (request.extensions or {})["bootstrap.execd.isolation"] == "enable",
  }, Sandbox)
  sandbox.paths = paths.new(root, strategy.host_trees, tables.merge(environment, { HOME = strategy:home() }), function()
    return strategy:mounts(sandbox.container)
  end)
  sandbox.commands, sandbox.sessions = commands.new(sandbox), sessions.new(sandbox)
  sandbox.terminals, sandbox.loses_output, sandbox.newest_execd = {}, self.loses_output, self.newest_execd
  sandbox.contexts, sandbox.isolated = contexts.new(sandbox), isolated_sessions.new(sandbox, self.collect_interval)

  assert(uv.fs_mkdir(directory, 448)) -- 0700, so that other users of this machine cannot enter
  assert(uv.fs_mkdir(sandbox.spool, 448))
  isolation.make_root(root)
  return sandbox
end

-- Starts the entrypoint of a sandbox. `callback` receives the problem when that fails.
function Store:_start(sandbox, callback)
  local log = assert(uv.fs_open(sandbox.directory .. "/entrypoint.log", "a", 384))
  self.strategy:open(sandbox.container, {
    argv = sandbox.request.entrypoint, env = sandbox.environment, log = log,
  }, function(problem)
    if problem then
      self:_remove_files(sandbox)
      return callback(problem)
    end
    sandbox.started = clock.now()
    self.by_id[sandbox.id] = sandbox
    if self.closed then return self:remove(sandbox) end -- the server has been stopped meanwhile
    self:_start_timer(sandbox)
    callback()
  end, function(code, signal)
    sandbox.exit = { code = signal > 0 and 128 + signal or code, at = clock.now() }
    sandbox:abort_responses()
    if self.by_id[sandbox.id] then sandbox.isolated:close_all() end -- else its removal does so
  end)
  uv.fs_close(log)
end

--- Deletes a sandbox after the delay of deletes; until then it runs.
---@param sandbox table
---@param callback fun(deleted: boolean) called when nothing of the sandbox is left; with false when it was deleted before
function Store:delete(sandbox, callback)
  wait(self.delete_delay, function()
    if not self.by_id[sandbox.id] then return callback(false) end
    self:remove(sandbox, function() callback(true) end)
  end)
end

--- Removes a sandbox with all its processes and files. It is unknown at once.
---@param sandbox table
---@param callback? fun() called when nothing of the sandbox is left
function Store:remove(sandbox, callback)
  if not self.by_id[sandbox.id] then return callback and callback() end
  self.by_id[sandbox.id] = nil
  if sandbox.timer then sandbox.timer:close() end
  sandbox:abort_responses()
  sandbox.sessions:close_all()
  sandbox.isolated:close_all(function()
    sandbox.strategy:close(sandbox.container, function()
      self:_remove_files(sandbox)
      if callback then callback() end
    end)
  end)
end

function Store:_remove_files(sandbox)
  local ok, code, where = filesystem.remove_all(sandbox.directory)
  if not ok then safe_callback.log(("cannot remove %s: %s"):format(where, code)) end
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
---@param callback fun() called when nothing of them is left
function Store:close(callback)
  self.closed, self.on_empty = true, callback
  for _, sandbox in ipairs(self:list()) do self:remove(sandbox) end
  self:_check_empty()
end

return { new = new }

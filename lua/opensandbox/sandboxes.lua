--- The client methods that make Sandbox objects, and the method that deletes many sandboxes: `client:create`, `connect`, `sandboxes` and
-- `kill_all`.

local coxpcall = require "opensandbox.loop.coxpcall"
local create_options = require "opensandbox.lifecycle.create_options"
local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local lazy = require "opensandbox.base.lazy"
local objects = require "opensandbox.lifecycle.objects"
local options = require "opensandbox.base.options"
local sandbox = require "opensandbox.sandbox"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"
local tables = require "opensandbox.base.tables"
local task = require "opensandbox.loop.task"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules {
  create_recovery = "opensandbox.lifecycle.create_recovery",
  readiness = "opensandbox.lifecycle.readiness",
  sandbox_reference = "opensandbox.sandbox_reference",
}

---@class (partial) opensandbox.Client
local sandboxes = {}

-- Starts to keep the sandbox alive if the options say so.
local function with_keep_alive(self, op, seconds, info)
  if not seconds then return self end
  local ok, err = self:start_keep_alive(self.client:for_op(op), seconds, info)
  if ok then return self end
  self:discard()
  return nil, err
end

--- The options of `client:create`: those of the route, and how to wait.
--- ```lua
--- local sandbox = assert(client:create {
---   image = "python:3.12", wait = true, ready_timeout = "2m", keep_alive = 300,
---   ready = function(sandbox) return sandbox:run("test -e /tmp/ready").exit_code == 0 end,
---   on_state = function(info) print(info.state, info.reason, info.message) end,
--- })
--- ```
---@class opensandbox.CreateOpts: opensandbox.SandboxOpts
---@field wait? boolean false: return before commands can run
---@field ready_timeout? opensandbox.Duration to wait until commands can run, default 30
---@field on_state? fun(info: opensandbox.SandboxInfo) called with each new state
---@field keep_alive? opensandbox.Duration|false see Sandbox:keep_alive
---@field ready? fun(sandbox: opensandbox.Sandbox): any, any called again and again, once commands can run, until it returns a true value; within ready_timeout

local own_options = tables.merge(create_options.object_types, { wait = "boolean" })

-- Returns a function that calls the function of the user. An error that this raises deletes the sandbox if this process created it.
local function guarded(self, fn)
  return fn and function(argument)
    local ok, value, problem = coxpcall.pcall(fn, argument)
    if ok then return value, problem end
    self:discard()
    error(value, 0)
  end
end

-- Returns the check of readiness for `ready` of the user, which can use the sandbox.
local function ready_check(self, ready)
  local check = guarded(self, ready)
  return check and function(execd)
    self:remember_execd(execd)
    return check(self)
  end
end

-- Raises for a check of readiness without a wait.
local function check_wait(op, opts)
  if opts.wait == false and opts.ready then options.raise(op, "option 'ready' needs the wait, which wait = false omits") end
end

--- Creates a sandbox and waits until commands can run in it: POST /sandboxes, see wait_ready. The sandbox is deleted when the object is
--- closed or collected, and when anything fails after the create.
--- ```lua
--- local sandbox = assert(client:create {
---   image = "python:3.12", timeout = "30m", env = { STAGE = "test" }, metadata = { job = "7" },
---   resource_limits = { cpu = "2", memory = "4Gi" }, network_policy = opensandbox.egress.only("pypi"),
--- })
--- ```
---@param client opensandbox.Client
---@param opts opensandbox.CreateOpts
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err
function sandboxes.create(client, opts)
  local op = "create"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, tables.merge(create_options.types, own_options))
  local to_create, own = {}, {}
  for name, value in each(opts) do
    if own_options[name] then own[name] = value else to_create[name] = value end
  end
  check_wait(op, own)
  local info, err, resource = parts.create_recovery.create(client:for_op(op), to_create)
  if not info then return nil, err end
  local self = sandbox.new(client, info.id, resource)
  if to_create.template_id then self.origin = objects.TEMPLATE_ORIGIN end
  if own.wait == false then return with_keep_alive(self, op, own.keep_alive, info) end
  local limit = deadline.new(own.ready_timeout or parts.readiness.READY_TIMEOUT)
  local ready_info, execd = parts.readiness.wait(client, op, info.id, limit, {
    info = info, option = "ready_timeout", on_state = guarded(self, own.on_state), ready = ready_check(self, own.ready),
  })
  if not ready_info then
    self:discard()
    return nil, execd
  end
  self:remember_execd(execd)
  return with_keep_alive(self, op, own.keep_alive, ready_info)
end

--- The options of `client:connect`.
--- ```lua
--- local sandbox = assert(client:connect(id, { wait = true, ready_timeout = 10, keep_alive = false,
---   ready = function(connected) return connected.files:exists("/tmp/ready") end }))
--- ```
---@class opensandbox.ConnectOpts
---@field wait? boolean false: do not wait until commands can run
---@field ready_timeout? opensandbox.Duration to wait until commands can run, default 30
---@field keep_alive? opensandbox.Duration|false see Sandbox:keep_alive
---@field ready? fun(sandbox: opensandbox.Sandbox): any, any see CreateOpts

local connect_options = {
  ready_timeout = "seconds", wait = "boolean", ready = "function", keep_alive = "seconds or false",
}

--- Returns an object for an existing sandbox, and waits until commands can run in it: see wait_ready. Closing the object does not delete
--- the sandbox.
--- ```lua
--- local sandbox = assert(client:connect(id, { ready_timeout = 10 }))
--- ```
---@param client opensandbox.Client
---@param id string|opensandbox.Handle the endpoint of a handle is used if it answers, or if nothing is waited for; else a new one is requested
---@param opts? opensandbox.ConnectOpts
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err
function sandboxes.connect(client, id, opts)
  local op = "connect"
  opts = options.check(op, opts, connect_options)
  check_wait(op, opts)
  local known
  if type(id) == "table" then
    id, known = parts.sandbox_reference.read(client, op, id)
    if not id then return nil, known end
  else
    options.path_segment(op, "the sandbox id", id)
  end
  local self = sandbox.new(client, id)
  self:remember_execd(known)
  if opts.wait == false then return with_keep_alive(self, op, opts.keep_alive) end
  local limit = deadline.new(opts.ready_timeout or parts.readiness.READY_TIMEOUT)
  local info, execd = parts.readiness.wait(client, op, id, limit, {
    option = "ready_timeout", execd = known, ready = ready_check(self, opts.ready),
  })
  if not info then return nil, execd end
  self:remember_execd(execd)
  return with_keep_alive(self, op, opts.keep_alive, info)
end

--- Internal: returns an object for the sandbox of a handle that this process owns from now on, as if it had created it. Nothing is sent.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param handle opensandbox.Handle a malformed one raises
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err
function sandboxes.adopt(client, op, handle)
  local id, execd = parts.sandbox_reference.read(client, op, handle)
  if not id then return nil, execd end
  local http = client.http
  local self = sandbox.new(client, id, client.resources:add(function()
    return http:lifecycle_request(sandbox_requests.delete("delete_sandbox", id))
  end))
  self:remember_execd(execd)
  return self
end

--- Iterates over the sandboxes that match a filter, newest first: GET /sandboxes. Closing one of these objects does not delete its
--- sandbox. An error is raised, because a loop would hide it.
--- ```lua
--- for sandbox, info in client:sandboxes { metadata = { job = "7" }, states = { "Running" } } do
---   print(sandbox.id, info.expires_at)
--- end
--- ```
---@param client opensandbox.Client
---@param filter? opensandbox.SandboxFilter
---@return fun(): opensandbox.Sandbox?, opensandbox.SandboxInfo?
function sandboxes.sandboxes(client, filter)
  local list, err = client:for_op("sandboxes"):list_sandboxes(filter)
  if not list then error(err, 0) end
  local position = 0
  return function()
    position = position + 1
    local info = list[position]
    if info then return sandbox.new(client, info.id), info end
  end
end

--- Deletes all sandboxes that match a filter, several at a time: GET /sandboxes, DELETE /sandboxes/{id}. A failure does not stop the
--- others. Metadata also match sandboxes that were restored from a snapshot of a sandbox with these metadata.
--- ```lua
--- print(assert(client:kill_all { metadata = { job = "7" } }), "sandboxes are deleted")
--- ```
---@param client opensandbox.Client
---@param filter opensandbox.SandboxFilter {} for all; its timeout is for the list and the deletes together
---@return integer? count of the sandboxes that matched
---@return opensandbox.Error? err the first one
function sandboxes.kill_all(client, filter)
  local op = "kill_all"
  options.argument(op, "the filter ({} for all)", filter, "table")
  local seconds = filter.timeout and options.argument(op, "option 'timeout'", filter.timeout, "seconds")
  local view, limit = client:for_op(op), deadline.new(seconds)
  local list, err = view:list_sandboxes(filter)
  if not list then return nil, err end
  local results, failures = task.map_for(op, list, function(info)
    if limit:has_passed() then return nil, limit:error(op) end
    return view:delete_sandbox(info.id, { timeout = limit:remaining() })
  end)
  if not results then return nil, failures end
  for i = 1, #list do
    local failure = failures and failures[i]
    if failure then return nil, limit:has_passed() and limit:error(op, failure) or failure end
  end
  return #list
end

return sandboxes

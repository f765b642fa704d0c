--- A sandbox, as most scripts use one.

local code_context = require "opensandbox.code_context"
local command = require "opensandbox.command"
local coxpcall = require "opensandbox.loop.coxpcall"
local egress = require "opensandbox.egress"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local files = require "opensandbox.files"
local finalizer = require "opensandbox.base.finalizer"
local isolated_session = require "opensandbox.isolated_session"
local keep_alive = require "opensandbox.keep_alive"
local options = require "opensandbox.base.options"
local objects = require "opensandbox.lifecycle.objects"
local readiness = require "opensandbox.lifecycle.readiness"
local run_command = require "opensandbox.execution.run_command"
local sandbox_reference = require "opensandbox.sandbox_reference"
local session = require "opensandbox.session"
local task = require "opensandbox.loop.task"
local wait_for = require "opensandbox.wait_for"

---@class opensandbox.Sandbox
---@field id string
---@field client opensandbox.Client
---@field files opensandbox.Files
---@field egress opensandbox.Egress
---@field vault opensandbox.Vault
local Sandbox = {}
Sandbox.__index = Sandbox
Sandbox.__name = "opensandbox.Sandbox"

local sandboxes = {}

-- `owned`: this process created the sandbox and deletes it when the object is closed or collected.
local function new(client, id, owned)
  local self = setmetatable({ id = id, client = client, _endpoints = {} }, Sandbox)
  self.files = files.of {
    id = id, client = client,
    endpoint = function(op) return self:execd_endpoint(op) end,
    run = function(op, script, opts) return self:call_execd(op, "run_command", script, opts) end,
  }
  self.egress, self.vault = egress.of(self)
  if owned then
    local resource = client.resources:add(function() return client:delete_sandbox_request(id) end)
    self._resource = resource
    self._finalizer = finalizer(function() resource:delete() end)
  end
  return self
end

-- Starts to keep the sandbox alive if the options say so.
local function with_keep_alive(self, op, seconds, info)
  if not seconds then return self end
  local err
  self._renewer, err = keep_alive.start(self.client:for_op(op), self.id, seconds, info)
  if not err then return self end
  self:close()
  return nil, err
end

local own_options = { wait = "boolean", ready_timeout = "seconds", on_state = "function", keep_alive = "seconds or false" }

--- Creates a sandbox and waits until commands can run in it. It is killed when the object is closed or collected; a failure after
--- the create kills it too.
---@param client opensandbox.Client
---@param opts opensandbox.SandboxOpts|table those of create_sandbox, and: wait (false: do not wait), ready_timeout (seconds, default 30), on_state (called with each new info), keep_alive (seconds, see Sandbox:keep_alive)
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err
function sandboxes.create(client, opts)
  local op = "create"
  options.argument(op, "the options", opts, "table")
  options.check(op, opts, options.merge(objects.create_options, own_options))
  local create_options, own = {}, {}
  for name, value in pairs(opts) do
    if own_options[name] then own[name] = value else create_options[name] = value end
  end
  local info, err = client:for_op(op):create_sandbox(create_options)
  if not info then return nil, err end
  local self = new(client, info.id, true)
  if own.wait == false then return with_keep_alive(self, op, own.keep_alive, info) end
  local on_state = own.on_state and function(state)
    local ok, problem = coxpcall.pcall(own.on_state, state)
    if ok then return end
    self:kill()
    error(problem, 0)
  end
  local ready_info, execd = readiness.wait(client:for_op(op), op, info.id, {
    info = info, timeout = own.ready_timeout, option = "ready_timeout", on_state = on_state,
  })
  if not ready_info then
    self:kill() -- the first error is reported, whether this works or not
    return nil, execd
  end
  self._endpoints[objects.EXECD_PORT] = execd
  return with_keep_alive(self, op, own.keep_alive, ready_info)
end

local connect_options = { ready_timeout = "seconds", wait = "boolean", keep_alive = "seconds or false" }

--- An existing sandbox. Closing the object does not end it.
---@param client opensandbox.Client
---@param id string|opensandbox.Handle a handle's endpoint is used when it answers, or when nothing waits; else it is asked for again
---@param opts? table wait (false: do not wait until it is ready), ready_timeout (seconds, default 30), keep_alive (seconds, see Sandbox:keep_alive)
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err
function sandboxes.connect(client, id, opts)
  local op = "connect"
  opts = options.check(op, opts, connect_options)
  local known
  if type(id) == "table" then
    id, known = sandbox_reference.read(client, op, id)
    if not id then return nil, known end
  else
    options.identifier(op, "the sandbox id", id)
  end
  local self = new(client, id, false)
  self._endpoints[objects.EXECD_PORT] = known
  if opts.wait == false then return with_keep_alive(self, op, opts.keep_alive) end
  local info, execd = readiness.wait(client:for_op(op), op, id, {
    timeout = opts.ready_timeout, option = "ready_timeout", execd = known,
  })
  if not info then return nil, execd end
  self._endpoints[objects.EXECD_PORT] = execd
  return with_keep_alive(self, op, opts.keep_alive, info)
end

--- Goes over the sandboxes that fit a filter, newest first: `for sandbox in client:sandboxes { states = { "Running" } } do`. Closing
--- one of these objects does not end the sandbox. An error is raised, for a loop would hide it.
---@param client opensandbox.Client
---@param filter? table as for list_sandboxes
---@return fun(): opensandbox.Sandbox?, opensandbox.SandboxInfo?
function sandboxes.iterate(client, filter)
  local list, err = client:for_op("sandboxes"):list_sandboxes(filter)
  if not list then error(err, 0) end
  local at = 0
  return function()
    at = at + 1
    if list[at] then return new(client, list[at].id, false), list[at] end
  end
end

--- Ends all sandboxes that fit a filter, several at a time. All are tried, also when one fails.
---@param client opensandbox.Client
---@param filter table as for list_sandboxes; {} for all
---@return integer? count how many there were
---@return opensandbox.Error? err the first one
function sandboxes.kill_all(client, filter)
  local op = "kill_all"
  options.argument(op, "the filter ({} for all)", filter, "table")
  local view = client:for_op(op)
  local list, err = view:list_sandboxes(filter)
  if not list then return nil, err end
  local results, failures = task.map(list, function(info) return view:delete_sandbox(info.id) end)
  if not results then return nil, failures end
  for i = 1, #list do
    if failures and failures[i] then return nil, failures[i] end
  end
  return #list
end

-- The client, with errors that name `op`; nil and an error when the object is closed.
local function client_for(self, op)
  if not self._closed then return self.client:for_op(op) end
  return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.id,
    message = "the sandbox object is closed" }
end

-- The endpoint for a port. It is requested once; a pause discards it.
local function endpoint_for(self, op, port)
  local client, err = client_for(self, op)
  if not client then return nil, err end
  local endpoint = self._endpoints[port]
  if endpoint then return endpoint end
  endpoint, err = client:get_endpoint(self.id, port)
  self._endpoints[port] = endpoint
  return endpoint, err
end

-- What follows is for the other modules of the library.

--- Internal: the endpoint of execd, while the object is open.
---@param op string the method that the user called
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function Sandbox:execd_endpoint(op)
  return endpoint_for(self, op, objects.EXECD_PORT)
end

--- Internal: the endpoint of execd if it is known already. Does not wait.
---@return opensandbox.Endpoint?
function Sandbox:known_execd()
  return self._endpoints[objects.EXECD_PORT]
end

--- Internal: calls a client method with the endpoint of execd.
function Sandbox:call_execd(op, method, ...)
  return endpoint_call(self.client, op, function() return self:execd_endpoint(op) end, method, ...)
end

--- Internal: calls a client method with the endpoint of the egress sidecar.
function Sandbox:call_egress(op, method, ...)
  return endpoint_call(self.client, op, function() return endpoint_for(self, op, objects.EGRESS_PORT) end, method, ...)
end

--- Internal: whether this object has deleted the sandbox.
---@return boolean
function Sandbox:is_killed()
  return self._killed == true
end

--- Internal: the resource that deletes the sandbox; nil when this object does not own it.
---@return opensandbox.OwnedResource?
function Sandbox:owned_resource()
  return self._resource
end

-- Runs a command whose arguments have been checked.
local function run_prepared(self, prepared)
  local execd, err = self:execd_endpoint(prepared.op)
  if not execd then return nil, err end
  return run_command.run(self.client:for_op(prepared.op), execd, prepared)
end

--- Runs a command and waits for its end. A string is for the shell; a list is a program and its arguments, quoted.
---@param given string|string[]
---@param opts? table cwd, env, timeout (seconds), uid, gid, on_stdout, on_stderr (called with text as it comes), max_output (bytes), idle_timeout (seconds), durable, capture = "exact", shell = false: as for run_command
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Sandbox:run(given, opts)
  local op = "sandbox:run"
  return run_prepared(self, run_command.prepare(op, given, opts))
end

local start_options = { cwd = "text", env = "variables", timeout = "seconds", uid = "count", gid = "count", shell = "boolean" }

--- Starts a command in the background. It goes on when the handle is dropped, and when this process ends.
---@param given string|string[] as for run
---@param opts? table cwd, env, timeout (seconds; execd kills the command then), uid, gid, shell (false: start a list without a shell)
---@return opensandbox.Command? command
---@return opensandbox.Error? err
function Sandbox:start(given, opts)
  local op = "sandbox:start"
  opts = options.merge(options.check(op, opts, start_options), { background = true })
  local result, err = run_prepared(self, run_command.prepare(op, given, opts))
  if not result then return nil, err end
  return command.attach(self, result.id, true)
end

--- A handle on a command that was started before, by another process perhaps. Nothing is sent.
---@param id string
---@return opensandbox.Command
function Sandbox:command(id)
  return command.attach(self, options.identifier("sandbox:command", "the command id", id), false)
end

--- A shell session: its directory and its exported variables last from one run to the next. It is deleted when the object is closed or
--- collected.
---@param opts? table cwd (made if it is missing); or id: of a session that is there, which is not deleted then. Nothing is sent
---@return opensandbox.Session? session
---@return opensandbox.Error? err
function Sandbox:session(opts)
  return session.open(self, opts)
end

--- A code context: a kernel that keeps its variables from one run to the next. It is deleted when the object is closed or collected.
---@param language? string "python" (default), "bash", "java", "javascript", "typescript" or "go", as far as the image has them
---@param opts? table cwd (made if it is missing), timeout (seconds for the start, default 30); or id: of a context that is there, which is not deleted then. Nothing is sent
---@return opensandbox.Code? code
---@return opensandbox.Error? err
function Sandbox:code(language, opts)
  return code_context.open(self, language, opts)
end

--- The code contexts that there are.
---@param language? string only those of this one
---@return opensandbox.CodeContext[]? contexts
---@return opensandbox.Error? err
function Sandbox:code_contexts(language)
  return self:call_execd("sandbox:code_contexts", "list_code_contexts", language)
end

--- An isolated session: a bash in namespaces of its own, with a workspace and files of its own. It ends when the object is closed or
--- collected. The sandbox must have been created with `extensions = { ["bootstrap.execd.isolation"] = "enable" }`.
---@param opts opensandbox.IsolatedSessionOpts|table or { id = } of a session that is there, which does not end then. Nothing is sent
---@return opensandbox.Isolated? session
---@return opensandbox.Error? err
function Sandbox:isolated(opts)
  return isolated_session.open(self, opts)
end

--- Where a port of the sandbox can be reached.
---@param port integer
---@param opts? table use_server_proxy, expires (Unix seconds)
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function Sandbox:endpoint(port, opts)
  local client, err = client_for(self, "sandbox:endpoint")
  if not client then return nil, err end
  return client:get_endpoint(self.id, port, opts)
end

--- What the server knows of it.
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:info()
  local client, err = client_for(self, "sandbox:info")
  if not client then return nil, err end
  return client:get_sandbox(self.id)
end

--- Lets it live `seconds` from now on.
---@param seconds number
---@return number? expires_at Unix seconds
---@return opensandbox.Error? err
function Sandbox:renew(seconds)
  local client, err = client_for(self, "sandbox:renew")
  if not client then return nil, err end
  return client:renew_sandbox(self.id, seconds)
end

--- Keeps it alive while it is in use: whenever something moves for it, a command that runs included, its life is made `seconds` long
--- again, in the background, once more than a third of that has passed. A longer life is never made shorter, and one that is not used
--- expires. It ends when the object is closed, detached or collected. A silent command moves every 3 seconds: choose 10 or more.
--- Of two objects for one sandbox, the one that was told last does it.
---@param seconds number|false false ends it
---@return true? ok
---@return opensandbox.Error? err when it cannot be asked for how long it lives now: GET /sandboxes/{id}
function Sandbox:keep_alive(seconds)
  local op = "sandbox:keep_alive"
  options.argument(op, "the time", seconds, "seconds or false")
  if self._renewer then keep_alive.stop(self.client, self._renewer) end
  self._renewer = nil
  if not seconds then return true end
  local client, err = client_for(self, op)
  if not client then return nil, err end
  self._renewer, err = keep_alive.start(client, self.id, seconds)
  return not err and true or nil, err
end

Sandbox.wait_for_port, Sandbox.wait_for_file = wait_for.port, wait_for.file
Sandbox.handle = sandbox_reference.of

--- Freezes it, and waits until it is Paused. Its time goes on running out.
---@param opts? table timeout (seconds, default 60)
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:pause(opts)
  local op = "sandbox:pause"
  opts = options.check(op, opts, { timeout = "seconds" })
  local client, err = client_for(self, op)
  if not client then return nil, err end
  local ok
  ok, err = client:pause_sandbox(self.id)
  if not ok then return nil, err end
  self._endpoints = {}
  return readiness.wait_paused(client, op, self.id, opts.timeout)
end

--- Lets it go on after a pause, and waits until commands can run in it. Its endpoints are asked for again: they may be others.
---@param opts? table timeout (seconds, default 30)
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:resume(opts)
  local op = "sandbox:resume"
  opts = options.check(op, opts, { timeout = "seconds" })
  local client, err = client_for(self, op)
  if not client then return nil, err end
  local ok
  ok, err = client:resume_sandbox(self.id)
  if not ok then return nil, err end
  self._endpoints = {}
  local info, execd = readiness.wait(client, op, self.id, { timeout = opts.timeout, resumes = true })
  if not info then return nil, execd end
  self._endpoints[objects.EXECD_PORT] = execd
  return true
end

--- Makes a snapshot of it, and waits until that is Ready.
---@param name? string
---@param opts? table timeout (seconds, default 900)
---@return opensandbox.SnapshotInfo? info its id is what create takes as snapshot_id
---@return opensandbox.Error? err
function Sandbox:snapshot(name, opts)
  local op = "sandbox:snapshot"
  opts = options.check(op, opts, { timeout = "seconds" }) -- before anything is created
  local client, err = client_for(self, op)
  if not client then return nil, err end
  local info
  info, err = client:create_snapshot(self.id, { name = name })
  if not info then return nil, err end
  return client:wait_snapshot(info.id, opts)
end

--- Load and memory of the machine it runs on. It takes a second.
---@return opensandbox.Metrics? metrics
---@return opensandbox.Error? err
function Sandbox:metrics()
  return self:call_execd("sandbox:metrics", "get_metrics")
end

--- Changes some of its metadata.
---@param changes table<string, string|false> false removes
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:patch_metadata(changes)
  local client, err = client_for(self, "sandbox:patch_metadata")
  if not client then return nil, err end
  return client:patch_metadata(self.id, changes)
end

-- Ends the ownership of the sandbox.
local function release(self)
  if self._renewer then keep_alive.stop(self.client, self._renewer) end
  if self._resource then self._resource:release() end
  self._renewer, self._resource = nil, nil
end

--- Ends the sandbox. One that is gone already is a success.
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:kill()
  if self._closed then return true end
  local ok, err = self.client:for_op("sandbox:kill"):delete_sandbox(self.id)
  if ok then
    release(self)
    self._closed, self._killed = true, true
  end
  return ok, err
end

--- Closes the object: a sandbox that this process created is killed, a connected or detached one goes on.
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:close()
  if self._closed then return true end
  if self._resource then return self:kill() end
  release(self)
  self._closed = true
  return true
end

--- Internal: deletes the sandbox without waiting. Closing the client waits for the request.
function Sandbox:delete_in_background()
  if self._resource then self._resource:delete() end
  release(self)
  self._closed = true
end

--- Lets the sandbox go on after this object is closed or collected, and after this process ends.
---@return opensandbox.Sandbox self
function Sandbox:detach()
  release(self)
  return self
end

function Sandbox:__close()
  self:close()
end

function Sandbox:__tostring()
  return "opensandbox.Sandbox: " .. self.id
end

return sandboxes

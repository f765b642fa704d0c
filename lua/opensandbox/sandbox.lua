--- A sandbox, as most scripts use one.

local codes = require "opensandbox.code_context"
local command = require "opensandbox.execution.command_routes"
local handles = require "opensandbox.command"
local errors = require "opensandbox.base.errors"
local files = require "opensandbox.files"
local finalizer = require "opensandbox.base.finalizer"
local handle = require "opensandbox.sandbox_reference"
local isolated = require "opensandbox.isolated_session"
local keep_alive = require "opensandbox.keep_alive"
local options = require "opensandbox.base.options"
local part = require "opensandbox.child_resource"
local protect = require "opensandbox.loop.coxpcall"
local ready = require "opensandbox.lifecycle.readiness"
local sandbox_egress = require "opensandbox.egress"
local sessions = require "opensandbox.session"
local task = require "opensandbox.loop.task"
local url = require "opensandbox.base.url"
local wait_for = require "opensandbox.wait_for"
local wire = require "opensandbox.lifecycle.objects"

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

-- `owned`: this process made it, and ends it when the object is closed or collected.
local function new(client, id, owned)
  local self = setmetatable({ id = id, client = client, _endpoints = {} }, Sandbox)
  self.files = files.of(self)
  self.egress, self.vault = sandbox_egress.of(self)
  if owned then
    local life = client:_begin_life(function()
      return client:_lifecycle { op = "delete_sandbox", method = "DELETE", path = "/sandboxes/" .. url.escape(id), sandbox_id = id,
        may_repeat = true }
    end)
    self._life = life
    self._finalizer = finalizer(function() client:_end_life(life) end)
  end
  return self
end

-- Keeps it alive if the options say so.
local function kept(self, op, seconds, info)
  if not seconds then return self end
  local err
  self._keeper, err = keep_alive.begin(self.client, self.id, seconds, info)
  if not err then return self end
  self:close()
  err.op = op
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
  options.check(op, opts, options.merge(wire.create_options, own_options))
  local create_options, own = {}, {}
  for name, value in pairs(opts) do
    if own_options[name] then own[name] = value else create_options[name] = value end
  end
  local info, err = client:create_sandbox(create_options)
  if not info then return nil, err end
  local self = new(client, info.id, true)
  if own.wait == false then return kept(self, op, own.keep_alive, info) end
  local on_state = own.on_state and function(state)
    local ok, problem = protect.pcall(own.on_state, state)
    if ok then return end
    self:kill()
    error(problem, 0)
  end
  local ready_info, execd = ready.wait(client, op, info.id, {
    info = info, timeout = own.ready_timeout, clock = "ready_timeout", on_state = on_state,
  })
  if not ready_info then
    self:kill() -- whether this works or not, the first error is the one to tell
    return nil, execd
  end
  self._endpoints[wire.EXECD_PORT] = execd
  return kept(self, op, own.keep_alive, ready_info)
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
    id, known = handle.read(client, op, id)
    if not id then return nil, known end
  else
    options.argument(op, "the sandbox id", id, "text")
  end
  local self = new(client, id, false)
  self._endpoints[wire.EXECD_PORT] = known
  if opts.wait == false then return kept(self, op, opts.keep_alive) end
  local info, execd = ready.wait(client, op, id, { timeout = opts.ready_timeout, clock = "ready_timeout", execd = known })
  if not info then return nil, execd end
  self._endpoints[wire.EXECD_PORT] = execd
  return kept(self, op, opts.keep_alive, info)
end

--- Goes over the sandboxes that fit a filter, newest first: `for sandbox in client:sandboxes { states = { "Running" } } do`. Closing
--- one of these objects does not end the sandbox. An error is raised, for a loop would hide it.
---@param client opensandbox.Client
---@param filter? table as for list_sandboxes
---@return fun(): opensandbox.Sandbox?, opensandbox.SandboxInfo?
function sandboxes.each(client, filter)
  local list, err = client:list_sandboxes(filter)
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
  local list, err = client:list_sandboxes(filter)
  if not list then return nil, err end
  local results, failures = task.map(list, function(info) return client:delete_sandbox(info.id) end)
  if not results then return nil, failures end
  for i = 1, #list do
    if failures and failures[i] then return nil, failures[i] end
  end
  return #list
end

local function closed(self, op)
  return errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.id, message = "the sandbox object is closed" }
end

-- The endpoint for a port, asked for once; a pause forgets it.
function Sandbox:_endpoint_for(op, port)
  if self._closed then return nil, closed(self, op) end
  local endpoint = self._endpoints[port]
  if not endpoint then
    local err
    endpoint, err = self.client:get_endpoint(self.id, port)
    if not endpoint then return nil, err end
    self._endpoints[port] = endpoint
  end
  return endpoint
end

function Sandbox:_execd(op)
  return self:_endpoint_for(op, wire.EXECD_PORT)
end

--- Runs a command and waits for its end. A string is for the shell; a list is a program and its arguments, quoted.
---@param given string|string[]
---@param opts? table cwd, env, timeout (seconds), uid, gid, on_stdout, on_stderr (called with text as it comes), max_output (bytes), idle_timeout (seconds), durable, capture = "exact", shell = false: as for run_command
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Sandbox:run(given, opts)
  command.line("run", given)
  local execd, err = self:_execd("run")
  if not execd then return nil, err end
  return self.client:run_command(execd, given, opts)
end

local start_options = { cwd = "text", env = "variables", timeout = "seconds", uid = "count", gid = "count", shell = "boolean" }

--- Starts a command in the background. It goes on when the handle is dropped, and when this process ends.
---@param given string|string[] as for run
---@param opts? table cwd, env, timeout (seconds; execd kills the command then), uid, gid, shell (false: start a list without a shell)
---@return opensandbox.Command? command
---@return opensandbox.Error? err
function Sandbox:start(given, opts)
  local op = "start"
  command.line(op, given)
  opts = options.check(op, opts, start_options)
  local execd, err = self:_execd(op)
  if not execd then return nil, err end
  local result
  result, err = self.client:run_command(execd, given, options.merge(opts, { background = true }))
  if not result then return nil, err end
  return handles.new(self, result.id, true)
end

--- A handle on a command that was started before, by another process perhaps. Nothing is sent.
---@param id string
---@return opensandbox.Command
function Sandbox:command(id)
  return handles.new(self, options.identifier("command", "the command id", id), false)
end

--- A shell session: its directory and its exported variables last from one run to the next. It is deleted when the object is closed or
--- collected.
---@param opts? table cwd (made if it is missing); or id: of a session that is there, which is not deleted then. Nothing is sent
---@return opensandbox.Session? session
---@return opensandbox.Error? err
function Sandbox:session(opts)
  return sessions.open(self, opts)
end

--- A code context: a kernel that keeps its variables from one run to the next. It is deleted when the object is closed or collected.
---@param language? string "python" (default), "bash", "java", "javascript", "typescript" or "go", as far as the image has them
---@param opts? table cwd (made if it is missing), timeout (seconds for the start, default 30); or id: of a context that is there, which is not deleted then. Nothing is sent
---@return opensandbox.Code? code
---@return opensandbox.Error? err
function Sandbox:code(language, opts)
  return codes.open(self, language, opts)
end

--- The code contexts that there are.
---@param language? string only those of this one
---@return opensandbox.CodeContext[]? contexts
---@return opensandbox.Error? err
function Sandbox:code_contexts(language)
  return part.ask(self, "code_contexts", "list_code_contexts", language)
end

--- An isolated session: a bash in namespaces of its own, with a workspace and files of its own. It ends when the object is closed or
--- collected. The sandbox must have been created with `extensions = { ["bootstrap.execd.isolation"] = "enable" }`.
---@param opts opensandbox.IsolatedSessionOpts|table or { id = } of a session that is there, which does not end then. Nothing is sent
---@return opensandbox.Isolated? session
---@return opensandbox.Error? err
function Sandbox:isolated(opts)
  return isolated.open(self, opts)
end

--- Where a port of the sandbox can be reached.
---@param port integer
---@param opts? table use_server_proxy, expires (Unix seconds)
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function Sandbox:endpoint(port, opts)
  if self._closed then return nil, closed(self, "endpoint") end
  return self.client:get_endpoint(self.id, port, opts)
end

--- What the server knows of it.
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:info()
  if self._closed then return nil, closed(self, "info") end
  return self.client:get_sandbox(self.id)
end

--- Lets it live `seconds` from now on.
---@param seconds number
---@return number? expires_at Unix seconds
---@return opensandbox.Error? err
function Sandbox:renew(seconds)
  if self._closed then return nil, closed(self, "renew") end
  return self.client:renew_sandbox(self.id, seconds)
end

--- Keeps it alive while it is in use: whenever something moves for it, a command that runs included, its life is made `seconds` long
--- again, in the background, once more than a third of that has passed. A longer life is never made shorter, and one that is not used
--- expires. It ends when the object is closed, detached or collected. A silent command moves every 3 seconds: choose 10 or more.
--- Of two objects for one sandbox, the one that was told last does it.
---@param seconds number|false false ends it
---@return true? ok
---@return opensandbox.Error? err when it cannot be asked for how long it lives now: GET /sandboxes/{id}
function Sandbox:keep_alive(seconds)
  local op = "keep_alive"
  options.argument(op, "the time", seconds, "seconds or false")
  if self._keeper then keep_alive.stop(self.client, self._keeper) end
  self._keeper = nil
  if not seconds then return true end
  if self._closed then return nil, closed(self, op) end
  local err
  self._keeper, err = keep_alive.begin(self.client, self.id, seconds)
  if err then
    err.op = op
    return nil, err
  end
  return true
end

Sandbox.wait_for_port, Sandbox.wait_for_file = wait_for.port, wait_for.file
Sandbox.handle = handle.of

--- Freezes it, and waits until it is Paused. Its time goes on running out.
---@param opts? table timeout (seconds, default 60)
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:pause(opts)
  local op = "pause"
  opts = options.check(op, opts, { timeout = "seconds" })
  if self._closed then return nil, closed(self, op) end
  local ok, err = self.client:pause_sandbox(self.id)
  if not ok then return nil, err end
  self._endpoints = {}
  return ready.paused(self.client, op, self.id, opts.timeout)
end

--- Lets it go on after a pause, and waits until commands can run in it. Its endpoints are asked for again: they may be others.
---@param opts? table ready_timeout (seconds, default 30)
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:resume(opts)
  local op = "resume"
  opts = options.check(op, opts, { ready_timeout = "seconds" })
  if self._closed then return nil, closed(self, op) end
  local ok, err = self.client:resume_sandbox(self.id)
  if not ok then return nil, err end
  self._endpoints = {}
  local info, execd = ready.wait(self.client, op, self.id, {
    timeout = opts.ready_timeout, clock = "ready_timeout", resumes = true,
  })
  if not info then return nil, execd end
  self._endpoints[wire.EXECD_PORT] = execd
  return true
end

--- Makes a snapshot of it, and waits until that is Ready.
---@param name? string
---@param opts? table timeout (seconds, default 900)
---@return opensandbox.SnapshotInfo? info its id is what create takes as snapshot_id
---@return opensandbox.Error? err
function Sandbox:snapshot(name, opts)
  if self._closed then return nil, closed(self, "snapshot") end
  local info, err = self.client:create_snapshot(self.id, { name = name })
  if not info then return nil, err end
  return self.client:wait_snapshot(info.id, opts)
end

--- Load and memory of the machine it runs on. It takes a second.
---@return opensandbox.Metrics? metrics
---@return opensandbox.Error? err
function Sandbox:metrics()
  local execd, err = self:_execd("metrics")
  if not execd then return nil, err end
  return self.client:get_metrics(execd)
end

--- Changes some of its metadata.
---@param changes table<string, string|false> false removes
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:patch_metadata(changes)
  if self._closed then return nil, closed(self, "patch_metadata") end
  return self.client:patch_metadata(self.id, changes)
end

-- What becomes of the sandbox is not this object's business any more.
local function disown(self)
  if self._keeper then keep_alive.stop(self.client, self._keeper) end
  if self._life then self.client:_forget_life(self._life) end
  self._keeper, self._life = nil, nil
end

--- Ends the sandbox. One that is gone already is a success.
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:kill()
  if self._closed then return true end
  local ok, err = self.client:delete_sandbox(self.id)
  if ok then
    disown(self)
    self._closed, self._killed = true, true
  end
  return ok, err
end

--- Closes the object: a sandbox that this process created is killed, a connected or detached one goes on.
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:close()
  if self._closed then return true end
  if self._life then return self:kill() end
  disown(self)
  self._closed = true
  return true
end

-- Ends the sandbox without waiting, and without hearing how it went.
function Sandbox:_drop()
  if self._life then self.client:_end_life(self._life) end
  disown(self)
  self._closed = true
end

--- Lets the sandbox go on after this object is closed or collected, and after this process ends.
---@return opensandbox.Sandbox self
function Sandbox:detach()
  disown(self)
  return self
end

function Sandbox:__close()
  self:close()
end

function Sandbox:__tostring()
  return "opensandbox.Sandbox: " .. self.id
end

return sandboxes

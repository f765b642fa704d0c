--- A sandbox: the object that most scripts use.

local class = require "opensandbox.base.class"
local deadline = require "opensandbox.loop.deadline"
local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local lazy = require "opensandbox.base.lazy"
local objects = require "opensandbox.lifecycle.objects"
local options = require "opensandbox.base.options"
local ports = require "opensandbox.lifecycle.ports"
local tables = require "opensandbox.base.tables"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules {
  code_context = "opensandbox.code_context",
  command = "opensandbox.command",
  command_stream = "opensandbox.command_stream",
  egress = "opensandbox.egress",
  files = "opensandbox.files",
  isolated_session = "opensandbox.isolated_session",
  keep_alive = "opensandbox.keep_alive",
  readiness = "opensandbox.lifecycle.readiness",
  run_command = "opensandbox.execution.run_command",
  sandbox_state = "opensandbox.lifecycle.sandbox_state",
  session = "opensandbox.session",
  stdin_stream = "opensandbox.execution.stdin_stream",
  terminal = "opensandbox.terminal",
  vault = "opensandbox.vault",
}

--- A sandbox. One that was created here is deleted when the object is closed or collected; `detach` prevents that. In Lua 5.4 a
--- `<close>` variable closes it.
--- ```lua
--- local sandbox = assert(client:create { image = "python:3.12" })
--- print(sandbox.id, sandbox.client.url, sandbox.origin)
--- assert(sandbox.files:write("/work/answer.py", "print(6 * 7)"))
--- print(assert(sandbox:run("python3 /work/answer.py")).stdout)
--- assert(sandbox.egress:allow("pypi"))
--- print(assert(sandbox.vault:get()).revision)
--- sandbox:kill()
--- ```
---@class opensandbox.Sandbox
---@field id string its name, for `client:connect`
---@field client opensandbox.Client the client that it belongs to
---@field files opensandbox.Files its files and directories
---@field egress opensandbox.Egress the hosts that it may reach
---@field vault opensandbox.Vault credentials that are added to its requests
---@field wait_for_port fun(self: opensandbox.Sandbox, port: integer, opts?: opensandbox.WaitForOpts): true?, opensandbox.Error?
---@field wait_for_file fun(self: opensandbox.Sandbox, path: string, opts?: opensandbox.WaitForOpts): true?, opensandbox.Error?
---@field set_env fun(self: opensandbox.Sandbox, given: table<string, string>, opts?: { timeout?: opensandbox.Duration }): true?, opensandbox.Error?
---@field wait_for_url fun(self: opensandbox.Sandbox, port: integer, path?: string, opts?: opensandbox.WaitForUrlOpts): integer?, opensandbox.Error?
---@field wait_for_log fun(self: opensandbox.Sandbox, command: opensandbox.Command|string, pattern: string, opts?: opensandbox.WaitForLogOpts): string?, opensandbox.Error?
---@field handle fun(self: opensandbox.Sandbox): opensandbox.Handle?, opensandbox.Error?
---@field origin? string "template" when it was made from a template, or from a snapshot of such a sandbox; nil: from an image, or nothing was requested yet that reports it
local Sandbox = {}
Sandbox.__name = "opensandbox.Sandbox"

-- The fields that are made when they are first read.
local FIELDS = {}

function FIELDS.files(self)
  return parts.files.of {
    id = self.id, client = self.client, has_users = true,
    endpoint = function(op, limit) return self:execd_endpoint(op, limit) end,
    run = function(op, script, opts, _, limit)
      local client = limit and self.client:within(limit) or self.client
      return endpoint_call.call(client, op, function(...) return self:execd_endpoint(...) end, "run_command", script, opts)
    end,
  }
end

function FIELDS.egress(self) return parts.egress.of(self) end

function FIELDS.vault(self) return parts.vault.of(self) end

-- Remembers the endpoint of a port, and the origin that the server reports with it.
local function remember(self, port, endpoint)
  self._endpoints[port] = endpoint
  if endpoint and endpoint.origin then self.origin = endpoint.origin end
end

--- Makes an object. With a resource, this process owns the sandbox, and deletes it when the object is closed or collected.
---@param client opensandbox.Client
---@param id string
---@param resource? opensandbox.OwnedResource
---@return opensandbox.Sandbox
local function new(client, id, resource)
  local self = setmetatable({
    id = id, client = client,
    _endpoints = {},   -- by port
    _closed = false,   -- no method works any more
    _killed = false,   -- this object has deleted the sandbox
    _renewer = nil,    -- see keep_alive
    _resource = resource, -- deletes the sandbox; nil: it is not owned
    _finalizer = nil,
  }, Sandbox)
  if resource then self._finalizer = finalizer(function() resource:delete() end) end
  return self
end

-- Returns the client with errors that name `op`, or nil and an error when the object is closed.
local function client_for(self, op)
  if not self._closed then return self.client:for_op(op) end
  return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.id,
    message = "the sandbox object is closed",
    hint = "It ends with kill, close and the release to its pool: create another sandbox, or connect to one that was detached" }
end

-- Calls a client method with the sandbox's id. Fails when the object is closed.
local function call(self, op, method, ...)
  local client, err = client_for(self, op)
  if not client then return nil, err end
  return client[method](client, self.id, ...)
end

-- Returns the endpoint for a port. It is requested once, and again after a pause.
local function endpoint_for(self, op, port, limit)
  local client, err = client_for(self, op)
  if not client then return nil, err end
  local endpoint = self._endpoints[port]
  if endpoint then return endpoint end
  if limit then client = client:within(limit) end
  endpoint, err = client:get_endpoint(self.id, port)
  remember(self, port, endpoint)
  if err and parts.sandbox_state.is_absence(err) then return nil, parts.sandbox_state.gone(op, self.id, err) end
  return endpoint, err
end

--- Internal: returns the endpoint of execd, or an error when the object is closed.
---@param op string the method that the user called
---@param limit? opensandbox.Deadline for the request
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function Sandbox:execd_endpoint(op, limit)
  return endpoint_for(self, op, ports.EXECD, limit)
end

--- Internal: returns the endpoint of execd if it is known already. Does not wait.
---@return opensandbox.Endpoint?
function Sandbox:known_execd()
  return self._endpoints[ports.EXECD]
end

--- Internal: sets the endpoint of execd, which is known from elsewhere.
---@param endpoint? opensandbox.Endpoint
function Sandbox:remember_execd(endpoint)
  remember(self, ports.EXECD, endpoint)
end

--- Internal: calls a client method with the endpoint of execd.
function Sandbox:call_execd(op, method, ...)
  return endpoint_call.call(self.client, op, function(...) return self:execd_endpoint(...) end, method, ...)
end

--- Internal: does the same within the `timeout` of the options, which also limits the lookup of the endpoint.
---@param opts? { timeout?: opensandbox.Duration } of the user
function Sandbox:call_execd_within(op, opts, method, ...)
  local limit = deadline.new(options.timeout(op, opts))
  return endpoint_call.within(self.client, op, limit, function(...) return self:execd_endpoint(...) end, method, ...)
end

-- Returns the endpoint of the egress sidecar. The server reports with it whether there is one.
local function egress_endpoint(self, op, limit)
  local endpoint, err
  if self.origin ~= objects.TEMPLATE_ORIGIN then endpoint, err = endpoint_for(self, op, ports.EGRESS, limit) end
  if self.origin ~= objects.TEMPLATE_ORIGIN then return endpoint, err end
  return nil, errors.new { kind = "state", code = "no_sidecar", op = op, sandbox_id = self.id,
    message = "a sandbox that was made from a template has no egress sidecar, and so no credential vault" }
end

--- Internal: calls a client method with the endpoint of the egress sidecar, within a time limit.
---@param limit opensandbox.Deadline for the lookup of the endpoint and the method together
function Sandbox:call_egress(op, limit, method, ...)
  return endpoint_call.within(self.client, op, limit, function(...) return egress_endpoint(self, ...) end, method, ...)
end

--- Internal: calls a client method with the sandbox's id, within a time limit.
---@param limit opensandbox.Deadline
function Sandbox:call_server(op, limit, method, ...)
  local client, err = client_for(self, op)
  if not client then return nil, err end
  client = client:within(limit)
  return client[method](client, self.id, ...)
end

--- Internal: returns whether this object has deleted the sandbox.
---@return boolean
function Sandbox:is_killed()
  return self._killed
end

--- Internal: returns the resource that deletes the sandbox, or nil when this object does not own it.
---@return opensandbox.OwnedResource?
function Sandbox:owned_resource()
  return self._resource
end

-- Runs a command whose arguments are checked already.
local function run_prepared(self, prepared)
  local execd, err = self:execd_endpoint(prepared.op)
  if not execd then return nil, err end
  return parts.run_command.run(self.client:for_op(prepared.op), execd, prepared)
end

--- The options of `sandbox:run`.
--- ```lua
--- local result = assert(sandbox:run("sort > sorted; wc -l sorted >&2", {
---   cwd = "/work", env = { LC_ALL = "C" }, timeout = "1m", uid = 1000, gid = 1000, stdin = "b\na\n",
---   on_stdout = io.write, on_stderr = function(text) io.stderr:write(text) end, on_event = function(event) print(event.type) end,
---   max_output = 65536, idle_timeout = 30, durable = false, capture = "exact",
--- }))
--- local listed = assert(sandbox:run({ "ls", "-l" }, { shell = false }))
--- ```
---@class opensandbox.RunOpts
---@field cwd? string the directory to run in, which must exist; default: the image's
---@field env? table<string, string> environment variables, in addition to the sandbox's
---@field timeout? opensandbox.Duration execd kills the command then, and the call waits up to 10 s more for the rest of its output; default: none
---@field uid? integer the user to run as; default: execd's
---@field gid? integer needs uid
---@field on_stdout? fun(text: string) called with output as it arrives
---@field on_stderr? fun(text: string) called with error output as it arrives
---@field on_event? fun(event: table) called with every event of execd
---@field max_output? integer bytes of each stream that are kept in memory, default: the client's
---@field idle_timeout? opensandbox.Duration without an event, default: the client's
---@field durable? boolean runs in the background and reads the log in short requests, which survives cut connections
---@field capture? "exact" returns the bytes as they were written
---@field stdin? string|file*|{ path: string }|fun(): string? the standard input: bytes, a handle open for reading, the path of a local file, or a function that returns the next bytes and nil at the end; default: empty. It is uploaded before the command starts, which `timeout` does not limit
---@field shell? boolean false: starts a list without a shell

--- Runs a command and waits for its end: POST /command of execd. A string is for the shell. A list is a program and its arguments, which
--- are quoted.
--- ```lua
--- local result = assert(sandbox:run("make test", { cwd = "/work", timeout = "10m", on_stdout = io.write }))
--- print(result.exit_code, result.duration)
---
--- local found = assert(sandbox:run { "grep", "-r", needle, "/work" })
--- ```
---@param command string|string[] a line for the shell, or a program and its arguments
---@param opts? opensandbox.RunOpts
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Sandbox:run(command, opts)
  local op = "sandbox:run"
  if type(opts) == "table" and opts.background ~= nil then
    options.raise(op, "option 'background' is for run_command: sandbox:start starts a command in the background")
  end
  return run_prepared(self, parts.run_command.prepare(op, command, opts))
end

--- Runs a command and returns an iterator over its output, whose last event reports how it ended: POST /command of execd. The first
--- step of the iteration starts it. Output waits in the sandbox while it is not read. The command is stopped when the iteration is left
--- early: at once on Lua 5.4 and newer and by `close`, otherwise when the iterator is collected.
--- ```lua
--- for event in sandbox:stream("make test", { cwd = "/work" }) do
---   if event.type == "exit" then print(event.exit_code) else io.write(event.text) end
--- end
--- ```
---@param command string|string[] as for run
---@param opts? opensandbox.StreamOpts
---@return opensandbox.CommandStream stream for a `for` loop, which raises an error; or call its method `next`
---@return nil state of the loop
---@return nil control of the loop
---@return opensandbox.CommandStream closing value of the loop
function Sandbox:stream(command, opts)
  local stream = parts.command_stream.new(self, opts, function(op, checked)
    local prepared = parts.run_command.prepare(op, command, checked)
    return function() return run_prepared(self, prepared) end
  end)
  return stream, nil, nil, stream
end

--- The options of `sandbox:start`.
--- ```lua
--- local command = assert(sandbox:start("python3 server.py", {
---   cwd = "/work", env = { PORT = "8000" }, timeout = "1h", uid = 1000, gid = 1000,
--- }))
--- local exact = assert(sandbox:start({ "sleep", "60" }, { shell = false }))
--- local filter = assert(sandbox:start("sort", { stdin = true }))
--- ```
---@class opensandbox.StartOpts
---@field cwd? string the directory to run in, which must exist; default: the image's
---@field env? table<string, string> environment variables, in addition to the sandbox's
---@field timeout? opensandbox.Duration execd kills the command then; default: none
---@field uid? integer the user to run as; default: execd's
---@field gid? integer needs uid
---@field stdin? true the input is sent by command:write, up to command:close_stdin; it also ends when the object is collected, without the input that the command has not been given yet; default: empty
---@field shell? boolean false: starts a list without a shell

local start_options = {
  cwd = "nonempty string", env = "environment", timeout = "seconds", uid = "natural", gid = "natural", shell = "boolean",
  stdin = "boolean",
}

--- Starts a command in the background: POST /command of execd. It continues when the object is collected, and when this process ends.
--- ```lua
--- local server = assert(sandbox:start("npm run dev", { cwd = "/work", env = { PORT = "3000" } }))
--- assert(sandbox:wait_for_port(3000))
--- ```
---@param command string|string[] as for run
---@param opts? opensandbox.StartOpts
---@return opensandbox.Command? command
---@return opensandbox.Error? err
function Sandbox:start(command, opts)
  local op = "sandbox:start"
  opts = tables.merge(options.check(op, opts, start_options), { background = true })
  local with_stdin = opts.stdin
  opts.stdin = nil
  if with_stdin and opts.shell == false then options.raise(op, "option 'stdin' needs the shell") end
  local prepared = parts.run_command.prepare(op, command, opts)
  local input, result, err
  if with_stdin then
    input, err = parts.stdin_stream.open(self, op, prepared.body)
    if not input then return nil, err end
  end
  result, err = run_prepared(self, prepared)
  local started = result and parts.command.attach(self, result.id, true, input)
  if started and input then err = input:wait_until_open(op) end
  if started and not err then return started end
  if started then self.client.cleanup:spawn(function() started:kill() end) end
  if input then input:abandon() end
  return nil, err
end

--- Returns an object for a command in the background that was started before, in any process. Nothing is sent.
--- ```lua
--- local command = sandbox:command(id)
--- print(assert(command:status()).running)
--- ```
---@param id string
---@return opensandbox.Command
function Sandbox:command(id)
  return parts.command.attach(self, options.path_segment("sandbox:command", "the command id", id), false)
end

--- Creates a shell session, or attaches to one: POST /session of execd. Its directory and its exported variables last from one run to the
--- next. A created session is deleted when the object is closed or collected.
--- ```lua
--- local shell = assert(sandbox:session { cwd = "/work" })
--- assert(shell:run("cd src && export MODE=fast"))
--- print(assert(shell:run('echo "$MODE in $PWD"')).stdout) --> fast in /work/src
--- ```
---@param opts? opensandbox.SessionOpts
---@return opensandbox.Session? session
---@return opensandbox.Error? err
function Sandbox:session(opts)
  return parts.session.open(self, opts)
end

--- Creates a terminal and starts a command in it, or attaches to an existing terminal: POST /pty of execd, and a WebSocket. A created
--- terminal is deleted when the object is closed or collected, and when its command has ended.
---
---     local terminal = assert(sandbox:terminal { command = "vim a.txt", cols = 120, rows = 40, on_output = write })
--- ```lua
--- local terminal = assert(sandbox:terminal { cols = 120, rows = 40, on_output = io.write })
--- assert(terminal:write "make test; exit\r")
--- print(assert(terminal:wait()))
--- ```
---@param opts? opensandbox.TerminalOpts
---@return opensandbox.Terminal? terminal
---@return opensandbox.Error? err
function Sandbox:terminal(opts)
  return parts.terminal.open(self, opts)
end

--- Creates a code context, or attaches to one: POST /code/context of execd. It is a kernel that keeps its variables from one run to the
--- next. A created context is deleted when the object is closed or collected.
--- ```lua
--- local python = assert(sandbox:code "python")
--- print(assert(python:run("6 * 7")).text) --> 42
--- ```
---@param language? string "python" (default), "bash", "java", "javascript", "typescript" or "go", if the image has it
---@param opts? opensandbox.CodeOpts
---@return opensandbox.Code? code
---@return opensandbox.Error? err
function Sandbox:code(language, opts)
  return parts.code_context.open(self, language, opts)
end

--- Returns the existing code contexts: GET /code/contexts of execd.
--- ```lua
--- for _, context in ipairs(assert(sandbox:code_contexts("python"))) do print(context.id) end
--- ```
---@param language? string default: of every language
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CodeContext[]? contexts
---@return opensandbox.Error? err
function Sandbox:code_contexts(language, opts)
  return self:call_execd_within("sandbox:code_contexts", opts, "list_code_contexts", language)
end

--- Creates an isolated session, or attaches to one: POST /v1/isolated/session of execd. It is a bash in its own namespaces, with its own
--- workspace and files. A created session is deleted when the object is closed or collected. The sandbox must have been created with
--- `extensions = { ["bootstrap.execd.isolation"] = "enable" }`.
--- ```lua
--- local session = assert(sandbox:isolated { workspace = "/work", mode = "overlay" })
--- print(assert(session:run("pwd")).stdout)
--- ```
---@param opts opensandbox.IsolatedSessionOpts|table or { id = } of an existing session, which is not deleted; nothing is sent then
---@return opensandbox.Isolated? session
---@return opensandbox.Error? err
function Sandbox:isolated(opts)
  return parts.isolated_session.open(self, opts)
end

--- Returns the endpoint of a port: GET /sandboxes/{id}/endpoints/{port}.
--- ```lua
--- local endpoint = assert(sandbox:endpoint(8080))
--- print(endpoint.url)
--- ```
---@param port integer
---@param opts? opensandbox.EndpointOpts
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function Sandbox:endpoint(port, opts)
  return call(self, "sandbox:endpoint", "get_endpoint", port, opts)
end

--- Returns the server's information about the sandbox: GET /sandboxes/{id}.
--- ```lua
--- print(assert(sandbox:info()).state)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:info(opts)
  return call(self, "sandbox:info", "get_sandbox", opts)
end

--- Sets its lifetime to `seconds` from now: POST /sandboxes/{id}/renew-expiration.
--- ```lua
--- local expires_at = assert(sandbox:renew("1h"))
--- ```
---@param seconds opensandbox.Duration from now
---@param opts? { timeout?: opensandbox.Duration } timeout of the call, in seconds
---@return number? expires_at Unix seconds
---@return opensandbox.Error? err
function Sandbox:renew(seconds, opts)
  return call(self, "sandbox:renew", "renew_sandbox", seconds, opts)
end

--- Keeps it alive while it is in use. When data arrives for it and more than a third of `seconds` has passed, its lifetime is set to
--- `seconds` from then, in the background. A longer lifetime is never shortened, and a sandbox that is not used expires. This stops when
--- the object is closed, detached or collected. A silent command sends data every 3 seconds, so choose 10 or more. If two objects refer
--- to the same sandbox, the last call to `keep_alive` wins.
--- ```lua
--- assert(sandbox:keep_alive(60))
--- ```
---@param seconds opensandbox.Duration|false false stops it
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, for the request
---@return true? ok
---@return opensandbox.Error? err when its expiry cannot be requested: GET /sandboxes/{id}
function Sandbox:keep_alive(seconds, opts)
  local op = "sandbox:keep_alive"
  seconds = options.argument(op, "the time", seconds, "seconds or false")
  local timeout = options.timeout(op, opts)
  if self._renewer then parts.keep_alive.stop(self.client, self._renewer) end
  self._renewer = nil
  if not seconds then return true end
  local client, err = client_for(self, op)
  if not client then return nil, err end
  return self:start_keep_alive(client, seconds, nil, timeout)
end

--- Internal: starts to keep the sandbox alive.
---@param client opensandbox.Client its errors name the method that the user called
---@param seconds number
---@param info? opensandbox.SandboxInfo if it is known
---@param timeout? number seconds for the request of the info
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:start_keep_alive(client, seconds, info, timeout)
  local err
  self._renewer, err = parts.keep_alive.start(client, self.id, seconds, info, timeout)
  return not err and true or nil, err
end

local time_options = { timeout = "seconds" }

-- Sends the request that starts a change, which is then waited for within the same time limit.
local function first_step(self, op, limit, method, opts)
  opts = tables.merge(opts, { timeout = limit:clamp(self.client.http.timeouts.timeout) })
  local result, err = call(self, op, method, opts)
  if not result and limit:has_passed() then return nil, limit:error(op, err) end
  return result, err
end

--- Pauses it, and waits until it is Paused: POST /sandboxes/{id}/pause. Its lifetime continues to run out.
--- ```lua
--- assert(sandbox:pause { timeout = "2m" })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 60
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:pause(opts)
  local op = "sandbox:pause"
  opts = options.check(op, opts, time_options)
  local limit = deadline.new(opts.timeout or parts.readiness.PAUSE_TIMEOUT)
  local ok, err = first_step(self, op, limit, "pause_sandbox")
  if not ok then return nil, err end
  self._endpoints = {}
  return parts.readiness.wait_paused(self.client, op, self.id, limit)
end

--- Resumes it after a pause, and waits until commands can run in it: POST /sandboxes/{id}/resume. Its endpoints are requested again,
--- because they may have changed.
--- ```lua
--- assert(sandbox:resume())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 30
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:resume(opts)
  local op = "sandbox:resume"
  opts = options.check(op, opts, time_options)
  local limit = deadline.new(opts.timeout or parts.readiness.READY_TIMEOUT)
  local ok, err = first_step(self, op, limit, "resume_sandbox")
  if not ok then return nil, err end
  self._endpoints = {}
  local info, execd = parts.readiness.wait(self.client, op, self.id, limit, { resumes = true })
  if not info then return nil, execd end
  remember(self, ports.EXECD, execd)
  return true
end

--- Makes a snapshot of it, and waits until the snapshot is Ready: POST /sandboxes/{id}/snapshots. A sandbox restored from it also has the
--- metadata that this one had at any time, deleted keys included.
--- ```lua
--- local snapshot = assert(sandbox:snapshot("with-dependencies"))
--- local copy = assert(client:create { snapshot_id = snapshot.id })
--- ```
---@param name? string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 900
---@return opensandbox.SnapshotInfo? info `create` takes its id as snapshot_id
---@return opensandbox.Error? err
function Sandbox:snapshot(name, opts)
  local op = "sandbox:snapshot"
  opts = options.check(op, opts, time_options) -- before anything is created
  local limit = deadline.new(opts.timeout or parts.readiness.BUILD_TIMEOUT)
  local info, err = first_step(self, op, limit, "create_snapshot", { name = name })
  if not info then return nil, err end
  return parts.readiness.wait_snapshot(self.client, op, info.id, limit)
end

--- Returns load and memory of the machine it runs on: GET /metrics of execd. This takes a second.
--- ```lua
--- local metrics = assert(sandbox:metrics())
--- print(metrics.cpu_used_percent, metrics.memory_used)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Metrics? metrics
---@return opensandbox.Error? err
function Sandbox:metrics(opts)
  return self:call_execd_within("sandbox:metrics", opts, "get_metrics")
end

--- Changes some of its metadata: PATCH /sandboxes/{id}/metadata.
--- ```lua
--- assert(sandbox:patch_metadata { stage = "two", old = false })
--- ```
---@param changes table<string, string|false> false removes the key
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function Sandbox:patch_metadata(changes, opts)
  return call(self, "sandbox:patch_metadata", "patch_metadata", changes, opts)
end

--- Returns logs about it that the server keeps: GET /sandboxes/{id}/diagnostics/logs (servers from 0.2.3).
--- ```lua
--- print(assert(sandbox:logs()).content)
--- ```
---@param scope? string "container" or "all" (default)
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function Sandbox:logs(scope, opts)
  return call(self, "sandbox:logs", "get_diagnostic_logs", scope or "all", opts)
end

--- Returns events about it that the server keeps: GET /sandboxes/{id}/diagnostics/events (servers from 0.2.3).
--- ```lua
--- print(assert(sandbox:events("lifecycle")).content)
--- ```
---@param scope? string "runtime", "lifecycle" or "all" (default)
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Diagnostics? diagnostics
---@return opensandbox.Error? err
function Sandbox:events(scope, opts)
  return call(self, "sandbox:events", "get_diagnostic_events", scope or "all", opts)
end

-- Ends the ownership of the sandbox.
local function release(self)
  if self._renewer then parts.keep_alive.stop(self.client, self._renewer) end
  if self._resource then self._resource:release() end
  self._renewer, self._resource = nil, nil
end

--- Deletes the sandbox: DELETE /sandboxes/{id}. The call succeeds for a sandbox that does not exist any more.
--- ```lua
--- assert(sandbox:kill())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:kill(opts)
  local op = "sandbox:kill"
  opts = options.check(op, opts, time_options)
  if self._closed then return true end
  local ok, err = self.client:for_op(op):delete_sandbox(self.id, opts)
  if ok then
    release(self)
    self._closed, self._killed = true, true
  end
  return ok, err
end

--- Closes the object. A sandbox that this process created is deleted; a connected or detached one continues.
--- ```lua
--- sandbox:close()
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, for the delete
---@return true? ok
---@return opensandbox.Error? err
function Sandbox:close(opts)
  opts = options.check("sandbox:close", opts, time_options)
  if self._closed then return true end
  if self._resource and self._resource:is_ours() then return self:kill(opts) end -- not in a forked child
  release(self)
  self._closed = true
  return true
end

--- Internal: closes the object and deletes an owned sandbox in the background, see OwnedResource:delete.
function Sandbox:delete_in_background()
  local resource = self._resource
  self._resource = nil -- it remains in the client's set until it is deleted
  if resource then resource:delete() end
  release(self)
  self._closed = true
end

--- Internal: deletes an owned sandbox, in the background if that fails.
function Sandbox:discard()
  if not self:close() then self:delete_in_background() end
end

--- Lets the sandbox continue after this object is closed or collected, and after this process ends.
--- ```lua
--- print(sandbox:detach().id) -- another process continues with client:connect(id)
--- ```
---@return opensandbox.Sandbox self
function Sandbox:detach()
  release(self)
  return self
end

function Sandbox:__close()
  self:discard()
end

function Sandbox:__tostring()
  return "opensandbox.Sandbox: " .. self.id
end

class.define(Sandbox, { name = "sandbox", fields = FIELDS, methods = {
  ["opensandbox.wait_for"] = { wait_for_port = "port", wait_for_file = "file" },
  ["opensandbox.wait_for_url"] = { wait_for_url = "wait" },
  ["opensandbox.wait_for_log"] = { wait_for_log = "wait" },
  ["opensandbox.sandbox_reference"] = { handle = "of" },
  ["opensandbox.execution.variables"] = { set_env = "set" },
} })

return { new = new }

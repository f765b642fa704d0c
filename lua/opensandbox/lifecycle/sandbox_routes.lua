--- Sandboxes: a client method for each route of the lifecycle API, and `wait_ready`.

local core = require "opensandbox.core"
local create_recovery = require "opensandbox.lifecycle.create_recovery"
local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local json = require "opensandbox.base.json"
local objects = require "opensandbox.lifecycle.objects"
local options = require "opensandbox.base.options"
local pagination = require "opensandbox.lifecycle.pagination"
local ports = require "opensandbox.lifecycle.ports"
local readiness = require "opensandbox.lifecycle.readiness"
local requests = require "opensandbox.lifecycle.sandbox_requests"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local sandbox_routes = {}

local MAX_CLOCK_ERROR = 2 -- seconds: the Date header has whole seconds

local call_options = { timeout = "seconds" }

--- Creates a sandbox: POST /sandboxes. Returns when the server has started it; use `wait_ready` before running commands.
---
--- The request is sent once, or again only if the server provably did not execute it. If the response is lost, the sandbox is found by a
--- label. The client's create_timeout limits all of that.
--- ```lua
--- local info = assert(client:create_sandbox { image = "python:3.12", timeout = 600 })
--- ```
---@param opts opensandbox.SandboxOpts
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function sandbox_routes:create_sandbox(opts)
  local info, err, resource = create_recovery.create(self, opts)
  if resource then resource:release() end
  return info, err
end

--- Returns one sandbox: GET /sandboxes/{id}.
--- ```lua
--- print(assert(client:get_sandbox(id)).state)
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function sandbox_routes:get_sandbox(id, opts)
  local op = self.op or "get_sandbox"
  opts = options.check(op, opts, call_options)
  local request = requests.get(op, id)
  request.decode, request.timeout = objects.sandbox_info, opts.timeout
  local info, err = self.http:call(request)
  local renewer = self.http:activity_listener(id)
  if renewer and info then renewer:set_expiry(info.expires_at) end
  return info, err
end

--- Which sandboxes a list has.
--- ```lua
--- local filter = { metadata = { job = "7" }, states = { "Running", "Paused" }, page = 1, page_size = 50, timeout = 10 }
--- for sandbox in client:sandboxes(filter) do print(sandbox.id) end
--- ```
---@class opensandbox.SandboxFilter
---@field metadata? table<string, string> all of them must match
---@field states? string[] a sandbox in any of them matches
---@field page? integer from 1; default: all pages
---@field page_size? integer at most 200
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local filter_options = {
  metadata = "string map", states = "string list", page = "natural", page_size = "natural", timeout = "seconds",
}

--- Returns the sandboxes that match a filter, newest first: GET /sandboxes.
--- ```lua
--- for _, info in ipairs(assert(client:list_sandboxes { states = { "Running" } })) do print(info.id) end
--- ```
---@param filter? opensandbox.SandboxFilter
---@return opensandbox.SandboxInfo[]? list
---@return opensandbox.Error? err
function sandbox_routes:list_sandboxes(filter)
  local op = self.op or "list_sandboxes"
  filter = options.check(op, filter, filter_options)
  local query = { { "metadata", pagination.metadata_filter(filter.metadata) } }
  for _, state in ipairs(filter.states or {}) do query[#query + 1] = { "state", state } end
  return pagination.all(self, { op = op, path = "/sandboxes" }, query, filter, function(object)
    if not objects.has_metadata(object, filter.metadata) then return nil, "list of sandboxes that match the filter" end
    return objects.sandbox_info(object)
  end)
end

--- Deletes a sandbox: DELETE /sandboxes/{id}. The call succeeds for a sandbox that does not exist any more.
--- ```lua
--- assert(client:delete_sandbox(id))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function sandbox_routes:delete_sandbox(id, opts)
  local op = self.op or "delete_sandbox"
  opts = options.check(op, opts, call_options)
  local request = requests.delete(op, id)
  request.timeout = opts.timeout
  return errors.ignore_absence(self.http:call(request))
end

-- Sends one renewal. Returns the new expiry, or nil and the error, and by how much the assumed time of the server was wrong.
local function renew_once(self, op, id, seconds, limit)
  local clock = self.http.clock
  local now, sent_at = clock:now(), core.now()
  local request = requests.renew(op, id, now + seconds)
  request.timeout, request.budget = limit:remaining(), limit.seconds
  function request.decode(object) return time.parse(object.expiresAt) or now + seconds end
  local renewed, err = self.http:call(request)
  return renewed, err, clock:now() - (core.now() - sent_at) - now
end

--- Sets the lifetime of a sandbox to `seconds` from now: POST /sandboxes/{id}/renew-expiration. The server's clock counts, not the clock
--- of this machine.
--- ```lua
--- local expires_at = assert(client:renew_sandbox(id, 3600))
--- ```
---@param id string
---@param seconds opensandbox.Duration from now
---@param opts? { timeout?: opensandbox.Duration } timeout of the call, in seconds
---@return number? expires_at Unix seconds, on the server's clock
---@return opensandbox.Error? err
function sandbox_routes:renew_sandbox(id, seconds, opts)
  local op = self.op or "renew_sandbox"
  seconds = options.argument(op, "the time", seconds, "seconds")
  opts = options.check(op, opts, call_options)
  local limit = deadline.new(opts.timeout or self.http.timeouts.timeout)
  local renewer = self.http:activity_listener(id)
  -- Set before the call, so that the renewer does not renew for less meanwhile.
  local before = renewer and renewer:set_expiry(self.http.clock:now() + seconds)
  local renewed, err, clock_error = renew_once(self, op, id, seconds, limit)
  if math.abs(clock_error) > MAX_CLOCK_ERROR and (renewed or err.kind == "http") then -- the response contained the right time
    renewed, err = renew_once(self, op, id, seconds, limit)
  end
  if renewer then renewer:set_expiry(renewed or before) end
  return renewed, err
end

-- Makes a call for one sandbox whose successful response is empty.
local function post_action(self, op, id, step, opts)
  opts = options.check(op, opts, call_options)
  local _, err = self.http:call { op = op, method = "POST", path = requests.path(op, id, step), sandbox_id = id,
    timeout = opts.timeout }
  if err then return nil, err end
  return true
end

--- Pauses a sandbox: POST /sandboxes/{id}/pause. On Docker it is paused when this returns. On Kubernetes its state goes from Pausing to
--- Paused, and its processes are lost. Its lifetime continues to run out.
--- ```lua
--- assert(client:pause_sandbox(id))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function sandbox_routes:pause_sandbox(id, opts)
  return post_action(self, self.op or "pause_sandbox", id, "/pause", opts)
end

--- Resumes a paused sandbox: POST /sandboxes/{id}/resume. Its endpoints may have changed afterwards.
--- ```lua
--- assert(client:resume_sandbox(id))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function sandbox_routes:resume_sandbox(id, opts)
  return post_action(self, self.op or "resume_sandbox", id, "/resume", opts)
end

--- Changes some of a sandbox's metadata: PATCH /sandboxes/{id}/metadata (servers from 0.1.14). On Docker, a key that was set at the
--- create and is removed comes back with the next change.
--- ```lua
--- assert(client:patch_metadata(id, { stage = "two", old = false }))
--- ```
---@param id string
---@param changes table<string, string|false> false removes the key
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function sandbox_routes:patch_metadata(id, changes, opts)
  local op = self.op or "patch_metadata"
  local path = requests.path(op, id, "/metadata")
  options.argument(op, "the changes", changes, "table")
  opts = options.check(op, opts, call_options)
  local patch = {}
  for name, value in each(changes) do
    if type(name) ~= "string" or not (type(value) == "string" or value == false) then
      options.raise(op, "the changes must be strings, or false to remove, by name")
    end
    patch[name] = value or json.null
  end
  return self.http:call { op = op, method = "PATCH", path = path, sandbox_id = id, timeout = opts.timeout, json = patch,
    decode = objects.sandbox_info, may_repeat = true }
end

--- The options of `sandbox:endpoint` and of the routes that return endpoints.
--- ```lua
--- local signed = assert(sandbox:endpoint(8080, { expires = os.time() + 3600, timeout = 5 }))
--- local proxied = assert(sandbox:endpoint(8080, { use_server_proxy = true }))
--- ```
---@class opensandbox.EndpointOpts
---@field use_server_proxy? boolean default: the client's
---@field expires? integer Unix seconds: a signed endpoint that is valid until then
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local endpoint_options = { use_server_proxy = "boolean", expires = "natural", timeout = "seconds" }

--- Returns the endpoint of a port of a sandbox: GET /sandboxes/{id}/endpoints/{port}.
--- ```lua
--- local endpoint = assert(client:get_endpoint(id, 8080))
--- ```
--- Returns the endpoint of a port of a sandbox: GET /sandboxes/{id}/endpoints/{port}. The client's option endpoint_hosts replaces
--- hosts in it.
---@param id string
---@param port integer 1 to 65535
---@param opts? opensandbox.EndpointOpts
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function sandbox_routes:get_endpoint(id, port, opts)
  local op = self.op or "get_endpoint"
  options.port(op, port)
  opts = options.check(op, opts, endpoint_options)
  local proxied = opts.use_server_proxy
  if proxied == nil then proxied = self.use_server_proxy and not opts.expires end
  local query = url.query { { "use_server_proxy", proxied and "true" or nil }, { "expires", opts.expires } }
  local path = requests.path(op, id, ("/endpoints/%d"):format(port)) .. query
  return self.http:call { op = op, method = "GET", path = path, sandbox_id = id, timeout = opts.timeout,
    decode = function(object, response_headers)
      local endpoint = objects.endpoint(object, self.http.scheme, self.http.endpoint_hosts)
      if not endpoint then return nil, "usable endpoint" end
      endpoint.sandbox_id, endpoint.proxied = id, proxied or false
      endpoint.origin = response_headers["open-sandbox-origin"]
      return endpoint
    end }
end

--- Returns the endpoint of a sandbox's execd: GET /sandboxes/{id}/endpoints/44772.
--- ```lua
--- local execd = assert(client:discover_execd(id))
--- ```
---@param id string
---@param opts? opensandbox.EndpointOpts
---@return opensandbox.Endpoint? execd
---@return opensandbox.Error? err
function sandbox_routes:discover_execd(id, opts)
  return self:for_op(self.op or "discover_execd"):get_endpoint(id, ports.EXECD, opts)
end

--- Returns the endpoint of a sandbox's egress API: GET /sandboxes/{id}/endpoints/18080. Only a sandbox that was created with a
--- network_policy has that API, but the server returns an endpoint for the others too.
--- ```lua
--- local egress = assert(client:discover_egress(id))
--- ```
---@param id string
---@param opts? opensandbox.EndpointOpts
---@return opensandbox.Endpoint? egress
---@return opensandbox.Error? err
function sandbox_routes:discover_egress(id, opts)
  return self:for_op(self.op or "discover_egress"):get_endpoint(id, ports.EGRESS, opts)
end

--- The options of `client:wait_ready`.
--- ```lua
--- assert(client:wait_ready(id, { timeout = 60, ping = true, on_state = function(info) print(info.state) end }))
--- ```
---@class opensandbox.WaitReadyOpts
---@field timeout? opensandbox.Duration default 30
---@field ping? boolean false: the state Running is enough
---@field on_state? fun(info: opensandbox.SandboxInfo) called with each new state

local ready_options = { timeout = "seconds", ping = "boolean", on_state = "function" }

--- Waits until a sandbox is Running and its execd answers: GET /sandboxes/{id} and execd's GET /ping. A state that never becomes Running
--- is an error at once.
--- ```lua
--- local info, execd = client:wait_ready(id, { timeout = 60 })
--- ```
---@param id string
---@param opts? opensandbox.WaitReadyOpts
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Endpoint|opensandbox.Error execd the endpoint that answered, or the error
function sandbox_routes:wait_ready(id, opts)
  local op = self.op or "wait_ready"
  options.path_segment(op, "the sandbox id", id)
  opts = options.check(op, opts, ready_options)
  local limit = deadline.new(opts.timeout or readiness.READY_TIMEOUT)
  return readiness.wait(self, op, id, limit, { ping = opts.ping, on_state = opts.on_state })
end

--- Returns whether the server is healthy: GET /health. The route needs no key.
--- ```lua
--- assert(client:health { timeout = 2 })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function sandbox_routes:health(opts)
  local op = self.op or "health"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = "/health", at_root = true, timeout = opts.timeout,
    decode = function(object)
      if object.status == "healthy" then return true end
      return nil, "status that says healthy"
    end }
end

--- Returns the server's version: GET /version (servers from 0.2.3; older ones return 404).
--- ```lua
--- print(assert(client:get_version()))
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return string? version
---@return opensandbox.Error? err
function sandbox_routes:get_version(opts)
  local op = self.op or "get_version"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = "/version", at_root = true, timeout = opts.timeout,
    decode = function(object)
      return type(object.version) == "string" and object.version or nil, "version"
    end }
end

--- The outcome of a create.
--- ```lua
--- client:record_create_event { success = true, duration = 1.5, sandbox_id = id, image = "python:3.12" }
--- ```
---@class opensandbox.CreateEvent
---@field success boolean it has succeeded
---@field duration number seconds
---@field sandbox_id? string the sandbox that it created
---@field image? string an image, or the id of a snapshot

local event_options = { success = "boolean", duration = "seconds or 0", sandbox_id = "nonempty string", image = "nonempty string" }

--- Reports the outcome of a create to the server, for its statistics: POST /metrics/events (servers from 0.2.2). The library never calls
--- this by itself, so nothing is reported unless you do.
--- ```lua
--- client:record_create_event { success = true, duration = 1.5, sandbox_id = id, image = "python:3.12" }
--- ```
---@param event opensandbox.CreateEvent
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function sandbox_routes:record_create_event(event, opts)
  local op = self.op or "record_create_event"
  options.argument(op, "the event", event, "table")
  event = options.check(op, event, event_options)
  options.argument(op, "option 'success'", event.success, "boolean")
  options.argument(op, "option 'duration'", event.duration, "seconds or 0")
  opts = options.check(op, opts, call_options)
  local _, err = self.http:call { op = op, method = "POST", path = "/metrics/events", sandbox_id = event.sandbox_id,
    timeout = opts.timeout,
    json = { eventType = "sandbox.create", createDurationMs = math.floor(event.duration * 1000 + 0.5), success = event.success,
      sandboxId = event.sandbox_id, image = event.image } }
  if err then return nil, err end
  return true
end

return sandbox_routes

--- The lifecycle API: a client method for each route.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local json = require "opensandbox.base.json"
local loop = require "opensandbox.loop"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"
local pages = require "opensandbox.lifecycle.pagination"
local random = require "opensandbox.base.random"
local ready = require "opensandbox.lifecycle.readiness"
local since = require "opensandbox.lifecycle.server_version"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"
local wire = require "opensandbox.lifecycle.objects"

local lifecycle = {}

local SEARCH_FOR_LOST = 30 -- seconds: how long a create whose answer was lost is looked for

local function sandbox_path(op, id, rest)
  return "/sandboxes/" .. url.escape(options.identifier(op, "the sandbox id", id)) .. (rest or "")
end

--- Internal: raises for options that every server would refuse.
---@param op string
---@param opts opensandbox.SandboxOpts
function lifecycle.check_create_options(_, op, opts)
  options.argument(op, "the options", opts, "table")
  options.check(op, opts, wire.create_options)
  local image = opts.image
  if image ~= nil and type(image) ~= "table" then options.argument(op, "option 'image'", image, "text") end
  local sources = (image ~= nil and 1 or 0) + (opts.snapshot_id and 1 or 0) + (opts.template_id and 1 or 0)
  local pool = opts.extensions and opts.extensions.poolRef
  if sources ~= 1 and not (pool and sources == 0) then
    options.raise(op, "one of the options 'image' and 'snapshot_id' is needed, for example image = \"python:3.12\"")
  end
  if opts.entrypoint and #opts.entrypoint == 0 then options.raise(op, "option 'entrypoint' must not be empty") end
  if opts.network_policy then network_policy.check(op, opts.network_policy) end
  local proxy = opts.credential_proxy
  if proxy ~= nil and type(proxy) ~= "table" then options.argument(op, "option 'credential_proxy'", proxy, "boolean") end
  local wants_proxy = proxy == true or (proxy and proxy.enabled)
  if wants_proxy and not opts.network_policy then
    options.raise(op, "option 'credential_proxy' needs option 'network_policy', which allows the hosts that get credentials")
  end
end

-- A create whose answer was lost may still have made a sandbox: finds it by its label.
local function find_lost(client, label, seconds)
  local deadline = core.now() + seconds
  local pause = 0.2
  while true do
    local found, err = client:list_sandboxes { metadata = { [wire.CREATE_LABEL] = label } }
    if not found then return nil, err end
    if found[1] then return found[1] end
    if core.now() + pause > deadline then return nil end
    local stopped = loop.sleep("create_sandbox", pause)
    if stopped then return nil, stopped end
    pause = math.min(pause * 2, 5)
  end
end

-- Nobody waits for the answer to a create any more: what it may have made is ended, in the background.
local function undo(client, label)
  client.cleanup:spawn(function()
    local found = find_lost(client, label, SEARCH_FOR_LOST)
    if found then client:delete_sandbox(found.id) end
  end)
end

local function answer_was_lost(err)
  if err.not_sent or err.retryable then return false end
  if err.kind == "http" then return err.status == 502 or err.status == 503 or err.status == 504 end
  return err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" or err.kind == "protocol"
end

--- Creates a sandbox: POST /sandboxes. Returns when the server has started it; use `wait_ready` before running commands.
---
--- It is never sent twice unless the first was provably not carried out; one whose answer was lost is looked up by a label.
---@param self opensandbox.Client
---@param opts opensandbox.SandboxOpts
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function lifecycle.create_sandbox(self, opts)
  local op = self.op or "create_sandbox"
  self:check_create_options(op, opts)
  local can, problem_of_version = since(self, op, opts)
  if not can then return nil, problem_of_version end
  local label = random.hex(16)
  local info, err = self.http:call {
    op = op, method = "POST", path = "/sandboxes", json = wire.create_request(opts, label), decode = wire.sandbox_info,
    timeout = self.http.timeouts.create_timeout, option_names = { timeout = "create_timeout" },
    on_abandon = function(ex)
      if ex:sent() then undo(self, label) end
    end,
  }
  if info then return info end
  if answer_was_lost(err) then
    local found, problem = find_lost(self, label, SEARCH_FOR_LOST)
    if found then return found end
    if problem and problem.kind == "cancelled" then
      undo(self, label)
      problem.op = op
      return nil, problem
    end
    err.hint = ("Whether the sandbox was created is not known. It would carry the metadata %s=%s"):format(wire.CREATE_LABEL, label)
  end
  return nil, err
end

local get_options = { timeout = "seconds" }

--- One sandbox: GET /sandboxes/{id}.
---@param self opensandbox.Client
---@param id string
---@param opts? table timeout (seconds)
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function lifecycle.get_sandbox(self, id, opts)
  local op = self.op or "get_sandbox"
  opts = options.check(op, opts, get_options)
  local info, err = self.http:call { op = op, method = "GET", path = sandbox_path(op, id), decode = wire.sandbox_info,
    sandbox_id = id, timeout = opts.timeout }
  local renewer = self.http:activity_listener(id)
  if renewer and info then renewer:set_expiry(info.expires_at) end
  return info, err
end

-- Metadata travels as one query value that is itself form-encoded.
local function metadata_filter(metadata)
  local parts = {}
  for name, value in pairs(metadata or {}) do parts[#parts + 1] = url.escape(name) .. "=" .. url.escape(value) end
  table.sort(parts)
  return #parts > 0 and table.concat(parts, "&") or nil
end

local filter_options = { metadata = "strings", states = "list", page = "count", page_size = "count" }

--- The sandboxes: GET /sandboxes, newest first; every page of them unless `page` is given.
---@param self opensandbox.Client
---@param filter? table metadata (all must match), states (any may), page (from 1), page_size (at most 200)
---@return opensandbox.SandboxInfo[]? list
---@return opensandbox.Error? err
function lifecycle.list_sandboxes(self, filter)
  local op = self.op or "list_sandboxes"
  filter = options.check(op, filter, filter_options)
  local query = { { "metadata", metadata_filter(filter.metadata) } }
  for _, state in ipairs(filter.states or {}) do query[#query + 1] = { "state", state } end
  return pages.all(self, { op = op, path = "/sandboxes" }, query, filter, wire.sandbox_info)
end

--- Internal: the prepared request that deletes a sandbox, for requests that nobody waits for.
---@param self opensandbox.Client
---@param id string
---@return table request
function lifecycle.delete_sandbox_request(self, id)
  local op = self.op or "delete_sandbox"
  return self.http:lifecycle_request { op = op, method = "DELETE", path = sandbox_path(op, id), sandbox_id = id, may_repeat = true }
end

--- Ends a sandbox: DELETE /sandboxes/{id}. One that is gone already is a success.
---@param self opensandbox.Client
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function lifecycle.delete_sandbox(self, id)
  local op = self.op or "delete_sandbox"
  local _, err = self.http:call { op = op, method = "DELETE", path = sandbox_path(op, id), sandbox_id = id, shielded = true }
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

local function renewal(op, id, expires_at)
  return { op = op, method = "POST", path = sandbox_path(op, id, "/renew-expiration"), sandbox_id = id,
    json = { expiresAt = time.format(expires_at) },
    may_repeat = true } -- an absolute time: twice is as good as once
end

--- Internal: moves the time at which a sandbox expires, and does not wait for the response.
---@param self opensandbox.Client
---@param id string
---@param expires_at number Unix seconds
function lifecycle.renew_in_background(self, id, expires_at)
  self.http:send_detached(self.http:lifecycle_request(renewal("renew_sandbox", id, expires_at)))
end

--- Moves the time at which a sandbox expires to `seconds` from now: POST /sandboxes/{id}/renew-expiration.
---@param self opensandbox.Client
---@param id string
---@param seconds number
---@return number? expires_at Unix seconds
---@return opensandbox.Error? err
function lifecycle.renew_sandbox(self, id, seconds)
  local op = self.op or "renew_sandbox"
  options.argument(op, "the time", seconds, "seconds")
  local expires_at = core.wall_clock() + seconds
  local request = renewal(op, id, expires_at)
  function request.decode(answer) return time.parse(answer.expiresAt) or expires_at end
  local renewer = self.http:activity_listener(id)
  local before = renewer and renewer:set_expiry(expires_at) -- already now, so that it does not renew for less meanwhile
  local renewed, err = self.http:call(request)
  if renewer then renewer:set_expiry(renewed or before) end
  return renewed, err
end

-- A call for one sandbox whose good answer is empty.
local function act(self, op, id, step)
  local _, err = self.http:call { op = op, method = "POST", path = sandbox_path(op, id, step), sandbox_id = id }
  if err then return nil, err end
  return true
end

--- Freezes a sandbox: POST /sandboxes/{id}/pause. On Docker it is paused when this returns; on Kubernetes it goes from Pausing to
--- Paused, and its processes are lost. Its time goes on running out.
---@param self opensandbox.Client
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function lifecycle.pause_sandbox(self, id)
  return act(self, self.op or "pause_sandbox", id, "/pause")
end

--- Lets a paused sandbox go on: POST /sandboxes/{id}/resume. Its endpoints may be others afterwards.
---@param self opensandbox.Client
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function lifecycle.resume_sandbox(self, id)
  return act(self, self.op or "resume_sandbox", id, "/resume")
end

--- Changes some of a sandbox's metadata: PATCH /sandboxes/{id}/metadata (servers from 0.1.14). On Docker, one that was given at
--- the create and is removed comes back with the next change.
---@param self opensandbox.Client
---@param id string
---@param changes table<string, string|false> false removes
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function lifecycle.patch_metadata(self, id, changes)
  local op = self.op or "patch_metadata"
  local path = sandbox_path(op, id, "/metadata")
  options.argument(op, "the changes", changes, "table")
  local patch = {}
  for name, value in pairs(changes) do
    if type(name) ~= "string" or not (type(value) == "string" or value == false) then
      options.raise(op, "the changes must be strings, or false to remove, by name")
    end
    patch[name] = value or json.null
  end
  return self.http:call { op = op, method = "PATCH", path = path, sandbox_id = id, json = patch, decode = wire.sandbox_info,
    may_repeat = true }
end

local endpoint_options = { use_server_proxy = "boolean", expires = "count", timeout = "seconds" }

---@class opensandbox.Endpoint
---@field url string base URL, without a slash at its end
---@field host string
---@field port integer
---@field headers table<string, string> to be sent with every request
---@field sandbox_id string
---@field proxied boolean through the lifecycle server's proxy

--- Where a port of a sandbox can be reached: GET /sandboxes/{id}/endpoints/{port}.
---@param self opensandbox.Client
---@param id string
---@param port integer 1 to 65535
---@param opts? table use_server_proxy (default: the client's), expires (Unix seconds: a signed endpoint), timeout (seconds)
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function lifecycle.get_endpoint(self, id, port, opts)
  local op = self.op or "get_endpoint"
  options.port(op, port)
  opts = options.check(op, opts, endpoint_options)
  local proxied = opts.use_server_proxy
  if proxied == nil then proxied = self.use_server_proxy and not opts.expires end
  local query = url.query { { "use_server_proxy", proxied and "true" or nil }, { "expires", opts.expires } }
  local path = sandbox_path(op, id, ("/endpoints/%d"):format(port)) .. query
  return self.http:call { op = op, method = "GET", path = path, sandbox_id = id, timeout = opts.timeout,
    decode = function(answer)
      local endpoint = wire.endpoint(answer, self.http.scheme)
      if not endpoint then return nil, "usable endpoint" end
      endpoint.sandbox_id, endpoint.proxied = id, proxied or false
      return endpoint
    end }
end

--- Where a sandbox's execd can be reached: its endpoint for port 44772.
---@param self opensandbox.Client
---@param id string
---@param opts? table as for get_endpoint
---@return opensandbox.Endpoint? execd
---@return opensandbox.Error? err
function lifecycle.discover_execd(self, id, opts)
  return self:get_endpoint(id, wire.EXECD_PORT, opts)
end

--- Where the egress API of a sandbox can be reached: its endpoint for port 18080. Only a sandbox that was created with a
--- network_policy has one; an endpoint is given for others, too.
---@param self opensandbox.Client
---@param id string
---@param opts? table as for get_endpoint
---@return opensandbox.Endpoint? egress
---@return opensandbox.Error? err
function lifecycle.discover_egress(self, id, opts)
  return self:get_endpoint(id, wire.EGRESS_PORT, opts)
end

local ready_options = { timeout = "seconds", ping = "boolean", on_state = "function" }

--- Waits until a sandbox is Running and its execd answers. A state that will not become Running is an error at once.
---@param self opensandbox.Client
---@param id string
---@param opts? table timeout (seconds, default 30), ping (false: the state is enough), on_state (called with each new info)
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function lifecycle.wait_ready(self, id, opts)
  local op = self.op or "wait_ready"
  options.identifier(op, "the sandbox id", id)
  opts = options.check(op, opts, ready_options)
  return ready.wait(self, op, id, opts)
end

--- Whether the server is well: GET /health. It needs no key.
---@param self opensandbox.Client
---@return true? ok
---@return opensandbox.Error? err
function lifecycle.health(self)
  return self.http:call { op = self.op or "health", method = "GET", path = "/health", at_root = true, decode = function(answer)
    if answer.status == "healthy" then return true end
    return nil, "status that says healthy"
  end }
end

--- The server's version: GET /version (servers from 0.2.3; older ones answer 404).
---@param self opensandbox.Client
---@return string? version
---@return opensandbox.Error? err
function lifecycle.get_version(self)
  return self.http:call { op = self.op or "get_version", method = "GET", path = "/version", at_root = true,
    decode = function(answer)
      return type(answer.version) == "string" and answer.version or nil, "version"
  end }
end

local event_options = { success = "boolean", duration = "seconds or 0", sandbox_id = "text", image = "text" }

--- Tells the server how a create went, for its statistics: POST /metrics/events (servers from 0.2.2). The library never calls this
--- by itself: nothing is reported unless you do.
---@param self opensandbox.Client
---@param event table success (boolean), duration (seconds), and perhaps sandbox_id, image (or the id of a snapshot)
---@return true? ok
---@return opensandbox.Error? err
function lifecycle.record_create_event(self, event)
  local op = self.op or "record_create_event"
  options.argument(op, "the event", event, "table")
  options.check(op, event, event_options)
  options.argument(op, "option 'success'", event.success, "boolean")
  options.argument(op, "option 'duration'", event.duration, "seconds or 0")
  local _, err = self.http:call { op = op, method = "POST", path = "/metrics/events", sandbox_id = event.sandbox_id,
    json = { eventType = "sandbox.create", createDurationMs = math.floor(event.duration * 1000 + 0.5), success = event.success,
      sandboxId = event.sandbox_id, image = event.image } }
  if err then return nil, err end
  return true
end

return lifecycle

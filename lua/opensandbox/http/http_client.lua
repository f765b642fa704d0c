--- The HTTP side of a client: the servers' URLs, the headers and secrets by destination, time limits, retries and the user's hooks.
--
-- All requests of the library start here. The API key is sent only to the lifecycle API, to that server's own proxy, and to the proxies
-- that the user has named.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local headers = require "opensandbox.http.headers"
local lazy = require "opensandbox.base.lazy"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local server_clock = require "opensandbox.http.server_clock"
local tables = require "opensandbox.base.tables"
local transport = require "opensandbox.loop.transport"
local url = require "opensandbox.base.url"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules {
  call = "opensandbox.http.call",
  exchange = "opensandbox.http.exchange",
  utf8 = "opensandbox.base.utf8",
  websocket = "opensandbox.http.websocket",
}

---@class opensandbox.HttpClient
---@field base_url string of the lifecycle API, with credentials
---@field scheme string of that URL
---@field timeouts table<string, number> seconds by the name of the client's option
---@field retry table the policy, see retry.lua
---@field transport opensandbox.Transport
---@field clock opensandbox.ServerClock of the lifecycle server
---@field is_closing? boolean the client has begun to close
---@field capabilities table see capabilities.lua
---@field limit? opensandbox.Deadline of a view, see HttpClient:within
local HttpClient = {}
HttpClient.__index = HttpClient

local http_client = {}

local DEFAULT_KEY_HEADER = "OPEN-SANDBOX-API-KEY"
-- The headers that only the transport sets, because they describe the body and the connection.
local transport_headers = { ["content-length"] = true, ["transfer-encoding"] = true, connection = true, host = true }

local MIN_HEADER_SECRET_LENGTH = 8 -- bytes: shorter values of the user's headers are seldom credentials

-- Returns the values of the user's headers that may be credentials. The request id is not one, because users search for it in errors.
local function header_secrets(given)
  local secrets = {}
  for name, value in each(given or {}) do
    if #value >= MIN_HEADER_SECRET_LENGTH and name:lower() ~= "x-request-id" then secrets[#secrets + 1] = value end
  end
  return secrets
end

--- Makes the HTTP side of a client.
---@param config table base_url, parsed_url (of url.parse), key, headers, user_headers, timeouts, retry, transport_options, key_header, proxy_origins, endpoint_hosts, on_request, on_response, on_retry, on_exit (see transport.new), explain_error (see HttpClient:explain_error)
---@return opensandbox.HttpClient
function http_client.new(config)
  local self = setmetatable({
    base_url = config.base_url,
    scheme = config.parsed_url.scheme,
    timeouts = config.timeouts,
    retry = config.retry,
    transport = transport.new(config.transport_options, config.on_exit),
    clock = server_clock.new(),
    endpoint_hosts = config.endpoint_hosts,
    capabilities = setmetatable({}, { __mode = "k" }),
    _unversioned_url = (config.base_url:gsub("/v1$", "")), -- of the routes that have no version
    _key_origins = { config.parsed_url }, -- a proxy of one of these receives the key, too
    _key = config.key,
    _key_header = config.key_header or DEFAULT_KEY_HEADER,
    _headers = config.headers,
    _header_secrets = header_secrets(config.user_headers),
    _explain_error = config.explain_error,
    _on_request = config.on_request,
    _on_response = config.on_response,
    _on_retry = config.on_retry,
    _sleepers = {},
    _response_listener = setmetatable({}, { __mode = "v" }),
    _activity_listeners = setmetatable({}, { __mode = "v" }), -- by sandbox id
  }, HttpClient)
  for _, origin in ipairs(config.proxy_origins or {}) do self._key_origins[#self._key_origins + 1] = origin end
  return self
end

--- Returns a view whose calls all end when one time limit has passed.
---@param limit opensandbox.Deadline
---@return opensandbox.HttpClient
function HttpClient:within(limit)
  return setmetatable({ limit = limit }, { __index = self })
end

--- Returns the time limit of a call that names none: the time that is left to the view, or the client's option `timeout`.
---@return number seconds
function HttpClient:default_timeout()
  return self.limit and self.limit:remaining() or self.timeouts.timeout
end

-- Sets the time limit of a request that has none. An error then names the whole time of the view, and not the rest of it.
local function set_timeout(self, request)
  if request.timeout then return end
  request.timeout, request.budget = self:default_timeout(), self.limit and self.limit.seconds
end

--- Sets a listener, whose `on_server_response()` is called whenever the lifecycle server responds. It is held weakly.
---@param listener table
function HttpClient:set_response_listener(listener)
  self._response_listener.listener = listener
end

--- Sets a listener, whose `on_activity(exchange)` is called whenever data arrives for a sandbox. It is held weakly.
---@param sandbox_id string
---@param listener? table nil removes it
function HttpClient:set_activity_listener(sandbox_id, listener)
  self._activity_listeners[sandbox_id] = listener
end

--- Returns the listener for a sandbox.
---@return table? listener
function HttpClient:activity_listener(sandbox_id)
  return self._activity_listeners[sandbox_id]
end

--- Reports to the listener that data has arrived. Exchanges call this.
function HttpClient:notify_activity(ex)
  local listener = self._activity_listeners[ex.request.sandbox_id]
  if listener then listener:on_activity(ex) end
end

-- Returns the facts that all hooks of the user receive about a request.
local function facts_of(request)
  return { op = request.op, method = request.method, url = url.redacted(request.url), sandbox_id = request.sandbox_id,
    destination = request.to_endpoint and "sandbox" or "server" }
end

-- Reports to the user's hook that a request is about to start. Returns the headers that the hook adds.
local function call_request_hook(self, request)
  if not self._on_request then return nil end
  local facts = facts_of(request)
  facts.headers = {}
  self._on_request(facts)
  local added = options.argument(request.op, "the headers that on_request adds", facts.headers, "string map")
  local problem = headers.validate_all(added)
  for name in each(added) do
    if transport_headers[name:lower()] then problem = ("the header %s cannot be set"):format(name) end
  end
  if problem then options.raise(request.op, "the headers that on_request adds are not valid: " .. problem) end
  return added
end

--- Reports to the user's hook that a call will be tried again.
---@param request table
---@param attempt integer the number of attempts that were made
---@param delay number seconds until the next one
---@param err opensandbox.Error of the last attempt
function HttpClient:notify_retry(request, attempt, delay, err)
  if not self._on_retry then return end
  local facts = facts_of(request)
  facts.attempt, facts.delay, facts.error = attempt, delay, err
  self._on_retry(facts)
end

--- Reports that the head of a response has arrived: to the server's clock, to the listener and to the user's hook.
function HttpClient:notify_response(ex)
  if not ex.request.to_endpoint then
    self.clock:observe(ex.headers.date)
    if self._response_listener.listener then self._response_listener.listener:on_server_response() end
  end
  if not self._on_response then return end
  local facts = facts_of(ex.request)
  facts.status, facts.duration, facts.request_id = ex.status, core.now() - ex.started, ex.headers["x-request-id"]
  self._on_response(facts)
end

--- Explains an error of a call to a sandbox's endpoint, because only the lifecycle server knows why a sandbox does not answer. This takes
--- no longer than a plain call may, and not much longer than the time that the call has left.
---@param request table
---@param err opensandbox.Error
---@return opensandbox.Error err a better one, or the same
function HttpClient:explain_error(request, err)
  if not request.to_endpoint or request.explained == false then return err end
  if err.code == "no_descriptors" then return err end -- for now, neither a connection nor a file of the library can be opened
  local seconds = request.deadline and request.deadline:clamp(self.timeouts.timeout) or self.timeouts.timeout
  return self._explain_error(request.op, err, request.shielded, seconds)
end

-- Adds the encoded `json`, the client's headers, the connect timeout and the secrets that must never be shown.
function HttpClient:_prepare(request)
  if request.json ~= nil then
    request.body = parts.call.encode(request.op, request.json)
    request.headers["Content-Type"] = "application/json"
  end
  local added = call_request_hook(self, request)
  request.headers = headers.merge(self._headers, added, request.headers)
  request.connect_timeout = self.timeouts.connect_timeout
  request.secrets = tables.copy_list(request.secrets)
  if self._key then request.secrets[#request.secrets + 1] = self._key end
  for _, value in ipairs(self._header_secrets) do request.secrets[#request.secrets + 1] = value end
  for _, value in ipairs(header_secrets(added)) do request.secrets[#request.secrets + 1] = value end
  -- The longest first, because one can be the beginning of another.
  table.sort(request.secrets, function(a, b) return #a > #b end)
  return request
end

-- Raises for a query that is not UTF-8: the server would replace its bytes by U+FFFD, even in queries that it forwards.
local function check_query(request)
  local query = request.path:match("%?(.*)$")
  if query and not parts.utf8.is_valid(url.unescape(query)) then
    options.raise(request.op, request.to_endpoint
      and "a path that is not UTF-8 does not pass through the server's proxy: connect directly (use_server_proxy = false)"
      or "the filter is not UTF-8, which the server requires")
  end
end

--- Prepares a request to the lifecycle API.
---@param request table as for exchange.start and call.run, with `path`; at_root: the route has no version
---@return table request
function HttpClient:lifecycle_request(request)
  request.headers = request.headers or {}
  check_query(request)
  request.url = (request.at_root and self._unversioned_url or self.base_url) .. request.path
  set_timeout(self, request)
  request.headers = headers.merge(request.headers, self._key and { [self._key_header] = self._key } or nil)
  return self:_prepare(request)
end

local function same_origin(a, b)
  return a and b and a.scheme == b.scheme and a.host:lower() == b.host:lower() and a.port == b.port
end

-- Returns whether an endpoint is a proxy of the lifecycle server, or a proxy that the user has named.
local function receives_key(self, endpoint)
  local parsed = endpoint.proxied and url.parse(endpoint.url)
  for _, origin in ipairs(self._key_origins) do
    if same_origin(parsed, origin) then return true end
  end
  return false
end

--- Checks an endpoint of the caller and returns it as a table.
---@param op string
---@param endpoint any a result of get_endpoint, or a URL
---@return opensandbox.Endpoint
function http_client.check_endpoint(op, endpoint)
  if type(endpoint) == "string" then
    local parsed, problem = url.parse(endpoint)
    if not parsed then options.raise(op, ("the endpoint %q is not a URL: %s"):format(url.redacted(endpoint), problem)) end
    return { url = url.trim_slashes(endpoint), headers = {} }
  elseif type(endpoint) ~= "table" or type(endpoint.url) ~= "string" then
    options.raise(op, "the endpoint must be what discover_execd or get_endpoint returns, or a URL")
  end
  local problem = headers.validate_all(endpoint.headers or {})
  if problem then options.raise(op, "the endpoint is not valid: " .. problem) end
  return endpoint
end

--- Prepares a request to an endpoint of a sandbox.
---@param endpoint opensandbox.Endpoint|string
---@param request table as for exchange.start and call.run, with `path`
---@return table request
function HttpClient:endpoint_request(endpoint, request)
  endpoint = http_client.check_endpoint(request.op, endpoint)
  request.to_endpoint = true
  if endpoint.proxied then check_query(request) end
  request.url = endpoint.url .. request.path
  request.sandbox_id = request.sandbox_id or endpoint.sandbox_id
  request.headers = headers.merge(endpoint.headers, request.headers)
  if self._key and receives_key(self, endpoint) then
    request.headers = headers.merge(request.headers, { [self._key_header] = self._key })
  end
  request.secrets = tables.copy_list(request.secrets)
  for _, value in each(endpoint.headers or {}) do request.secrets[#request.secrets + 1] = value end
  return self:_prepare(request)
end

--- Makes a plain call to the lifecycle API.
---@param request table as for lifecycle_request and call.run
---@return any value
---@return opensandbox.Error? err
function HttpClient:call(request)
  return parts.call.run(self, self:lifecycle_request(request))
end

--- Makes a plain call to an endpoint of a sandbox.
---@param endpoint opensandbox.Endpoint|string
---@param request table as for endpoint_request and call.run
---@return any value
---@return opensandbox.Error? err
function HttpClient:call_endpoint(endpoint, request)
  set_timeout(self, request)
  return parts.call.run(self, self:endpoint_request(endpoint, request))
end

--- Opens a WebSocket to an endpoint of a sandbox.
---@param endpoint opensandbox.Endpoint|string
---@param request table as for endpoint_request and websocket.open, without a method
---@return opensandbox.WebSocket? connection
---@return opensandbox.Error? err
function HttpClient:open_websocket(endpoint, request)
  request.method = "GET"
  return parts.websocket.open(self, self:endpoint_request(endpoint, request))
end

--- Sends a prepared request and does not wait for its response.
---@param request table
---@param wait_on_close? boolean closing the client waits for the response
function HttpClient:send_detached(request, wait_on_close)
  parts.exchange.start(self, request):detach(self.timeouts.timeout, wait_on_close)
  scheduler.notify()
end

--- Sends a request to an endpoint of a sandbox and does not wait for its response.
---@param endpoint opensandbox.Endpoint|string
---@param request table as for endpoint_request
---@param wait_on_close? boolean closing the client waits for the response
function HttpClient:send_to_endpoint(endpoint, request, wait_on_close)
  self:send_detached(self:endpoint_request(endpoint, request), wait_on_close)
end

-- Returns the error for code that waits, once the client closes.
local function closed_error(self, op, shielded)
  if not self.is_closed and (shielded or not self.is_closing) then return nil end
  return errors.new { kind = "closed", code = "closed", op = op, message = "the client is closed" }
end

--- Waits between two requests. Closing the client ends the wait: at once, or when all requests are stopped if it is shielded. It may also
--- end early without an error.
---@param op string for errors
---@param seconds number
---@param shielded? boolean the next request deletes or stops something: it is sent by a cancelled task too, and while the client closes
---@param sleeper? table for `wake`
---@return opensandbox.Error? err when the client was closed, or the task cancelled
function HttpClient:sleep(op, seconds, shielded, sleeper)
  local wait = scheduler.expect { registry = self._sleepers, key = sleeper or {}, seconds = seconds, shielded = shielded }
  local err = closed_error(self, op, shielded)
  if err then return err end
  local interruption, reason = loop.wait(wait)
  if interruption then return loop.interrupted(op, interruption, reason) end
  return closed_error(self, op, shielded)
end

--- Ends the wait of a sleeper.
---@param sleeper table
function HttpClient:wake(sleeper)
  scheduler.wake(self._sleepers[sleeper])
end

--- Internal: from now on, a request that fails has an error of kind `closed`, because the deletes of a closing client can break its other
--- requests. A request that deletes or stops something keeps its own error.
function HttpClient:begin_close()
  self.is_closing = true
  scheduler.wake_all(self._sleepers)
end

--- Stops all requests, and ends all waits between two requests.
---@param seconds? number the longest wait for the responses of detached requests with wait_on_close, default 2
function HttpClient:close(seconds)
  self.is_closed = true
  self.transport:close(seconds)
  scheduler.wake_all(self._sleepers)
end

return http_client

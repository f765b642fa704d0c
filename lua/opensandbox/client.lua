--- The client: where the servers are, how to reach them, and the connections to them.
--
-- Its methods for the routes stand in `lifecycle.lua` and `execd.lua`; `create` and `connect` give Sandbox objects.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local exchange = require "opensandbox.http.exchange"
local headers = require "opensandbox.http.headers"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local retry = require "opensandbox.http.retry"
local scheduler = require "opensandbox.loop.scheduler"
local url = require "opensandbox.base.url"
local utf8 = require "opensandbox.base.utf8"
local version = require "opensandbox.version"

---@class opensandbox.Client
---@field url string base URL of the lifecycle API, without credentials
local Client = {}
Client.__index = Client
Client.__name = "opensandbox.Client"

local KEY_HEADER = "OPEN-SANDBOX-API-KEY"
local CLEARING_TIME = 2 -- seconds
local POLLED_STEP = 0.005 -- seconds between steps where there is no descriptor to watch
local SHORTEST_HEADER_SECRET = 8 -- bytes

local DEFAULTS = {
  timeout = 30,               -- seconds for a whole plain call
  create_timeout = 300,       -- seconds: creating may pull an image
  connect_timeout = 10,       -- seconds
  idle_timeout = 15,          -- seconds without a byte on an event stream: execd pings every 3
  transfer_idle_timeout = 60, -- seconds without a byte on an upload or a download
  max_output = 16 * 1024 * 1024, -- bytes of a command's output kept in memory, for each stream
}

local known_options = {
  timeout = "seconds", create_timeout = "seconds", connect_timeout = "seconds", idle_timeout = "seconds",
  transfer_idle_timeout = "seconds", max_output = "count", headers = "strings", user_agent = "text",
  use_server_proxy = "boolean", retry = "any", loop = "any",
  tls = "table", proxy = "string", on_request = "function", on_response = "function",
}
local known_tls = {
  verify = "boolean", ca_file = "text", ca_directory = "text", certificate = "text", key = "text", key_password = "string",
}

-- Values of the user's headers that may be credentials. A name that the user gave the request is to be seen in errors.
local function header_secrets(given)
  local secrets = {}
  for name, value in pairs(given or {}) do
    if #value >= SHORTEST_HEADER_SECRET and name:lower() ~= "x-request-id" then secrets[#secrets + 1] = value end
  end
  return secrets
end

local function transport_options(given)
  local tls = options.check("new", given.tls, known_tls)
  return {
    insecure = tls.verify == false, ca_file = tls.ca_file, ca_directory = tls.ca_directory, certificate = tls.certificate,
    key = tls.key, key_password = tls.key_password, proxy = given.proxy,
  }
end

local function retry_policy(given)
  if given == nil or given == false then return retry.policy(given) end
  options.argument("new", "option 'retry'", given, "table")
  return retry.policy(options.check("new", given, retry.known))
end

--- Makes a client. Nothing is sent yet.
---@param base? string URL of the lifecycle API; default OPEN_SANDBOX_DOMAIN (with OPEN_SANDBOX_PROTOCOL), else http://localhost:8080. "/v1" is appended when it has no path
---@param api_key? string default OPEN_SANDBOX_API_KEY
---@param opts? table timeout, create_timeout, connect_timeout, idle_timeout, transfer_idle_timeout (seconds); max_output (bytes); headers, user_agent; use_server_proxy; retry (table or false); tls { verify, ca_file, ca_directory, certificate, key, key_password }; proxy; on_request, on_response; loop (the event loop that all clients of this Lua state live in: "plain", "uv", "ngx", "cqueues", "socket", "copas" or an adapter; by default the one we find ourselves in)
---@return opensandbox.Client
local function new(base, api_key, opts)
  local op = "new"
  if base ~= nil then options.argument(op, "the url", base, "text") end
  if api_key ~= nil then options.argument(op, "the API key", api_key, "string") end
  opts = options.check(op, opts, known_options)
  local from_environment = base == nil
  base = base or os.getenv("OPEN_SANDBOX_DOMAIN")
  if not base or base == "" then base = "http://localhost:8080" end
  local protocol = os.getenv("OPEN_SANDBOX_PROTOCOL")
  local full, parsed = url.base(base, protocol and protocol ~= "" and protocol or "http")
  if not full then
    local where = from_environment and " (OPEN_SANDBOX_DOMAIN)" or ""
    -- What is not valid may hold a password anywhere before the last @.
    options.raise(op, ("the url %q%s is not valid: %s"):format(url.shown((base:gsub("//.*@", "//"))), where, parsed))
  end
  if api_key == nil then api_key = os.getenv("OPEN_SANDBOX_API_KEY") end
  if api_key == "" then api_key = nil end
  if api_key and api_key:find("[%c ]") then
    options.raise(op, "the API key holds white space or control characters: check how it was read")
  end
  local own_headers = headers.merge({ ["User-Agent"] = opts.user_agent or ("opensandbox-lua/" .. version) }, opts.headers)
  local problem = headers.problem_in(own_headers)
  if problem then options.raise(op, problem) end
  local self = {
    url = url.shown(full),
    _base = full,
    _root = (full:gsub("/v1$", "")), -- of the routes that have no version
    use_server_proxy = opts.use_server_proxy or false,
    max_output = opts.max_output or DEFAULTS.max_output,
    _origin = parsed,
    _key = api_key,
    _headers = own_headers,
    _header_secrets = header_secrets(opts.headers),
    _transport = transport_options(opts),
    _retry = retry_policy(opts.retry),
    _on_request = opts.on_request,
    _on_response = opts.on_response,
    _multi = core.multi(),
    _lives = {},
    _keepers = setmetatable({}, { __mode = "v" }), -- by the id of the sandbox that they keep alive
    _pools = setmetatable({}, { __mode = "k" }),
    _clocks = {},
    _clearing = {}, -- tasks that stop or delete what nobody waits for any more
    _waiting = {}, -- by the id of the transfer that they wait for
    _interrupted = {}, -- when code was told to end, by the id of its context: see code.lua
    _lacks = setmetatable({}, { __mode = "k" }), -- by endpoint: see lacks.lua
  }
  for name, value in pairs(DEFAULTS) do self._clocks[name] = opts[name] or value end
  if opts.loop ~= nil then loop.use(op, opts.loop) end
  scheduler.add_client(self)
  return setmetatable(self, Client)
end

--- Closes the client: sandboxes that it created and nobody closed or detached are deleted, which gets up to 2 seconds, and so
--- is what it made in other sandboxes; requests under way end.
function Client:close()
  local deadline = core.now() + CLEARING_TIME
  for pool in pairs(self._pools) do pool:_shut() end
  local one = next(self._clearing) -- there may be more while we wait
  while one do
    one:_join(deadline - core.now())
    self._clearing[one] = nil
    one = next(self._clearing)
  end
  for life in pairs(self._lives) do
    if not (life.sandbox and life.sandbox._life) then self:_end_life(life) end -- what is in a sandbox of ours ends with it
  end
  self._multi:close()
  for _, waiter in pairs(self._waiting) do scheduler.wake(waiter) end
end

-- A life stands for a sandbox that this client created and has to end, or for something that it made in one (see part.lua). It does
-- not refer to the object of its own, so that it can outlive it in the object's finalizer. `ending` makes the request that ends it, or
-- nil when that is not needed any more. Its `on_end`, if any, is called once it is over; in a finalizer, too.
function Client:_begin_life(ending)
  local life = { ending = ending }
  self._lives[life] = true
  return life
end

-- It was ended, or is not ours any more.
function Client:_forget_life(life)
  if not self._lives[life] then return end
  self._lives[life] = nil
  if life.on_end then life.on_end() end
end

-- Ends it without waiting. Closing the client waits for it.
function Client:_end_life(life)
  if not self._lives[life] then return end
  self:_forget_life(life)
  local request = life.ending()
  if request then self:_forget(request, true) end
end

-- Sends a request and does not wait for its answer. With `must_arrive`, closing the client does.
function Client:_forget(request, must_arrive)
  exchange.start(self, request).transfer:detach(self._clocks.timeout, must_arrive)
  scheduler.notify()
end

Client.__close = Client.close

-- The contract for event loops: watch `pollfd` for reading, wake up after `timeout`, then call `step`.

--- The descriptor to watch for reading; nil on platforms without one.
function Client:pollfd() return self._multi:pollfd() end

--- "r": what to watch the descriptor for.
function Client:events() return self._multi:events() end

--- Seconds until `step` should be called even though the descriptor is quiet; nil when there is no need.
function Client:timeout()
  local seconds = scheduler:timeout()
  local watchable = self._multi:inflight() == 0 or self._multi:pollfd() ~= nil
  if watchable then return seconds end
  return math.min(seconds or POLLED_STEP, POLLED_STEP)
end

--- Moves what can be moved, of all clients, waiting at most `seconds` (default 0), and lets the tasks go on that can. Returns the
--- number of this client's requests under way.
function Client:step(seconds)
  scheduler:step(seconds)
  return (self._multi:inflight())
end

--- For luasocket's select.
function Client:getfd() return self._multi:getfd() end

--- For luasocket's select: whether `step` is due now.
function Client:dirty() return scheduler:dirty() end

-- Reports a request that is about to start, to the user's hook.
function Client:_requested(request)
  if self._on_request then
    self._on_request { op = request.op, method = request.method, url = url.shown(request.url), sandbox_id = request.sandbox_id }
  end
end

-- Reports a response whose head has arrived.
function Client:_responded(ex)
  if self._on_response then
    self._on_response { op = ex.call.op, method = ex.call.method, url = url.shown(ex.call.url), sandbox_id = ex.call.sandbox_id,
      status = ex.status, seconds = core.now() - ex.started, request_id = ex.headers["x-request-id"] }
  end
end

-- Completes a request: the text of its `json`, headers by destination, clocks, what must never be shown.
function Client:_complete(request)
  if request.json ~= nil then
    request.body = call.encode(request.op, request.json)
    request.headers["Content-Type"] = "application/json"
  end
  request.headers = headers.merge(self._headers, request.headers)
  request.connect_timeout = self._clocks.connect_timeout
  request.secrets = request.secrets or {}
  if self._key then request.secrets[#request.secrets + 1] = self._key end
  for _, value in ipairs(self._header_secrets) do request.secrets[#request.secrets + 1] = value end
  -- Longest first: one may begin as another does.
  table.sort(request.secrets, function(a, b) return #a > #b end)
  self:_requested(request)
  return request
end

-- The server reads queries as UTF-8, also those that it passes on, and puts U+FFFD for every other byte.
local function check_query(request)
  local query = request.path:match("%?(.*)$")
  if query and not utf8.is_sound(url.unescape(query)) then
    options.raise(request.op, request.is_execd
      and "a path that is not UTF-8 does not pass through the server's proxy: go without it (use_server_proxy = false)"
      or "the filter is not UTF-8, and the server reads nothing else")
  end
end

-- A request to the lifecycle API; the only destination of the key, apart from its own proxy.
function Client:_lifecycle(request)
  check_query(request)
  request.url = (request.at_root and self._root or self._base) .. request.path
  request.timeout = request.timeout or self._clocks.timeout
  request.headers = headers.merge(request.headers, self._key and { [KEY_HEADER] = self._key } or nil)
  return self:_complete(request)
end

local function same_origin(a, b)
  return a and b and a.scheme == b.scheme and a.host:lower() == b.host:lower() and a.port == b.port
end

-- A request to an endpoint of a sandbox: a table of get_endpoint, or a URL.
function Client:_endpoint(endpoint, request)
  if type(endpoint) == "string" then
    local parsed, problem = url.parse(endpoint)
    if not parsed then options.raise(request.op, ("the endpoint %q is not a URL: %s"):format(url.shown(endpoint), problem)) end
    endpoint = { url = (endpoint:gsub("/+$", "")) }
  elseif type(endpoint) ~= "table" or type(endpoint.url) ~= "string" then
    options.raise(request.op, "the endpoint must be what discover_execd or get_endpoint returns, or a URL")
  end
  request.is_execd = true
  if endpoint.proxied then check_query(request) end
  request.url = endpoint.url .. request.path
  request.sandbox_id = request.sandbox_id or endpoint.sandbox_id
  local problem = headers.problem_in(endpoint.headers or {})
  if problem then options.raise(request.op, "the endpoint is not valid: " .. problem) end
  request.headers = headers.merge(endpoint.headers, request.headers)
  if endpoint.proxied and self._key and same_origin(url.parse(endpoint.url), self._origin) then
    request.headers[KEY_HEADER] = self._key
  end
  request.secrets = request.secrets or {}
  for _, value in pairs(endpoint.headers or {}) do request.secrets[#request.secrets + 1] = value end
  return self:_complete(request)
end

-- A plain call to an endpoint.
function Client:_execd(endpoint, request)
  request.headers = request.headers or {}
  request.timeout = request.timeout or self._clocks.timeout
  return call.run(self, self:_endpoint(endpoint, request))
end

-- A plain call to the lifecycle API.
function Client:_call(request)
  request.headers = request.headers or {}
  return call.run(self, self:_lifecycle(request))
end

for _, part in ipairs {
  "lifecycle.sandbox_routes", "lifecycle.snapshot_routes", "lifecycle.server_pool_routes", "lifecycle.diagnostics_routes",
  "execution.metrics_routes", "execution.session_routes", "execution.code_routes", "execution.isolated_routes",
  "egress.egress_routes", "egress.vault_routes",
} do
  for name, method in pairs(require("opensandbox." .. part)) do Client[name] = method end
end

return { new = new, Client = Client }

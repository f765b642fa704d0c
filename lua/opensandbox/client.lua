--- The client: its options, its methods from other files, the event loop's view of it, and how it closes.

local class = require "opensandbox.base.class"
local deadlines = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local headers = require "opensandbox.http.headers"
local http_client = require "opensandbox.http.http_client"
local lazy = require "opensandbox.base.lazy"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local owned_resource = require "opensandbox.http.owned_resource"
local retry = require "opensandbox.http.retry"
local scheduler = require "opensandbox.loop.scheduler"
local task_group = require "opensandbox.loop.task_group"
local url = require "opensandbox.base.url"
local version = require "opensandbox.version"

local parts = lazy.modules { sandbox_state = "opensandbox.lifecycle.sandbox_state" } -- for errors only

--- The client of one server. It makes `Sandbox` objects, and has a method for each route of the server and of the services in a sandbox.
--- ```lua
--- local client = opensandbox.new("https://sandboxes.example.com", key)
--- print(client.url, client.use_server_proxy, client.max_output)
--- ```
---@class (partial) opensandbox.Client
---@field url string base URL of the lifecycle API, without credentials
---@field use_server_proxy boolean requests to sandboxes pass through the server
---@field max_output integer bytes of a command's output kept in memory, for each stream
---@field identity_endpoint fun(self: opensandbox.Client, execd: opensandbox.Endpoint|string, uid: integer, gid: integer): opensandbox.Endpoint
---@field pool fun(self: opensandbox.Client, opts: opensandbox.PoolOpts): opensandbox.Pool
---@field http opensandbox.HttpClient internal: sends requests
---@field resources opensandbox.OwnedResources internal: the objects that the client must delete
---@field cleanup opensandbox.TaskGroup internal: background tasks that closing the client waits for
---@field op? string internal: the method that the user called, see Client:for_op
local Client = {}
Client.__name = "opensandbox.Client"

-- The methods that come from other files. A file is loaded when one of its methods is first used.
local METHODS = {
  ["opensandbox.sandboxes"] = { "create", "connect", "sandboxes", "kill_all" },
  ["opensandbox.sandbox_pool"] = { pool = "new" },

  ["opensandbox.lifecycle.sandbox_routes"] = {
    "create_sandbox", "get_sandbox", "list_sandboxes", "delete_sandbox", "wait_ready", "pause_sandbox", "resume_sandbox",
    "renew_sandbox", "patch_metadata", "get_endpoint", "discover_execd", "discover_egress", "health", "get_version",
    "record_create_event",
  },
  ["opensandbox.lifecycle.snapshot_routes"] = {
    "create_snapshot", "get_snapshot", "list_snapshots", "delete_snapshot", "wait_snapshot",
  },
  ["opensandbox.lifecycle.network_policy_routes"] = {
    "get_network_policy", "patch_network_policy", "delete_network_rules", "replace_network_policy",
  },
  ["opensandbox.lifecycle.template_routes"] = {
    "create_template", "get_template", "list_templates", "delete_template", "wait_template",
  },
  ["opensandbox.lifecycle.server_pool_routes"] = { "create_pool", "get_pool", "list_pools", "update_pool", "delete_pool" },
  ["opensandbox.lifecycle.diagnostics_routes"] = { "get_diagnostic_logs", "get_diagnostic_events" },

  ["opensandbox.execution.command_routes"] = { "run_command", "get_command_status", "get_command_logs", "interrupt_command" },
  ["opensandbox.execution.metrics_routes"] = { "ping", "get_metrics", "watch_metrics" },
  ["opensandbox.execution.pty_routes"] = {
    "create_pty_session", "get_pty_session", "delete_pty_session", "delete_pty_session_request", "connect_pty_session",
  },
  ["opensandbox.execution.session_routes"] = { "create_session", "run_in_session", "delete_session", "delete_session_request" },
  ["opensandbox.execution.code_routes"] = {
    "create_code_context", "get_code_context", "list_code_contexts", "delete_code_context", "delete_code_contexts",
    "delete_code_context_request", "run_code", "interrupt_code",
  },
  ["opensandbox.execution.isolated_routes"] = {
    "create_isolated_session", "get_isolated_session", "list_isolated_sessions", "delete_isolated_session",
    "delete_isolated_session_request", "get_isolation_capabilities", "isolated_endpoint",
  },
  ["opensandbox.execution.isolated_run_routes"] = {
    "run_isolated", "run_isolated_helper", "start_isolated", "get_isolated_run", "get_isolated_run_logs",
  },

  ["opensandbox.files.file_routes"] = {
    "list_directory", "search_files", "file_info", "make_directories", "move_files", "set_permissions", "replace_in_files",
    "delete_files", "delete_directories",
  },
  ["opensandbox.files.identity"] = { "identity_endpoint" },
  ["opensandbox.files.download_routes"] = { "download_file", "save_file" },
  ["opensandbox.files.upload_routes"] = { "upload_files" },

  ["opensandbox.egress.egress_routes"] = {
    "get_egress_policy", "patch_egress_policy", "replace_egress_policy", "delete_egress_rules",
  },
  ["opensandbox.egress.vault_routes"] = {
    "create_credential_vault", "get_credential_vault", "patch_credential_vault", "delete_credential_vault",
    "list_vault_credentials", "get_vault_credential", "list_vault_bindings", "get_vault_binding",
  },
}

--- The environment variables that the library reads. An empty one counts as not set. An argument or an option of the same purpose takes
--- precedence.
--- ```lua
--- -- OPEN_SANDBOX_DOMAIN=sandboxes.example.com OPEN_SANDBOX_PROTOCOL=https OPEN_SANDBOX_API_KEY=... lua5.4 first.lua
--- local client = opensandbox.new()
--- ```
---@alias opensandbox.EnvironmentVariable
---| "OPEN_SANDBOX_DOMAIN" # URL or host of the server, where `opensandbox.new` has no first argument; default: http://localhost:8080
---| "OPEN_SANDBOX_PROTOCOL" # `http` (default) or `https`, for a domain without a scheme
---| "OPEN_SANDBOX_API_KEY" # the API key, where `opensandbox.new` has no second argument
---| "http_proxy" # URL of the proxy for http:// URLs, where there is no option `proxy`; not in upper case, because CGI programs get that from requests
---| "https_proxy" # the same for https:// URLs
---| "HTTPS_PROXY" # the same as https_proxy
---| "all_proxy" # URL of the proxy for all URLs
---| "ALL_PROXY" # the same as all_proxy
---| "no_proxy" # hosts that are reached without a proxy, separated by commas; `*` for all
---| "NO_PROXY" # the same as no_proxy
---| "CURL_CA_BUNDLE" # PEM file with the certificates of authorities, where there is no option `tls.ca_file`
---| "SSL_CERT_FILE" # the same, after CURL_CA_BUNDLE
---| "SSL_CERT_DIR" # directory with certificates of authorities, where there is no option `tls.ca_directory`
---| "TMPDIR" # directory of temporary files of this machine; default: /tmp

local CLOSE_TIMEOUT = 2     -- seconds, the last DELETEs included
local POLL_INTERVAL = 0.005 -- seconds between steps if there is no descriptor to watch

local DEFAULTS = {
  timeout = 30,               -- seconds for a whole plain call
  create_timeout = 300,       -- seconds: creating may pull an image
  connect_timeout = 10,       -- seconds
  idle_timeout = 15,          -- seconds without a byte on an event stream: execd pings every 3
  transfer_idle_timeout = 60, -- seconds without a byte on an upload or a download
}
local DEFAULT_MAX_OUTPUT = 16 * 1024 * 1024 -- bytes

--- The options of `opensandbox.new`. Times are seconds, or texts like "90s".
--- ```lua
--- local client = opensandbox.new(url, key, {
---   timeout = 60, create_timeout = "10m", connect_timeout = 5, idle_timeout = 30, transfer_idle_timeout = 120,
---   max_output = 1024 * 1024, headers = { ["X-Team"] = "blue" }, user_agent = "grader/1.0", use_server_proxy = true,
---   retry = { max_attempts = 5 }, tls = { ca_file = "ca.pem" }, proxy = "http://proxy.example:3128", loop = "plain",
---   key_header = "X-Api-Key", proxy_origins = { "https://proxy.example:8443" },
---   endpoint_hosts = { ["host.docker.internal"] = "localhost" },
---   on_request = function(request) print(request.op, request.method, request.url) end,
---   on_retry = function(retry) print(retry.attempt, retry.delay, retry.error) end,
---   on_response = function(response) print(response.status, response.duration, response.request_id) end,
--- })
--- ```
---@class opensandbox.ClientOpts
---@field timeout? opensandbox.Duration for a whole plain call, default 30
---@field create_timeout? opensandbox.Duration for a create, which may pull an image, default 300
---@field connect_timeout? opensandbox.Duration default 10
---@field idle_timeout? opensandbox.Duration without a byte on an event stream, default 15
---@field transfer_idle_timeout? opensandbox.Duration without a byte on an upload or a download, default 60
---@field max_output? integer bytes of a command's output that are kept in memory, for each stream, default 16 MiB
---@field headers? table<string, string> sent with every request
---@field user_agent? string default: "opensandbox-lua/" and the version
---@field use_server_proxy? boolean reach sandboxes through the server
---@field key_header? string name of the header that carries the API key, default "OPEN-SANDBOX-API-KEY"
---@field proxy_origins? string[] further origins whose server proxies receive the key, as "https://proxy.example:8443"; the server's own always does
---@field endpoint_hosts? table<string, string> hosts to use in the place of those in the server's endpoints, for example { ["host.docker.internal"] = "localhost" }
---@field retry? opensandbox.RetryOpts|false false: no retries
---@field tls? opensandbox.TlsOpts default: the server's certificate is verified with the system's authorities
---@field proxy? string URL; "" for none; default: the environment's
---@field on_request? fun(request: opensandbox.RequestFacts) called before each request, whose attempts count as one; may add to its `headers`
---@field on_response? fun(response: table) called after the head of each response: op, method, url, sandbox_id, destination, status, duration (seconds), request_id
---@field on_retry? fun(retry: opensandbox.RetryFacts) called before a call is tried again
---@field loop? string|table the event loop of this Lua state: "plain", "uv", "ngx", "cqueues", "socket", "copas" or an adapter; default: detected

--- The table that `on_request` receives.
--- ```lua
--- local client = opensandbox.new(url, key, { on_request = function(request)
---   print(request.op, request.method, request.url, request.sandbox_id, request.destination)
---   request.headers.traceparent = traceparent
--- end })
--- ```
---@class opensandbox.RequestFacts
---@field op string the method that the user called
---@field method string the HTTP method
---@field url string without credentials and query
---@field sandbox_id? string the sandbox that the request is about
---@field destination string "server", or "sandbox" for a request to a sandbox's endpoint, which the sandbox can read
---@field headers table<string, string> empty: headers to add, for example traceparent; those that the library sets itself win

--- The table that `on_retry` receives.
--- ```lua
--- local client = opensandbox.new(url, key, { on_retry = function(retry) print(retry.attempt, retry.delay, retry.error) end })
--- ```
---@class opensandbox.RetryFacts: opensandbox.RequestFacts
---@field attempt integer the number of attempts that were made
---@field delay number seconds until the next one
---@field error opensandbox.Error of the last attempt

--- How the server's certificate is verified, and which one the client shows.
--- ```lua
--- local client = opensandbox.new(url, key, { tls = {
---   verify = true, ca_file = "ca.pem", ca_directory = "/etc/ssl/certs",
---   certificate = "client.pem", key = "client.key", key_password = password,
--- } })
--- ```
---@class opensandbox.TlsOpts
---@field verify? boolean false: any certificate is accepted
---@field ca_file? string PEM file with the certificates of authorities
---@field ca_directory? string directory with certificates of authorities, named by their hashes
---@field certificate? string PEM file with the client's certificate
---@field key? string PEM file with its key
---@field key_password? string of the key, if it is encrypted

local option_types = {
  timeout = "seconds", create_timeout = "seconds", connect_timeout = "seconds", idle_timeout = "seconds",
  transfer_idle_timeout = "seconds", max_output = "natural", headers = "string map", user_agent = "nonempty string",
  use_server_proxy = "boolean", retry = "any", loop = "any",
  tls = "table", proxy = "string", on_request = "function", on_response = "function", on_retry = "function",
  key_header = "nonempty string", proxy_origins = "string list", endpoint_hosts = "string map",
}
local tls_types = {
  verify = "boolean", ca_file = "nonempty string", ca_directory = "nonempty string", certificate = "nonempty string",
  key = "nonempty string", key_password = "string",
}

local function transport_options(given)
  local tls = options.check("new", given.tls, tls_types)
  return {
    insecure = tls.verify == false, ca_file = tls.ca_file, ca_directory = tls.ca_directory, certificate = tls.certificate,
    key = tls.key, key_password = tls.key_password, proxy = given.proxy,
  }
end

local function retry_policy(given)
  if given == nil or given == false then return retry.policy(given) end
  options.argument("new", "option 'retry'", given, "table")
  return retry.policy(options.check("new", given, retry.option_types))
end

-- Checks the options about the receivers of the key, and about its header. Returns the parsed origins.
local function key_origins(op, opts)
  if opts.key_header and not headers.is_name(opts.key_header) then
    options.raise(op, ("option 'key_header': %q is not a header name"):format(opts.key_header))
  end
  local origins = {}
  for i, text in ipairs(opts.proxy_origins or {}) do
    local parsed, problem = url.parse((text:gsub("/$", "")))
    if parsed and (parsed.userinfo or parsed.path ~= "") then problem = "it is more than a scheme, a host and a port" end
    if problem then options.raise(op, ("option 'proxy_origins': item %d is not an origin: %s"):format(i, problem)) end
    origins[i] = parsed
  end
  return origins
end

-- Checks the hosts and the replacements for them. Returns them with the hosts in lower case.
local function host_replacements(op, given)
  if not given then return nil end
  local by_host = {}
  for from, to in each(given) do
    for _, host in ipairs { from, to } do
      if not url.is_host(host) then
        options.raise(op, ("option 'endpoint_hosts': %q is not a host, which has no scheme and no port"):format(host))
      end
    end
    by_host[from:lower()] = to
  end
  return by_host
end

-- Returns the base URL of the argument, or else of the environment, and its parts.
local function base_url(op, given)
  local base = given or os.getenv("OPEN_SANDBOX_DOMAIN")
  if not base or base == "" then base = "http://localhost:8080" end
  local protocol = os.getenv("OPEN_SANDBOX_PROTOCOL")
  local full, parsed = url.normalize_base(base, protocol and protocol ~= "" and protocol or "http")
  if full then return full, parsed end
  local where = given == nil and " (OPEN_SANDBOX_DOMAIN)" or ""
  -- An invalid URL can contain a password anywhere before the last @.
  options.raise(op, ("the url %q%s is not valid: %s"):format(url.redacted((base:gsub("//.*@", "//"))), where, parsed))
end

local function api_key_of(op, given)
  local key = given
  if key == nil then key = os.getenv("OPEN_SANDBOX_API_KEY") end
  if key == "" then key = nil end
  if key and key:find("[%c ]") then
    options.raise(op, "the API key holds white space or control characters: check how it was read")
  end
  return key
end

-- Checks an argument of `new` before the options. A table is probably the options, so the error names their place.
local function check_text(op, what, value, kind)
  if type(value) == "table" then
    options.raise(op, what .. " must be a string, not a table: the options are the third argument, as in new(url, key, options)")
  end
  if value ~= nil then options.argument(op, what, value, kind) end
end

--- Makes a client. Nothing is sent yet.
--- ```lua
--- local client = opensandbox.new("https://sandboxes.example.com", key, { use_server_proxy = true })
--- ```
---@param base? string URL of the lifecycle API; default OPEN_SANDBOX_DOMAIN (with OPEN_SANDBOX_PROTOCOL), else http://localhost:8080. "/v1" is appended unless the path ends in it
---@param api_key? string default OPEN_SANDBOX_API_KEY
---@param opts? opensandbox.ClientOpts
---@return opensandbox.Client
local function new(base, api_key, opts)
  local op = "new"
  check_text(op, "the url", base, "nonempty string")
  check_text(op, "the API key", api_key, "string")
  opts = options.check(op, opts, option_types)
  local full, parsed = base_url(op, base)
  local key = api_key_of(op, api_key)
  local own_headers = headers.merge({ ["User-Agent"] = opts.user_agent or ("opensandbox-lua/" .. version) }, opts.headers)
  local problem = headers.validate_all(own_headers)
  if problem then options.raise(op, problem) end
  local timeouts = {}
  for name, value in each(DEFAULTS) do timeouts[name] = opts[name] or value end
  local retries, to_transport = retry_policy(opts.retry), transport_options(opts)
  local origins, hosts = key_origins(op, opts), host_replacements(op, opts.endpoint_hosts)
  if opts.loop ~= nil then loop.use(op, opts.loop) end
  local self = setmetatable({
    url = url.redacted(full),
    use_server_proxy = opts.use_server_proxy or false,
    max_output = opts.max_output or DEFAULT_MAX_OUTPUT,
    cleanup = task_group.new(),
    _close_listeners = setmetatable({}, { __mode = "k" }),
  }, Client)
  local weak = setmetatable({ client = self }, { __mode = "v" })
  self.http = http_client.new {
    base_url = full, parsed_url = parsed, key = key, headers = own_headers, user_headers = opts.headers, timeouts = timeouts,
    retry = retries, transport_options = to_transport, key_header = opts.key_header, proxy_origins = origins,
    endpoint_hosts = hosts, on_request = opts.on_request, on_response = opts.on_response, on_retry = opts.on_retry,
    on_exit = function()
      if weak.client then weak.client:close() end
    end,
    explain_error = function(failed_op, err, shielded, seconds)
      return weak.client and parts.sandbox_state.explain(weak.client, failed_op, err, shielded, seconds) or err
    end,
  }
  self.resources = owned_resource.set(self.http, self.cleanup)
  return self
end

--- Closes the client. Deletes the sandboxes, sessions and contexts that it created and that were neither closed nor detached, including
--- those whose create is under way, and waits at most 2 seconds for that. Aborts all other requests. A forked child deletes nothing that
--- its parent created.
--- ```lua
--- client:close()
--- ```
function Client:close()
  local deadline = deadlines.new(CLOSE_TIMEOUT - owned_resource.LAST_DELETE_TIMEOUT)
  self.http:begin_close()
  local groups = {}
  for listener in each(self._close_listeners) do groups[#groups + 1] = listener:on_client_close() end
  self.resources:close()
  groups[#groups + 1] = self.cleanup
  local all_ended = true
  for _, group in ipairs(groups) do all_ended = group:join(deadline) and all_ended end
  local is_pending = not all_ended or self.resources:is_pending()
  if is_pending and deadline:has_passed() then
    self.resources:repeat_requests(deadline)
    self.cleanup:join(deadlines.new(owned_resource.LAST_DELETE_TIMEOUT))
  elseif is_pending then -- this code cannot wait in the loop, or a task has failed for want of memory
    self.resources:close_blocking(deadline)
  end
  self.http:close(deadline:remaining())
  self.resources:abandon()
end

Client.__close = Client.close

--- Internal: adds a listener, whose `on_client_close()` is called when the client closes. It may return a task group to wait for. The listener is
--- held weakly.
function Client:add_close_listener(listener)
  self._close_listeners[listener] = true
end

--- Internal: returns a view of the client whose errors name the method that the user called. Methods of a view never change the client's fields.
---@param op string for example "files:read"
---@return opensandbox.Client
function Client:for_op(op)
  return setmetatable({ op = op }, { __index = self })
end

--- Internal: returns a view of the client whose calls all end when one time limit has passed.
---@param limit opensandbox.Deadline
---@return opensandbox.Client
function Client:within(limit)
  if not limit.seconds then return self end
  return setmetatable({ http = self.http:within(limit) }, { __index = self })
end

-- An event loop watches `pollfd` for reading, wakes up after `timeout`, then calls `step`.

--- Returns the descriptor to watch for reading.
--- ```lua
--- -- With another event loop: watch the descriptor, wake up after the timeout, then step.
--- local fd, seconds = client:pollfd(), client:timeout()
--- client:step(0)
--- ```
---@return integer? fd nil on platforms without one
function Client:pollfd() return self.http.transport.multi:pollfd() end

--- Returns "r", the event to watch the descriptor for.
--- ```lua
--- assert(client:events() == "r")
--- ```
---@return string
function Client:events() return self.http.transport.multi:events() end

--- Returns the time after which `step` must be called even if the descriptor has no event.
--- ```lua
--- local seconds = client:timeout()
--- ```
---@return number? seconds nil: no limit
function Client:timeout()
  local multi = self.http.transport.multi
  local seconds = scheduler:timeout()
  local watchable = multi:inflight() == 0 or multi:pollfd() ~= nil
  if watchable then return seconds end
  return math.min(seconds or POLL_INTERVAL, POLL_INTERVAL)
end

--- Moves the data of all clients and resumes the tasks that can continue.
--- ```lua
--- while client:step(0.1) > 0 do print("requests are running") end
--- ```
---@param seconds? number how long to wait at most, default 0
---@return integer running the number of this client's requests that run
function Client:step(seconds)
  if seconds ~= nil and type(seconds) ~= "number" then seconds = options.argument("step", "the time", seconds, "seconds or 0") end
  scheduler:step(seconds)
  return (self.http.transport.multi:inflight())
end

--- Returns the descriptor for luasocket's select. A program with several clients selects all of them, because each has its own.
--- ```lua
--- socket.select({ client }, nil, client:timeout()) -- luasocket calls client:getfd()
--- ```
function Client:getfd() return self.http.transport.multi:getfd() end

--- Returns whether `step` is due now, for luasocket's select.
--- ```lua
--- if client:dirty() then client:step(0) end
--- ```
---@return boolean
function Client:dirty() return scheduler:dirty() end

class.define(Client, { name = "client", methods = METHODS })

return { new = new }

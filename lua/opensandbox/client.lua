--- The client: its options, its methods from other files, the event loop's view of it, and how it closes.

local class = require "opensandbox.base.class"
local deadlines = require "opensandbox.loop.deadline"
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

---@class opensandbox.Client
---@field url string base URL of the lifecycle API, without credentials
---@field use_server_proxy boolean
---@field max_output integer bytes of a command's output kept in memory, for each stream
---@field http opensandbox.HttpClient internal: sends requests
---@field resources opensandbox.OwnedResources internal: what the client must delete
---@field cleanup opensandbox.TaskGroup internal: background tasks that closing the client waits for
---@field op? string internal: the method that the user called, see Client:for_op
local Client = {}
Client.__name = "opensandbox.Client"

-- The methods that come from other files. A file is loaded when one of its methods is first used.
local METHODS = {
  ["opensandbox.sandbox"] = { "create", "connect", "sandboxes", "kill_all" },
  ["opensandbox.sandbox_pool"] = { pool = "new" },

  ["opensandbox.lifecycle.sandbox_routes"] = {
    "create_sandbox", "get_sandbox", "list_sandboxes", "delete_sandbox", "wait_ready", "pause_sandbox", "resume_sandbox",
    "renew_sandbox", "patch_metadata", "get_endpoint", "discover_execd", "discover_egress", "health", "get_version",
    "record_create_event",
  },
  ["opensandbox.lifecycle.snapshot_routes"] = {
    "create_snapshot", "get_snapshot", "list_snapshots", "delete_snapshot", "wait_snapshot",
  },
  ["opensandbox.lifecycle.server_pool_routes"] = { "create_pool", "get_pool", "list_pools", "update_pool", "delete_pool" },
  ["opensandbox.lifecycle.diagnostics_routes"] = { "get_diagnostic_logs", "get_diagnostic_events" },

  ["opensandbox.execution.command_routes"] = { "run_command", "get_command_status", "get_command_logs", "interrupt_command" },
  ["opensandbox.execution.metrics_routes"] = { "ping", "get_metrics", "watch_metrics" },
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

local CLOSE_TIMEOUT = 2     -- seconds
local POLL_INTERVAL = 0.005 -- seconds between steps if there is no descriptor to watch

local DEFAULTS = {
  timeout = 30,               -- seconds for a whole plain call
  create_timeout = 300,       -- seconds: creating may pull an image
  connect_timeout = 10,       -- seconds
  idle_timeout = 15,          -- seconds without a byte on an event stream: execd pings every 3
  transfer_idle_timeout = 60, -- seconds without a byte on an upload or a download
}
local DEFAULT_MAX_OUTPUT = 16 * 1024 * 1024 -- bytes

---@class opensandbox.ClientOpts times are seconds, or texts like "90s"
---@field timeout? number for a whole plain call, default 30
---@field create_timeout? number for a create, which may pull an image, default 300
---@field connect_timeout? number default 10
---@field idle_timeout? number without a byte on an event stream, default 15
---@field transfer_idle_timeout? number without a byte on an upload or a download, default 60
---@field max_output? integer bytes of a command's output that are kept in memory, for each stream, default 16 MiB
---@field headers? table<string, string> sent with every request
---@field user_agent? string
---@field use_server_proxy? boolean reach sandboxes through the server
---@field retry? opensandbox.RetryOpts|false false: no retries
---@field tls? opensandbox.TlsOpts
---@field proxy? string URL; "" for none; default: the environment's
---@field on_request? fun(request: table) called before each request: op, method, url, sandbox_id
---@field on_response? fun(response: table) called after the head of each response: those, and status, duration, request_id
---@field loop? string|table the event loop of this Lua state: "plain", "uv", "ngx", "cqueues", "socket", "copas" or an adapter; default: detected

---@class opensandbox.TlsOpts
---@field verify? boolean false: any certificate is accepted
---@field ca_file? string PEM file with the certificates of authorities
---@field ca_directory? string
---@field certificate? string PEM file with the client's certificate
---@field key? string PEM file with its key
---@field key_password? string

local option_types = {
  timeout = "seconds", create_timeout = "seconds", connect_timeout = "seconds", idle_timeout = "seconds",
  transfer_idle_timeout = "seconds", max_output = "natural", headers = "string map", user_agent = "nonempty string",
  use_server_proxy = "boolean", retry = "any", loop = "any",
  tls = "table", proxy = "string", on_request = "function", on_response = "function",
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

--- Makes a client. Nothing is sent yet.
---@param base? string URL of the lifecycle API; default OPEN_SANDBOX_DOMAIN (with OPEN_SANDBOX_PROTOCOL), else http://localhost:8080. "/v1" is appended unless the path ends in it
---@param api_key? string default OPEN_SANDBOX_API_KEY
---@param opts? opensandbox.ClientOpts
---@return opensandbox.Client
local function new(base, api_key, opts)
  local op = "new"
  if base ~= nil then options.argument(op, "the url", base, "nonempty string") end
  if api_key ~= nil then options.argument(op, "the API key", api_key, "string") end
  opts = options.check(op, opts, option_types)
  local full, parsed = base_url(op, base)
  local key = api_key_of(op, api_key)
  local own_headers = headers.merge({ ["User-Agent"] = opts.user_agent or ("opensandbox-lua/" .. version) }, opts.headers)
  local problem = headers.validate_all(own_headers)
  if problem then options.raise(op, problem) end
  local timeouts = {}
  for name, value in pairs(DEFAULTS) do timeouts[name] = opts[name] or value end
  local retries, to_transport = retry_policy(opts.retry), transport_options(opts)
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
    retry = retries, transport_options = to_transport, on_request = opts.on_request, on_response = opts.on_response,
    on_exit = function()
      if weak.client then weak.client:close() end
    end,
    explain_error = function(failed_op, err, shielded)
      return weak.client and parts.sandbox_state.explain(weak.client, failed_op, err, shielded) or err
    end,
  }
  self.resources = owned_resource.set(self.http, self.cleanup)
  return self
end

--- Closes the client. Deletes the sandboxes, sessions and contexts that it created and that were neither closed nor detached, including
--- those whose create is under way, and waits at most 2 seconds for that. Aborts all other requests. A forked child deletes nothing that
--- its parent created.
function Client:close()
  local deadline = deadlines.new(CLOSE_TIMEOUT)
  self.http:begin_close()
  local groups = {}
  for listener in pairs(self._close_listeners) do groups[#groups + 1] = listener:on_client_close() end
  self.resources:close()
  groups[#groups + 1] = self.cleanup
  local all_ended = true
  for _, group in ipairs(groups) do all_ended = group:join(deadline) and all_ended end
  -- The time is over, or this code cannot wait in the loop.
  if not all_ended then self.resources:close_blocking(deadline) end
  self.http:close(deadline:remaining())
  self.resources:abandon()
end

Client.__close = Client.close

--- Adds a listener, whose `on_client_close()` is called when the client closes. It may return a task group to wait for. The listener is
--- held weakly.
function Client:add_close_listener(listener)
  self._close_listeners[listener] = true
end

--- Returns a view of the client whose errors name the method that the user called. Methods of a view never change the client's fields.
---@param op string for example "files:read"
---@return opensandbox.Client
function Client:for_op(op)
  return setmetatable({ op = op }, { __index = self })
end

-- An event loop watches `pollfd` for reading, wakes up after `timeout`, then calls `step`.

--- Returns the descriptor to watch for reading.
---@return integer? fd nil on platforms without one
function Client:pollfd() return self.http.transport.multi:pollfd() end

--- Returns "r", the event to watch the descriptor for.
---@return string
function Client:events() return self.http.transport.multi:events() end

--- Returns the time after which `step` must be called even if the descriptor has no event.
---@return number? seconds nil: no limit
function Client:timeout()
  local multi = self.http.transport.multi
  local seconds = scheduler:timeout()
  local watchable = multi:inflight() == 0 or multi:pollfd() ~= nil
  if watchable then return seconds end
  return math.min(seconds or POLL_INTERVAL, POLL_INTERVAL)
end

--- Moves the data of all clients and resumes the tasks that can continue.
---@param seconds? number how long to wait at most, default 0
---@return integer running the number of this client's requests that run
function Client:step(seconds)
  scheduler:step(seconds)
  return (self.http.transport.multi:inflight())
end

--- Returns the descriptor for luasocket's select.
function Client:getfd() return self.http.transport.multi:getfd() end

--- Returns whether `step` is due now, for luasocket's select.
---@return boolean
function Client:dirty() return scheduler:dirty() end

class.define(Client, { name = "client", methods = METHODS })

return { new = new }

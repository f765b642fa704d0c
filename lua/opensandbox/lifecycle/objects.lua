--- The lifecycle API's objects: camelCase and RFC 3339 on the wire, snake_case and Unix seconds here.

local headers = require "opensandbox.http.headers"
local json = require "opensandbox.base.json"
local network_policy = require "opensandbox.lifecycle.network_policy"
local ports = require "opensandbox.lifecycle.ports"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local wire = {}

--- The label that marks who sent a create, so that one whose answer was lost can be found. Not shown to users.
wire.CREATE_LABEL = "opensandbox-lua-create"

wire.EXECD_PORT = ports.EXECD
wire.EGRESS_PORT = ports.EGRESS

---@class opensandbox.SandboxOpts
---@field image? string|table name of an image, or { uri =, auth = { username =, password = } }; needed unless there is a snapshot_id or template_id
---@field image_auth? table username, password: for an image given by name
---@field snapshot_id? string
---@field template_id? string
---@field entrypoint? string[] default: one that only waits
---@field env? table<string, string>
---@field metadata? table<string, string> Kubernetes label grammar: values of at most 63 letters, digits, `-`, `_`, `.`
---@field timeout? number|false seconds until it ends by itself: at least 60, default 600; false: never
---@field resource_limits? table<string, string> default cpu = "1", memory = "2Gi"
---@field resource_requests? table<string, string> Kubernetes only; servers before 0.2.1 take the limits for them
---@field network_policy? opensandbox.NetworkPolicy what can be reached from it, for example opensandbox.egress.only("pypi", "my.host.example")
---@field platform? table os, arch
---@field volumes? table[] as the API describes them, keys in snake_case
---@field secure_access? boolean
---@field credential_proxy? boolean|table true: credentials can be put into requests on their way out, see vault.lua; needs a network_policy
---@field lifecycle? table as the API describes it, keys in snake_case; an error on servers before 0.2.3, which would pass over it
---@field extensions? table<string, string>

---@alias opensandbox.SandboxResponse opensandbox.SandboxInfo

---@class opensandbox.SandboxInfo
---@field id string
---@field state string `Pending`, `Running`, `Paused`, `Failed`, `Terminated` ...: an open set
---@field reason? string why it is in that state, for programs
---@field message? string the same, for people
---@field last_transition_at? number Unix seconds
---@field created_at? number Unix seconds
---@field expires_at? number Unix seconds; nil: it does not expire
---@field metadata table<string, string>
---@field image? string
---@field snapshot_id? string
---@field entrypoint? string[]
---@field platform? table os, arch
---@field extensions? table<string, string>
---@field raw table the answer as it came

---@return opensandbox.SandboxInfo? info nil when the answer is not a sandbox
---@return string? missing
function wire.sandbox_info(answer)
  if type(answer) ~= "table" or type(answer.id) ~= "string" or answer.id == "" then return nil, "sandbox" end
  local status = type(answer.status) == "table" and answer.status or {}
  local metadata = {}
  for name, value in pairs(type(answer.metadata) == "table" and answer.metadata or {}) do
    if name ~= wire.CREATE_LABEL then metadata[name] = value end
  end
  return {
    id = answer.id,
    state = type(status.state) == "string" and status.state or "Unknown",
    reason = status.reason,
    message = status.message,
    last_transition_at = time.parse(status.lastTransitionAt),
    created_at = time.parse(answer.createdAt),
    expires_at = time.parse(answer.expiresAt),
    metadata = metadata,
    image = type(answer.image) == "table" and answer.image.uri or nil,
    snapshot_id = answer.snapshotId,
    entrypoint = answer.entrypoint,
    platform = answer.platform,
    extensions = answer.extensions,
    raw = answer,
  }
end

--- An endpoint: url, host, port, headers; nil when the answer has none that can be used.
function wire.endpoint(answer, scheme)
  local base = type(answer.endpoint) == "string" and url.endpoint(answer.endpoint, scheme)
  local parsed = base and url.parse(base)
  if not parsed then return nil end
  local to_send = type(answer.headers) == "table" and answer.headers or {}
  if headers.problem_in(to_send) then return nil end
  return { url = base, host = parsed.host, port = parsed.port, headers = to_send }
end

-- snake_case to camelCase, for the keys of a table and of the tables in it.
local function camel(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in pairs(value) do
    if type(key) == "string" then key = key:gsub("_(%l)", string.upper) end
    copy[key] = camel(item)
  end
  return copy
end

--- What create_sandbox takes, by name, with the tests of options.lua.
wire.create_options = {
  image = "any", image_auth = "table", snapshot_id = "text", entrypoint = "list", env = "variables", metadata = "strings",
  timeout = "seconds or false", resource_limits = "strings", resource_requests = "strings", network_policy = "table",
  platform = "table", volumes = "table", secure_access = "boolean", credential_proxy = "any", lifecycle = "table",
  template_id = "text", extensions = "strings",
}

wire.DEFAULT_TIMEOUT = 600 -- seconds, as in the official clients: a sandbox that nobody ends, ends
local DEFAULT_ENTRYPOINT = { "tail", "-f", "/dev/null" }
local DEFAULT_LIMITS = { cpu = "1", memory = "2Gi" }

--- The body of a create.
---@param opts table options of create_sandbox, checked
---@param label string value of CREATE_LABEL
function wire.create_request(opts, label)
  local metadata = { [wire.CREATE_LABEL] = label }
  for name, value in pairs(opts.metadata or {}) do metadata[name] = value end
  local image = opts.image
  if type(image) == "string" then image = { uri = image, auth = opts.image_auth } end
  local timeout = opts.timeout
  if timeout == nil then timeout = wire.DEFAULT_TIMEOUT end
  local credential_proxy = opts.credential_proxy
  if credential_proxy == true then credential_proxy = { enabled = true } end
  return {
    image = image,
    snapshotId = opts.snapshot_id,
    entrypoint = opts.entrypoint or DEFAULT_ENTRYPOINT,
    env = opts.env and next(opts.env) and opts.env or nil,
    metadata = metadata,
    timeout = timeout and math.ceil(timeout) or nil, -- whole seconds; absent: it never expires
    resourceLimits = opts.resource_limits or DEFAULT_LIMITS,
    resourceRequests = opts.resource_requests,
    networkPolicy = opts.network_policy and network_policy.to_wire(opts.network_policy),
    platform = opts.platform,
    volumes = opts.volumes and json.array(camel(opts.volumes)) or nil,
    secureAccess = opts.secure_access,
    credentialProxy = credential_proxy or nil,
    lifecycle = opts.lifecycle and camel(opts.lifecycle) or nil,
    templateId = opts.template_id,
    extensions = opts.extensions,
  }
end

return wire

--- The options of a create: their types, their checks, and the JSON body that they become.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local network_policy = require "opensandbox.lifecycle.network_policy"
local objects = require "opensandbox.lifecycle.objects"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

local create_options = {}

--- The options of a new sandbox.
--- ```lua
--- local sandbox = assert(client:create {
---   image = "python:3.12", image_auth = { username = "robot", password = password }, entrypoint = { "sleep", "infinity" },
---   env = { STAGE = "test" }, metadata = { job = "7" }, timeout = "30m",
---   resource_limits = { cpu = "2", memory = "4Gi" }, resource_requests = { cpu = "1" },
---   network_policy = opensandbox.egress.only("pypi"), credential_proxy = true, secure_access = true,
---   platform = { os = "linux", arch = "arm64" }, extensions = { ["bootstrap.execd.isolation"] = "enable" },
---   volumes = { { name = "data", pvc = { claim_name = "data" }, mount_path = "/data" } },
---   lifecycle = { pre_start = { command = { "make", "deps" }, timeout_seconds = 600 } },
--- })
--- local restored = assert(client:create { snapshot_id = snapshot.id })
--- local from_template = assert(client:create { template_id = "python" })
--- ```
---@class opensandbox.SandboxOpts
---@field image? string|opensandbox.ImageOpts one of image, snapshot_id and template_id is required
---@field image_auth? { username: string, password: string } for an image that is given by name
---@field snapshot_id? string restores a snapshot. The new sandbox also has the metadata that the original had at any time
---@field template_id? string starts from a template, which is Succeeded: see create_template. Only metadata, timeout, network_policy and extensions go with it
---@field entrypoint? string[] default: a command that only waits
---@field env? table<string, string> environment variables of its processes
---@field metadata? table<string, string> Kubernetes label grammar: values of at most 63 letters, digits, `-`, `_`, `.`
---@field timeout? opensandbox.Duration|false lifetime in seconds: at least 60, default 600; false: it never expires, which one from a template cannot
---@field resource_limits? table<string, string> default cpu = "1", memory = "2Gi"
---@field resource_requests? table<string, string> Kubernetes only; servers before 0.2.1 use the limits instead
---@field network_policy? opensandbox.NetworkPolicy the hosts that it can reach, for example opensandbox.egress.only("pypi", "my.host.example")
---@field platform? { os: string, arch: string } the platform that it needs
---@field volumes? table[] as the API describes them, keys in snake_case
---@field secure_access? boolean requests to its ports need a token, which endpoints then carry as a header
---@field credential_proxy? boolean|table true: the sidecar can add credentials to its requests, see sandbox.vault; needs a network_policy
---@field lifecycle? table as the API describes it, keys in snake_case; an error on servers before 0.2.3, which would ignore it
---@field extensions? table<string, string> further settings of the server, by name

--- An image of a registry that needs a login.
--- ```lua
--- local image = { uri = "registry.example.com/team/python:3.12", auth = { username = "robot", password = password } }
--- local sandbox = assert(client:create { image = image })
--- ```
---@class opensandbox.ImageOpts
---@field uri string the name of the image
---@field auth? { username: string, password: string } the login at the registry

--- The options by name, with their tests (see options.check).
create_options.types = {
  image = "any", image_auth = "table", snapshot_id = "nonempty string", entrypoint = "string list", env = "environment",
  metadata = "string map",
  timeout = "seconds or false", resource_limits = "string map", resource_requests = "string map", network_policy = "table",
  platform = "table", volumes = "table", secure_access = "boolean", credential_proxy = "any", lifecycle = "table",
  template_id = "nonempty string", extensions = "string map",
}

--- The options of `client:create` that are not sent, and that a pool has too.
create_options.object_types = {
  ready_timeout = "seconds", on_state = "function", ready = "function", keep_alive = "seconds or false",
}

local DEFAULT_LIFETIME = 600 -- seconds, as in the official clients, so that a forgotten sandbox ends
local DEFAULT_ENTRYPOINT = { "tail", "-f", "/dev/null" }
local DEFAULT_LIMITS = { cpu = "1", memory = "2Gi" }

-- The options that a template sets for all its sandboxes. The server refuses them beside a template_id.
local SET_BY_TEMPLATE = {
  "image_auth", "entrypoint", "env", "resource_limits", "resource_requests", "volumes", "platform", "credential_proxy",
  "secure_access", "lifecycle",
}

--- The lifetime that a create asks for.
---@param opts opensandbox.SandboxOpts
---@return number|false seconds false: it never expires
function create_options.lifetime(opts)
  if opts.timeout == nil then return DEFAULT_LIFETIME end
  return opts.timeout
end

-- Raises for options that do not go with a template.
local function check_template(op, opts)
  for _, name in ipairs(SET_BY_TEMPLATE) do
    if opts[name] ~= nil then
      options.raise(op, ("option '%s' does not go with option 'template_id', because the template sets it"):format(name))
    end
  end
  if opts.timeout == false then
    options.raise(op, "option 'timeout' must be a number of seconds, because a sandbox from a template always expires")
  end
end

--- Raises for options that every server would refuse.
---@param op string
---@param opts opensandbox.SandboxOpts
---@return opensandbox.SandboxOpts checked the options with the values to use
function create_options.check(op, opts)
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, create_options.types)
  local image = opts.image
  if image ~= nil and type(image) ~= "table" then options.argument(op, "option 'image'", image, "nonempty string") end
  local sources = (image ~= nil and 1 or 0) + (opts.snapshot_id and 1 or 0) + (opts.template_id and 1 or 0)
  local pool = opts.extensions and opts.extensions.poolRef
  if sources ~= 1 and not (pool and sources == 0) then
    options.raise(op, "one of the options 'image', 'snapshot_id' and 'template_id' is needed, for example image = \"python:3.12\"")
  end
  if opts.template_id then check_template(op, opts) end
  if opts.entrypoint and #opts.entrypoint == 0 then options.raise(op, "option 'entrypoint' must not be empty") end
  if opts.network_policy then network_policy.check(op, opts.network_policy) end
  local proxy = opts.credential_proxy
  if proxy ~= nil and type(proxy) ~= "table" then options.argument(op, "option 'credential_proxy'", proxy, "boolean") end
  local wants_proxy = proxy == true or (proxy and proxy.enabled)
  if wants_proxy and not opts.network_policy then
    options.raise(op, "option 'credential_proxy' needs option 'network_policy', which allows the hosts that receive credentials")
  end
  return opts
end

-- Converts the keys of a table, and of the tables in it, from snake_case to camelCase.
local function to_camel_case(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, item in each(value) do
    local name = type(key) == "string" and key:gsub("_(%l)", string.upper) or key
    copy[name] = to_camel_case(item)
  end
  return copy
end

--- The JSON body of a create.
---@param opts opensandbox.SandboxOpts checked
---@param label string value of CREATE_LABEL
---@return table
function create_options.body(opts, label)
  local metadata = tables.merge({ [objects.CREATE_LABEL] = label }, opts.metadata)
  local image = opts.image
  if type(image) == "string" then image = { uri = image, auth = opts.image_auth } end
  local lifetime = create_options.lifetime(opts)
  local credential_proxy = opts.credential_proxy
  if credential_proxy == true then credential_proxy = { enabled = true } end
  return {
    image = image,
    snapshotId = opts.snapshot_id,
    entrypoint = opts.entrypoint or (not opts.template_id and DEFAULT_ENTRYPOINT) or nil,
    env = opts.env and next(opts.env) and opts.env or nil,
    metadata = metadata,
    timeout = lifetime and math.ceil(lifetime) or nil, -- whole seconds; without it, the sandbox never expires
    resourceLimits = opts.resource_limits or (not opts.template_id and DEFAULT_LIMITS) or nil,
    resourceRequests = opts.resource_requests,
    networkPolicy = opts.network_policy and network_policy.to_wire(opts.network_policy),
    platform = opts.platform,
    volumes = opts.volumes and json.array(to_camel_case(opts.volumes)) or nil,
    secureAccess = opts.secure_access,
    credentialProxy = credential_proxy or nil,
    lifecycle = opts.lifecycle and to_camel_case(opts.lifecycle) or nil,
    templateId = opts.template_id,
    extensions = opts.extensions,
  }
end

return create_options

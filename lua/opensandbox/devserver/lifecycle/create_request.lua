--- The body of POST /sandboxes: its model, and the values that a server on one machine refuses.

local each = require "opensandbox.base.each"
local labels = require "opensandbox.devserver.lifecycle.labels"
local validation = require "opensandbox.devserver.http.validation"

local MAX_TIMEOUT = 86400 -- seconds
local DEFAULT_ENTRYPOINT = { "tail", "-f", "/dev/null" }

local check = validation.check
local REQUIRED = { required = true }

local hook = { { "command", check.list(check.string, 1), REQUIRED } }
local pre_start = { hook[1], { "timeoutSeconds", check.integer(1, 10800) } }
local periodic = {
  { "name", check.nonempty_string, REQUIRED }, { "schedule", check.nonempty_string, REQUIRED }, hook[1],
  { "timeoutSeconds", check.integer(1, 300) },
}

local check_body = check.model {
  { "image", check.model {
    { "uri", check.string, REQUIRED },
    { "auth", check.model { { "username", check.string, REQUIRED }, { "password", check.string, REQUIRED } } },
  } },
  { "snapshotId", check.string },
  { "templateId", check.string },
  { "platform", check.model { { "os", check.string, REQUIRED }, { "arch", check.string, REQUIRED } } },
  { "timeout", check.integer(60) },
  { "resourceLimits", check.string_map },
  { "resourceRequests", check.string_map },
  { "env", check.nullable_string_map },
  { "metadata", check.string_map },
  { "entrypoint", check.list(check.string, 1) },
  { "networkPolicy", check.model {
    { "defaultAction", check.string },
    { "egress", check.list(check.model {
      { "action", check.string, REQUIRED }, { "target", check.nonempty_string, REQUIRED },
    }) },
  } },
  { "credentialProxy", check.model { { "enabled", check.boolean } } },
  { "secureAccess", check.boolean, { not_null = true } },
  { "volumes", check.list(check.model {
    { "name", check.pattern("^[a-z0-9][a-z0-9-]*$", "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), REQUIRED },
    { "mountPath", check.pattern("^/", "^/.*"), REQUIRED },
    { "readOnly", check.boolean }, { "subPath", check.string },
    { "host", check.model { { "path", check.pattern("^/", "^(/|[A-Za-z]:[\\\\/])"), REQUIRED } } },
    { "pvc", check.map }, { "ossfs", check.map },
  }) },
  { "extensions", check.string_map },
  { "lifecycle", check.model({
    { "preStart", check.model(pre_start, true) }, { "periodic", check.list(check.model(periodic, true)) },
    { "idlePolicy", check.map },
  }, true) },
}

-- Members that the image of a template has settled, in the order of the message.
local SETTLED_BY_TEMPLATE = {
  "credentialProxy", "entrypoint", "env", "image", "lifecycle", "platform", "resourceLimits", "resourceRequests", "secureAccess",
  "snapshotId", "volumes",
}

-- Variables of the egress sidecar that a request may set. The sandbox does not receive them.
local SIDECAR_PREFIX = "OPENSANDBOX_EGRESS_"
local SIDECAR_VARIABLES = {
  "CREDENTIAL_VAULT_REQUIRE_SCOPED_MATCH", "CREDENTIAL_VAULT_REQUIRE_TLS", "CREDENTIAL_VAULT_TRUSTED_PROXY_CIDRS",
  "DENY_WEBHOOK", "DNS_UPSTREAM_TIMEOUT", "LOG_LEVEL", "METRICS_EXTRA_ATTRS", "MITMPROXY_EXTRA_PORTS",
  "MITMPROXY_SSL_INSECURE", "MITMPROXY_TRANSPARENT", "POLICY_FILE",
}
local PLATFORMS = { os = { "linux", "windows" }, arch = { "amd64", "arm64" } }

local function quoted_list(items, prefix)
  local quoted = {}
  for index, item in ipairs(items) do quoted[index] = ("'%s%s'"):format(prefix or "", item) end
  return "[" .. table.concat(quoted, ", ") .. "]"
end

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then return true end
  end
  return false
end

local function invalid(message, ...)
  return validation.refusal(400, "SANDBOX::INVALID_PARAMETER", message:format(...))
end

-- Returns the violation of a rule of the model about several members.
local function model_problem(body)
  if body.templateId then
    local found = {}
    for _, name in ipairs(SETTLED_BY_TEMPLATE) do
      if body[name] ~= nil and body[name] ~= false then found[#found + 1] = name end -- secureAccess may be false
    end
    if found[1] then
      return ("templateId cannot be combined with: %s; the workload shape is fixed by the template's golden image."):format(
        table.concat(found, ", "))
    end
    return not body.timeout and "timeout is required when templateId is provided." or nil
  end
  local has_image = body.image ~= nil and body.image.uri:find("%S") ~= nil
  local has_snapshot = (body.snapshotId or ""):find("%S") ~= nil
  if (body.credentialProxy or {}).enabled and not body.networkPolicy then
    return "credentialProxy.enabled requires networkPolicy."
  elseif has_image == has_snapshot then
    return "Exactly one of image or snapshotId must be provided."
  elseif has_image and not body.entrypoint then
    return "Entrypoint is required when image is provided."
  elseif not body.resourceLimits then
    return "resourceLimits is required when poolRef is not provided."
  end
end

local function env_refusal(env)
  for name in each(env or {}) do
    if name:sub(1, #SIDECAR_PREFIX) == SIDECAR_PREFIX and not contains(SIDECAR_VARIABLES, name:sub(#SIDECAR_PREFIX + 1)) then
      return invalid("Environment variable '%s' is not allowed; permitted %s keys: %s", name, SIDECAR_PREFIX,
        quoted_list(SIDECAR_VARIABLES, SIDECAR_PREFIX))
    end
  end
end

local function platform_refusal(platform)
  for _, member in ipairs { "os", "arch" } do
    local value = platform and platform[member]
    if value and not contains(PLATFORMS[member], value:lower()) then
      return invalid("Unsupported platform.%s '%s'. Supported values: %s.", member, value, quoted_list(PLATFORMS[member]))
    end
  end
  if platform and platform.os:lower() == "windows" then
    return invalid("The development server runs sandboxes on linux only.")
  end
end

-- Numbers with the units of Kubernetes: "1", "500m", "0.5", "256Mi", "1G".
local function limits_refusal(limits)
  for _, name in ipairs { "cpu", "memory" } do
    local text = limits and limits[name]
    local number, unit = (text or "1"):match("^(%d*%.?%d*)(%a*)$")
    if not (tonumber(number) and tonumber(number) > 0 and (unit == "" or unit == "m" or unit:find("^[kKMGTP]i?$"))) then
      return invalid("Invalid resourceLimits.%s: '%s'; must resolve to a positive resource limit.", name, text)
    end
  end
end

local function extensions_refusal(extensions)
  local name = "access.renew.extend.seconds"
  local text = (extensions or {})[name]
  local seconds = text and tonumber(text:match("^%d+$"))
  if text and not (seconds and seconds >= 300 and seconds <= MAX_TIMEOUT) then
    return invalid("extensions['%s'] must be an integer from 300 to %d.", name, MAX_TIMEOUT)
  end
end

local function metadata_refusal(metadata)
  for key, value in each(metadata or {}) do
    local refusal = labels.refusal(key, value)
    if refusal then return refusal end
  end
end

local function volumes_refusal(volumes)
  for index, volume in ipairs(volumes or {}) do
    local backends = 0
    for _, name in ipairs { "host", "pvc", "ossfs" } do
      if volume[name] then backends = backends + 1 end
    end
    if backends ~= 1 then
      return validation.value_error("Exactly one of host, pvc, or ossfs must be provided.", volume,
        { "body", "volumes", index - 1 })
    end
  end
  local first = (volumes or {})[1]
  if first and first.host then
    return validation.refusal(400, "VOLUME::HOST_PATH_NOT_ALLOWED",
      ("Host path '%s' is not under any allowed prefix. Allowed prefixes: []"):format(first.host.path))
  elseif first then
    return validation.refusal(400, "VOLUME::UNSUPPORTED_BACKEND", "The development server has no volumes.")
  end
end

-- Returns the refusal of a feature that this server, like a server on Docker, does not have.
local function refusal_of(body, has_templates)
  if body.templateId and not has_templates then
    return validation.refusal(400, "DOCKER::INVALID_ENTRYPOINT", "Entrypoint must contain at least one command.")
  elseif body.timeout and body.timeout > MAX_TIMEOUT then
    return invalid("Sandbox timeout %.0fs exceeds configured maximum of %ds.", body.timeout, MAX_TIMEOUT)
  elseif body.secureAccess then
    return invalid("secureAccess is not supported when runtime.type='docker'. "
      .. "Use the Kubernetes runtime to create secured sandboxes.")
  elseif body.lifecycle then
    return invalid("lifecycle hooks are not supported by the Docker provider.")
  end
  return env_refusal(body.env) or platform_refusal(body.platform) or limits_refusal(body.resourceLimits)
    or extensions_refusal(body.extensions) or metadata_refusal(body.metadata) or volumes_refusal(body.volumes)
end

--- Reads the body of POST /sandboxes.
---@param text string
---@param content_type? string
---@param has_templates boolean
---@return table? request its `timeout` is a number; its `env` is that of the sandbox
---@return table? answer of an invalid body
return function(text, content_type, has_templates)
  local body, answer = validation.body(text, content_type, check_body)
  if not body then return nil, answer end
  if (body.extensions or {}).poolRef then
    return nil, validation.refusal(400, "SANDBOX::UNSUPPORTED_POOL_REF", "poolRef is not supported by the Docker provider. "
      .. "Use Kubernetes BatchSandbox provider instead.")
  end
  if body.timeout then body.timeout = tonumber(body.timeout) end
  local problem = model_problem(body)
  if problem then return nil, validation.value_error(problem, body) end
  local refusal = refusal_of(body, has_templates)
  if refusal then return nil, refusal end
  body.entrypoint = body.entrypoint or DEFAULT_ENTRYPOINT
  local env = {}
  for name, value in each(body.env or {}) do
    if name:sub(1, #SIDECAR_PREFIX) ~= SIDECAR_PREFIX then env[name] = value end
  end
  body.env = env
  return body
end

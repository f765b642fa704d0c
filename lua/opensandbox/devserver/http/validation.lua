--- Checks of request bodies, with the answers of the real service: 422 lists of what has the wrong type or is missing,
-- 400 for what is understood and refused.

local json = require "opensandbox.base.json"

local validation = {}

local LONGEST_TIMEOUT = 86400
local DEFAULT_ENTRYPOINT = { "tail", "-f", "/dev/null" }

--- One entry of a 422 answer.
function validation.entry(kind, location, message, input, context)
  return { type = kind, loc = json.array(location), msg = message, input = input, ctx = context }
end

--- A 422 answer.
function validation.unprocessable(entries)
  return { status = 422, value = { detail = json.array(entries) } }
end

--- An answer with a code.
function validation.refusal(status, code, message)
  return { status = status, value = { code = code, message = message } }
end

local function is_map(value) return type(value) == "table" and value[1] == nil end

--- Whether a decoded value is an array, as far as one can tell from an empty table.
function validation.is_list(value)
  return type(value) == "table" and (value[1] ~= nil or next(value) == nil)
end

local is_list = validation.is_list

local function at(location, name)
  local longer = {}
  for index, part in ipairs(location) do longer[index] = part end
  longer[#longer + 1] = name
  return longer
end

-- Each check adds to `entries` what is wrong with `value`.
local check = {}

function check.string(entries, location, value)
  if type(value) ~= "string" then
    entries[#entries + 1] = validation.entry("string_type", location, "Input should be a valid string", value)
  end
end

function check.strings(entries, location, value)
  if not is_map(value) then
    entries[#entries + 1] = validation.entry("dict_type", location, "Input should be a valid dictionary", value)
    return
  end
  for name, item in pairs(value) do check.string(entries, at(location, name), item) end
end

function check.string_list(entries, location, value)
  if not is_list(value) then
    entries[#entries + 1] = validation.entry("list_type", location, "Input should be a valid list", value)
  elseif #value == 0 then
    entries[#entries + 1] = validation.entry("too_short", location,
      "List should have at least 1 item after validation, not 0", json.array {},
      { field_type = "List", min_length = 1, actual_length = 0 })
  else
    for index, item in ipairs(value) do check.string(entries, at(location, index - 1), item) end
  end
end

function check.list(entries, location, value)
  if not is_list(value) then
    entries[#entries + 1] = validation.entry("list_type", location, "Input should be a valid list", value)
  end
end

function check.boolean(entries, location, value)
  if type(value) ~= "boolean" then
    entries[#entries + 1] = validation.entry("bool_type", location, "Input should be a valid boolean", value)
  end
end

function check.object(entries, location, value)
  if not is_map(value) then
    entries[#entries + 1] = validation.entry("model_attributes_type", location,
      "Input should be a valid dictionary or object to extract fields from", value)
    return false
  end
  return true
end

--- An integer, which may be written as text or as a number like 60.0.
-- @treturn number the integer, or nil when `entries` has grown
function validation.integer(entries, location, value, least, most)
  local number = type(value) == "string" and tonumber(value:match("^%s*([+-]?%d+)%s*$")) or value
  if type(value) == "string" and type(number) ~= "number" then
    entries[#entries + 1] = validation.entry("int_parsing", location,
      "Input should be a valid integer, unable to parse string as an integer", value)
  elseif type(number) ~= "number" then
    entries[#entries + 1] = validation.entry("int_type", location, "Input should be a valid integer", value)
  elseif number % 1 ~= 0 then
    entries[#entries + 1] = validation.entry("int_from_float", location,
      "Input should be a valid integer, got a number with a fractional part", value)
  elseif least and number < least then
    entries[#entries + 1] = validation.entry("greater_than_equal", location,
      ("Input should be greater than or equal to %d"):format(least), value, { ge = least })
  elseif most and number > most then
    entries[#entries + 1] = validation.entry("less_than_equal", location,
      ("Input should be less than or equal to %d"):format(most), value, { le = most })
  else
    return number
  end
end

-- Adds what is missing of the members that an object must have; what is there is checked by its kind.
local function members(entries, location, value, wanted)
  for _, member in ipairs(wanted) do
    local name, kind, optional = member[1], member[2], member[3]
    if value[name] ~= nil then
      kind(entries, at(location, name), value[name])
    elseif not optional then
      entries[#entries + 1] = validation.entry("missing", at(location, name), "Field required", value)
    end
  end
end

function check.image(entries, location, value)
  if not check.object(entries, location, value) then return end
  members(entries, location, value, { { "uri", check.string } })
  local path = at(location, "auth")
  if value.auth ~= nil and check.object(entries, path, value.auth) then
    members(entries, path, value.auth, { { "username", check.string }, { "password", check.string } })
  end
end

function check.policy(entries, location, value)
  if not check.object(entries, location, value) then return end
  members(entries, location, value, { { "defaultAction", check.string, true }, { "egress", check.list, true } })
  if not is_list(value.egress) then return end
  for index, rule in ipairs(value.egress) do
    local path = at(at(location, "egress"), index - 1)
    if check.object(entries, path, rule) then
      members(entries, path, rule, { { "action", check.string }, { "target", check.string } })
    end
  end
end

function check.credential_proxy(entries, location, value)
  if check.object(entries, location, value) then members(entries, location, value, { { "enabled", check.boolean, true } }) end
end

local FIELDS = {
  { "image", check.image }, { "snapshotId", check.string }, { "platform", check.object },
  { "resourceLimits", check.strings }, { "resourceRequests", check.strings }, { "env", check.strings },
  { "metadata", check.strings }, { "entrypoint", check.string_list }, { "networkPolicy", check.policy },
  { "credentialProxy", check.credential_proxy }, { "secureAccess", check.boolean }, { "volumes", check.list },
  { "extensions", check.strings }, { "templateId", check.string },
}

-- What a template has settled already.
local TEMPLATED = {
  "image", "snapshotId", "entrypoint", "env", "resourceLimits", "resourceRequests", "volumes", "platform", "credentialProxy",
  "secureAccess", "lifecycle",
}
local SIDECAR_PREFIX = "^OPENSANDBOX_EGRESS_"
local SIDECAR_OWN = { RULES = true, MODE = true, TOKEN = true, SANDBOX_ID = true, MITMPROXY_SCRIPT = true }

--- Reads a JSON body.
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] table the answer
function validation.body(text, content_type)
  if text == "" then
    return nil, validation.unprocessable { validation.entry("missing", { "body" }, "Field required", json.null) }
  elseif not (content_type or ""):lower():find("^application/[%w.+-]*json") then
    local entries = {}
    check.object(entries, { "body" }, text)
    return nil, validation.unprocessable(entries)
  end
  local value, problem = json.decode_raw(text)
  if problem then
    local position = tonumber(problem:match("at character (%d+)")) or 1
    local why = problem:find("object key", 1, true) and "Expecting property name enclosed in double quotes"
      or "Expecting value"
    return nil, validation.unprocessable {
      validation.entry("json_invalid", { "body", position - 1 }, "JSON decode error", {}, { error = why }),
    }
  end
  return value
end

local KEY_RULE = "must be either a name or a DNS-subdomain prefix and name separated by /, where the name is up to 63 "
  .. "characters and matches [A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?, and the optional prefix is a valid DNS "
  .. "subdomain up to 253 characters."
local VALUE_RULE = "must be 63 characters or less, start/end with an alphanumeric character, and contain only "
  .. "alphanumeric, '-', '_', or '.' characters."

local function is_label_name(text)
  return #text <= 63 and text:find("^%w[%w%-_.]*$") ~= nil and text:find("%w$") ~= nil
end

local function is_subdomain(text)
  if #text > 253 then return false end
  for label in (text .. "."):gmatch("([^.]*)%.") do
    if not (label:find("^[a-z0-9][a-z0-9-]*$") and label:find("[a-z0-9]$")) then return false end
  end
  return true
end

--- The refusal of a label that breaks the rules; nil when it is fine.
-- @param reserved_code the code for keys of the system
function validation.label(key, value, reserved_code)
  local code = "SANDBOX::INVALID_METADATA_LABEL"
  if key:find("^opensandbox%.io/") then
    local message = "Metadata key '%s' uses the reserved prefix 'opensandbox.io/'. Keys under this prefix are managed "
      .. "by the system and cannot be set via metadata."
    return validation.refusal(400, reserved_code or code, message:format(key))
  end
  local prefix, name = key:match("^(.-)/(.*)$")
  if not is_label_name(name or key) or (prefix and not is_subdomain(prefix)) then
    return validation.refusal(400, code, ("Metadata key '%s' is invalid: "):format(key) .. KEY_RULE)
  elseif value and value ~= "" and not is_label_name(value) then
    return validation.refusal(400, code, ("Metadata value '%s' is invalid: "):format(value) .. VALUE_RULE)
  end
end

-- What the service's model refuses although every field has its type.
local function model_problem(body)
  if body.templateId then
    for _, name in ipairs(TEMPLATED) do
      if body[name] ~= nil then return name .. " is not allowed when templateId is provided." end
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

-- What this server, like one on Docker, does not do.
local function unsupported(body)
  if (body.extensions or {}).poolRef then
    return validation.refusal(400, "SANDBOX::UNSUPPORTED_POOL_REF", "poolRef is not supported by the Docker provider. "
      .. "Use Kubernetes BatchSandbox provider instead.")
  end
  if body.templateId then
    return validation.refusal(501, "SANDBOX::API_NOT_SUPPORTED", "Templates are not supported when runtime.type='docker'.")
  end
  for name in pairs(body.env or {}) do
    local rest = name:gsub(SIDECAR_PREFIX, "")
    if rest ~= name and SIDECAR_OWN[rest] then
      return validation.refusal(400, "SANDBOX::INVALID_PARAMETER", ("Environment variable %s is reserved."):format(name))
    end
  end
  local renewal = (body.extensions or {})["access.renew.extend.seconds"]
  local seconds = renewal and tonumber(renewal:match("^%d+$"))
  if renewal and not (seconds and seconds >= 300 and seconds <= LONGEST_TIMEOUT) then
    return validation.refusal(400, "SANDBOX::INVALID_PARAMETER",
      "extensions['access.renew.extend.seconds'] must be an integer from 300 to 86400.")
  end
  for key, value in pairs(body.metadata or {}) do
    local refusal = validation.label(key, value)
    if refusal then return refusal end
  end
  if body.timeout and body.timeout > LONGEST_TIMEOUT then
    return validation.refusal(400, "SANDBOX::INVALID_PARAMETER",
      ("Sandbox timeout %.0fs exceeds configured maximum of %ds."):format(body.timeout, LONGEST_TIMEOUT))
  elseif body.secureAccess then
    return validation.refusal(400, "SANDBOX::INVALID_PARAMETER", "secureAccess is not supported when "
      .. "runtime.type='docker'. Use the Kubernetes runtime to create secured sandboxes.")
  end
  local volume = (body.volumes or {})[1]
  local host = type(volume) == "table" and volume.host
  if host then
    local message = "Host path '%s' is not under any allowed prefix. Allowed prefixes: []"
    return validation.refusal(400, "VOLUME::HOST_PATH_NOT_ALLOWED", message:format(tostring(host.path)))
  elseif volume then
    return validation.refusal(400, "VOLUME::UNSUPPORTED_BACKEND", "The development server has no volumes.")
  end
  if body.image and body.image.uri:find("^nope") then
    return validation.refusal(500, "DOCKER::SANDBOX_IMAGE_PULL_FAILED",
      ("Failed to pull image %s: pull access denied for %s"):format(body.image.uri, body.image.uri))
  end
end

-- Objects without their nulls, which mean the same as absent members.
local function without_nulls(value)
  if type(value) ~= "table" then return value end
  for name, item in pairs(value) do
    if item == json.null then value[name] = nil else without_nulls(item) end
  end
  return value
end

--- Checks the body of POST /sandboxes.
-- @treturn[1] table the body, its timeout a number
-- @treturn[2] nil
-- @treturn[2] table the answer
function validation.create(text, content_type)
  local body, answer = validation.body(text, content_type)
  if answer then return nil, answer end
  local entries = {}
  body = without_nulls(body)
  if not check.object(entries, { "body" }, body) then return nil, validation.unprocessable(entries) end
  for _, field in ipairs(FIELDS) do
    local name = field[1]
    if body[name] ~= nil then field[2](entries, { "body", name }, body[name]) end
  end
  if body.timeout ~= nil then
    body.timeout = validation.integer(entries, { "body", "timeout" }, body.timeout, 60)
  end
  if entries[1] then return nil, validation.unprocessable(entries) end
  local pooled = (body.extensions or {}).poolRef ~= nil
  local problem = not pooled and model_problem(body)
  if problem then
    return nil, validation.unprocessable {
      validation.entry("value_error", { "body" }, "Value error, " .. problem, body, { error = {} }),
    }
  end
  local refusal = unsupported(body)
  if refusal then return nil, refusal end
  body.entrypoint = body.entrypoint or DEFAULT_ENTRYPOINT
  -- These are for the egress sidecar, and the sandbox does not see them.
  for name in pairs(body.env or {}) do
    if name:find(SIDECAR_PREFIX) then body.env[name] = nil end
  end
  return body
end

--- Checks the body of POST /metrics/events.
-- @treturn table the answer to one that is wrong
function validation.event(text, content_type)
  local body, answer = validation.body(text, content_type)
  if answer then return answer end
  local entries = {}
  body = without_nulls(body)
  if check.object(entries, { "body" }, body) then
    members(entries, { "body" }, body, {
      { "eventType", check.string }, { "createDurationMs", function(list, location, value)
        validation.integer(list, location, value, 0)
      end }, { "success", check.boolean }, { "sandboxId", check.string, true }, { "image", check.string, true },
    })
    if type(body.eventType) == "string" and body.eventType ~= "sandbox.create" then
      entries[#entries + 1] = validation.entry("literal_error", { "body", "eventType" }, "Input should be 'sandbox.create'",
        body.eventType, { expected = "'sandbox.create'" })
    end
  end
  return entries[1] and validation.unprocessable(entries) or nil
end

return validation

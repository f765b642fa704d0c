--- The rules of metadata: keys and values are labels of Kubernetes, and one prefix is reserved.

local validation = require "opensandbox.devserver.http.validation"

local labels = {}

local CODE = "SANDBOX::INVALID_METADATA_LABEL"
local KEY_RULE = "must be either a name or a DNS-subdomain prefix and name separated by /, where the name is up to 63 "
  .. "characters and matches [A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?, and the optional prefix is a valid DNS "
  .. "subdomain up to 253 characters."
local VALUE_RULE = "must be 63 characters or less, start/end with an alphanumeric character, and contain only "
  .. "alphanumeric, '-', '_', or '.' characters."

local function is_name(text)
  return #text <= 63 and text:find("^%w[%w%-_.]*$") ~= nil and text:find("%w$") ~= nil
end

local function is_subdomain(text)
  if #text > 253 then return false end
  for label in (text .. "."):gmatch("([^.]*)%.") do
    if not (label:find("^[a-z0-9][a-z0-9-]*$") and label:find("[a-z0-9]$")) then return false end
  end
  return true
end

--- Returns whether a key has the prefix that is reserved for the system.
function labels.is_reserved(key)
  return key:find("^opensandbox%.io/") ~= nil
end

--- Returns the refusal of a label that breaks the rules.
---@param key string
---@param value? string
---@return table? answer
function labels.refusal(key, value)
  if labels.is_reserved(key) then
    return validation.refusal(400, CODE, ("Metadata key '%s' uses the reserved prefix 'opensandbox.io/'. Keys under this "
      .. "prefix are managed by the system and cannot be set via metadata."):format(key))
  end
  local prefix, name = key:match("^(.-)/(.*)$")
  if not is_name(name or key) or (prefix and not is_subdomain(prefix)) then
    return validation.refusal(400, CODE, ("Metadata key '%s' is invalid: "):format(key) .. KEY_RULE)
  elseif value and value ~= "" and not is_name(value) then
    return validation.refusal(400, CODE, ("Metadata value '%s' is invalid: "):format(value) .. VALUE_RULE)
  end
end

return labels

--- Objects of the credential vault: checks credentials and bindings of the caller, converts them to JSON, and decodes responses.
--
-- No error contains a credential's value: neither an error that the caller's mistake raises, nor one with the server's words. So the
-- checks here never show the values that they refuse.

local base64 = require "opensandbox.base.base64"
local each = require "opensandbox.base.each"
local fields = require "opensandbox.base.fields"
local headers = require "opensandbox.http.headers"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"

local vault_objects = {}

--- A secret.
--- ```lua
--- local credentials = {
---   { name = "token", value = secret },
---   { name = "login", username = "robot", password = password },
---   { name = "other", source = { type = "inline", value = secret } },
--- }
--- ```
---@class opensandbox.Credential
---@field name string the name that bindings use
---@field value? string the secret as it is sent; for auth of type "basic" the base64 of user:password
---@field username? string with a password instead of a value, for auth of type "basic"; the library encodes both
---@field password? string with a username
---@field source? { type: "inline", value: string } instead of a value

--- Which requests get which credentials.
--- ```lua
--- local by_hosts = { name = "api", hosts = { "api.example.com" }, auth = { type = "bearer", credential = "token" } }
--- local by_match = { name = "read", match = { hosts = { "*.example.com" }, methods = { "GET" } },
---   auth = { type = "bearer", credential = "token" } }
--- ```
---@class opensandbox.CredentialBinding
---@field name string its own name
---@field hosts? string[] short for match = { hosts = ... }: host names or `*.suffix`; the policy must allow each of them by a rule
---@field match? opensandbox.CredentialMatch the requests that it is for
---@field auth opensandbox.CredentialAuth the authentication that is added to them

--- The requests that a binding is for.
--- ```lua
--- local match = { hosts = { "api.example.com" }, schemes = { "https" }, methods = { "GET" }, paths = { "/v1/*" } }
--- ```
---@class opensandbox.CredentialMatch
---@field hosts? string[] host names or `*.suffix`
---@field schemes? string[] default "https"
---@field methods? string[] default GET, POST, PUT, PATCH, DELETE
---@field paths? string[] default "/*"

--- The authentication that is added to a request.
--- ```lua
--- local bearer = { type = "bearer", credential = "token" }
--- local api_key = { type = "api_key", name = "X-Api-Key", credential = "token" }
--- local custom = { type = "custom_headers", headers = { { name = "X-Token", credential = "token" } } }
--- local replaced = { type = "passthrough", substitutions = { { credential = "token", placeholder = "{token}", ["in"] = { "query" } } } }
--- ```
---@class opensandbox.CredentialAuth
---@field type string "bearer", "basic", "api_key", "custom_headers" or "passthrough" (substitutions only)
---@field credential? string name of a credential, for "bearer", "basic" and "api_key"
---@field name? string of the header, for "api_key"
---@field headers? { name: string, credential: string }[] for "custom_headers"
---@field substitutions? opensandbox.CredentialSubstitution[] for every type: egress from July 2026

--- A text of a request that is replaced by a credential.
--- ```lua
--- local substitution = { credential = "token", placeholder = "{token}", ["in"] = { "query", "body" } }
--- ```
---@class opensandbox.CredentialSubstitution
---@field credential string name of a credential
---@field placeholder string the text that is replaced by the credential
---@field in string[] "path", "query", "header", "body"

--- The state of a vault, without its secrets.
--- ```lua
--- local state = assert(sandbox.vault:get())
--- print(state.revision, #state.credentials, #state.bindings)
--- ```
---@class opensandbox.VaultState
---@field revision integer grows with each change
---@field credentials opensandbox.CredentialInfo[] its credentials
---@field bindings opensandbox.BindingInfo[] its bindings

--- A credential, without its value.
--- ```lua
--- for _, info in ipairs(assert(sandbox.vault:credentials())) do print(info.name, info.source_type, info.revision) end
--- ```
---@class opensandbox.CredentialInfo
---@field name string its name
---@field source_type? string "inline"
---@field revision? integer the revision of the vault in which it was set

--- A binding, without the names of its credentials.
--- ```lua
--- local info = assert(sandbox.vault:binding("api"))
--- print(info.name, info.revision, info.match and info.match.hosts[1], info.auth.type)
--- ```
---@class opensandbox.BindingInfo
---@field name string its name
---@field revision? integer the revision of the vault in which it was set
---@field match? opensandbox.CredentialMatch the requests that it is for
---@field auth { type?: string, name?: string } without the names of the credentials, which the server does not return

local type_names = { bearer = "bearer", basic = "basic", api_key = "apiKey", custom_headers = "customHeaders",
  passthrough = "passthrough" } -- as in JSON, by our name
local our_type_names = {}
for ours, theirs in each(type_names) do our_type_names[theirs] = ours end

local locations = { path = true, query = true, header = true, body = true }

local function require_that(op, holds, text)
  if not holds then options.raise(op, text) end
end

local function is_text(value)
  return type(value) == "string" and value:find("%S") ~= nil and not value:find("%z")
end

-- Checks that a table has known keys only. Its values are checked elsewhere, because options.check would show those that are wrong.
local function check_table(op, what, value, names)
  require_that(op, type(value) == "table", what .. " must be a table")
  local known = {}
  for _, name in ipairs(names) do known[name] = "any" end
  for key in each(value) do require_that(op, type(key) == "string", what .. " must have names for all its values") end
  options.check(op, value, known)
end

local function check_list(op, what, value)
  require_that(op, type(value) == "table" and (next(value) == nil or value[1] ~= nil), what .. " must be a list")
  return value
end

-- Converts a list of strings that is not empty to JSON. Returns nil for nil.
local function texts(op, what, value)
  if value == nil then return nil end
  local list = {}
  for i, item in ipairs(check_list(op, what, value)) do
    require_that(op, is_text(item), what .. " must contain strings that are not empty")
    list[i] = item
  end
  require_that(op, #list > 0, what .. " must not be empty")
  return json.array(list)
end

-- The facts that are collected while a request is converted: its secrets; and the names of its credentials, unless a binding may also refer
-- to credentials that the vault has already.
local function new_context(names_are_known)
  return { secrets = {}, names = names_are_known and {} or nil }
end

local function add_secret(context, value)
  local quoted = (json.encode(value) or ""):sub(2, -2)
  for _, form in ipairs { value, quoted, (quoted:gsub("\\/", "/")) } do -- the last two are the forms in our JSON and in a server's
    context.secrets[#context.secrets + 1] = form
  end
end

local function credential_value(op, what, given, context)
  local ways = (given.value ~= nil and 1 or 0) + (given.source ~= nil and 1 or 0)
    + ((given.username ~= nil or given.password ~= nil) and 1 or 0)
  require_that(op, ways == 1, what .. " needs one of 'value', 'source', and 'username' with 'password'")
  if given.source ~= nil then
    check_table(op, what .. ": source", given.source, { "type", "value" })
    require_that(op, given.source.type == nil or is_text(given.source.type), what .. ": source.type must be a string")
    return given.source.value, given.source.type
  elseif given.value ~= nil then
    return given.value
  end
  require_that(op, type(given.username) == "string" and type(given.password) == "string",
    what .. ": 'username' and 'password' must be strings")
  require_that(op, not given.username:find(":", 1, true), what .. ": a user name with a colon cannot be sent")
  add_secret(context, given.password)
  return base64.encode(given.username .. ":" .. given.password)
end

local function credential(op, what, given, context)
  check_table(op, what, given, { "name", "value", "source", "username", "password" })
  require_that(op, is_text(given.name), what .. " needs a name")
  local value, source_type = credential_value(op, what, given, context)
  require_that(op, type(value) == "string" and value ~= "" and not value:find("%z"),
    what .. ": its value must be a string that is not empty, without NUL bytes")
  add_secret(context, value)
  if context.names then context.names[given.name] = true end
  return { name = given.name, source = { type = source_type or "inline", value = value } }
end

-- Checks the name of a credential in a binding. A caller may have put the secret itself there by mistake.
local function reference(op, what, name, context)
  require_that(op, is_text(name), what .. " must be the name of a credential")
  require_that(op, not context.names or context.names[name], what .. " is not the name of one of the credentials")
  return name
end

local function header_name(op, what, name)
  require_that(op, headers.is_name(name), what .. " must be the name of a header")
  return name
end

local function custom_headers(op, what, given, context)
  local list = {}
  for i, entry in ipairs(check_list(op, what, given)) do
    local entry_name = what .. " " .. i
    check_table(op, entry_name, entry, { "name", "credential" })
    list[i] = { name = header_name(op, entry_name .. ": name", entry.name),
      credential = reference(op, entry_name .. ": credential", entry.credential, context) }
  end
  require_that(op, #list > 0, what .. " must not be empty")
  return json.array(list)
end

local function substitutions(op, what, given, context)
  if given == nil then return nil end
  local list = {}
  for i, entry in ipairs(check_list(op, what, given)) do
    local entry_name = what .. " " .. i
    check_table(op, entry_name, entry, { "credential", "placeholder", "in" })
    require_that(op, is_text(entry.placeholder), entry_name .. ": placeholder must be a string that is not empty")
    local where = texts(op, entry_name .. ": in", entry["in"])
    require_that(op, where, entry_name .. ': "in" is needed: a list of "path", "query", "header" and "body"')
    for _, location in ipairs(where) do
      require_that(op, locations[location], entry_name .. ': "in" may contain "path", "query", "header" and "body"')
    end
    list[i] = { credential = reference(op, entry_name .. ": credential", entry.credential, context),
      placeholder = entry.placeholder, ["in"] = where }
  end
  require_that(op, #list > 0, what .. " must not be empty")
  return json.array(list)
end

-- The fields of each type of auth, besides its type and substitutions.
local auth_fields = {
  bearer = { "credential" }, basic = { "credential" }, api_key = { "name", "credential" }, custom_headers = { "headers" },
  passthrough = {},
}

local function auth(op, what, given, context)
  require_that(op, type(given) == "table", what .. " must be a table")
  require_that(op, given.username == nil and given.password == nil, what
    .. ": username and password belong to the credential: { name = ..., username = ..., password = ... }")
  local needed = auth_fields[given.type]
  require_that(op, needed, what .. ': type must be "bearer", "basic", "api_key", "custom_headers" or "passthrough"')
  local known = { "type", "substitutions" }
  for _, name in ipairs(needed) do
    known[#known + 1] = name
    require_that(op, given[name] ~= nil, ("%s of type %s needs '%s'"):format(what, given.type, name))
  end
  check_table(op, what, given, known)
  require_that(op, given.type ~= "passthrough" or given.substitutions ~= nil,
    what .. " of type passthrough needs 'substitutions'")
  return {
    type = type_names[given.type],
    credential = given.credential ~= nil and reference(op, what .. ": credential", given.credential, context) or nil,
    name = given.name ~= nil and header_name(op, what .. ": name", given.name) or nil,
    headers = given.headers ~= nil and custom_headers(op, what .. ": header", given.headers, context) or nil,
    substitutions = substitutions(op, what .. ": substitution", given.substitutions, context),
  }
end

local function binding(op, what, given, context)
  check_table(op, what, given, { "name", "hosts", "match", "auth" })
  require_that(op, is_text(given.name), what .. " needs a name")
  local match = given.match or {}
  check_table(op, what .. ": match", match, { "hosts", "schemes", "methods", "paths" })
  require_that(op, (given.hosts == nil) ~= (match.hosts == nil),
    what .. " needs 'hosts', or 'match' with hosts in it, and not both")
  return { name = given.name,
    match = { hosts = texts(op, what .. ": hosts", given.hosts or match.hosts),
      schemes = texts(op, what .. ": schemes", match.schemes),
      methods = texts(op, what .. ": methods", match.methods), paths = texts(op, what .. ": paths", match.paths) },
    auth = auth(op, what .. ": auth", given.auth, context) }
end

local function list_of(op, what, given, convert, context)
  local list = {}
  for i, item in ipairs(check_list(op, what .. "s", given or {})) do list[i] = convert(op, what .. " " .. i, item, context) end
  return json.array(list)
end

local function changes_of(op, what, given, convert, context)
  if given == nil then return nil end
  check_table(op, what .. "s", given, { "add", "replace", "delete" })
  return {
    add = given.add and list_of(op, what .. " to add:", given.add, convert, context),
    replace = given.replace and list_of(op, what .. " to replace:", given.replace, convert, context),
    delete = texts(op, what .. "s to delete", given.delete),
  }
end

--- Checks the options of a create and converts them to JSON.
---@param op string
---@param opts table as for create_credential_vault
---@return table body
---@return string[] secrets texts that no error may show
function vault_objects.create_body(op, opts)
  check_table(op, "the options", opts, { "credentials", "bindings" })
  local context = new_context(true)
  local credentials = list_of(op, "credential", opts.credentials, credential, context) -- first, because bindings refer to them
  return { credentials = credentials, bindings = list_of(op, "binding", opts.bindings, binding, context) }, context.secrets
end

--- Checks changes and converts them to JSON.
---@param op string
---@param changes opensandbox.VaultChanges
---@return table body
---@return string[] secrets texts that no error may show
function vault_objects.patch_body(op, changes)
  check_table(op, "the changes", changes, { "expected_revision", "credentials", "bindings" })
  require_that(op, next(changes) ~= nil, "the changes must not be empty")
  if changes.expected_revision ~= nil then
    options.argument(op, "option 'expected_revision'", changes.expected_revision, "natural")
  end
  local context = new_context(false)
  return {
    expectedRevision = changes.expected_revision,
    credentials = changes_of(op, "credential", changes.credentials, credential, context),
    bindings = changes_of(op, "binding", changes.bindings, binding, context),
  }, context.secrets
end

-- Decodes a match. The ports that old sidecars return follow from the schemes and cannot be chosen.
local function match_info(object)
  return { hosts = fields.texts(object.hosts), schemes = fields.texts(object.schemes), methods = fields.texts(object.methods),
    paths = fields.texts(object.paths) }
end

--- Decodes a credential.
---@param object any
---@return opensandbox.CredentialInfo? info
---@return string? missing
function vault_objects.credential_info(object)
  if type(object) ~= "table" or type(object.name) ~= "string" then return nil, "credential" end
  return { name = object.name, source_type = fields.text(object.sourceType), revision = fields.natural(object.revision) }
end

--- Decodes a binding.
---@param object any
---@return opensandbox.BindingInfo? info
---@return string? missing
function vault_objects.binding_info(object)
  if type(object) ~= "table" or type(object.name) ~= "string" then return nil, "binding" end
  local kind = fields.object(object.auth) or {}
  local type_name = fields.text(kind.type)
  return { name = object.name, revision = fields.natural(object.revision),
    match = fields.object(object.match) and match_info(object.match),
    auth = { type = our_type_names[type_name] or type_name, name = fields.text(kind.name) } }
end

-- Decodes a list that may be absent when it is empty.
local function decode_optional_list(list, decode)
  return fields.decode_list(list == nil and {} or list, decode)
end

--- Decodes the state of the vault.
---@param object table
---@return opensandbox.VaultState? state
---@return string? missing
function vault_objects.vault_state(object)
  local credentials = decode_optional_list(object.credentials, vault_objects.credential_info)
  local bindings = decode_optional_list(object.bindings, vault_objects.binding_info)
  if not fields.natural(object.revision) or not credentials or not bindings then return nil, "state of a credential vault" end
  return { revision = object.revision, credentials = credentials, bindings = bindings }
end

--- Decodes a list of credentials.
---@param object table
---@return opensandbox.CredentialInfo[]? list
---@return string? missing
function vault_objects.credential_list(object)
  return fields.decode_list(object.credentials, vault_objects.credential_info), "list of credentials"
end

--- Decodes a list of bindings.
---@param object table
---@return opensandbox.BindingInfo[]? list
---@return string? missing
function vault_objects.binding_list(object)
  return fields.decode_list(object.bindings, vault_objects.binding_info), "list of bindings"
end

return vault_objects

--- The credential vault: a client method for each route. The first argument is the endpoint from `discover_egress`.
---
--- A sandbox that holds no secret cannot lose one: the egress sidecar puts credentials into requests on their way out, to the hosts that
--- a binding names. The sandbox must have been created with a network_policy that allows these hosts by a rule each, and with
--- `credential_proxy = true`.
--
-- A credential's value never appears in an error: not in one that the caller's mistake raises, not in one that repeats the server's
-- words. So the checks here never show what they were given.

local base64 = require "opensandbox.base.base64"
local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local poll = require "opensandbox.loop.polling"
local sidecar = require "opensandbox.egress.sidecar"
local url = require "opensandbox.base.url"

local vault = {}

local NEEDS = "1.1.0"
local START_PATIENCE = 5  -- seconds: what the sidecar's proxy may take to start
local FIRST_PAUSE = 0.1   -- seconds
local LONGEST_PAUSE = 1   -- seconds

---@class opensandbox.Credential
---@field name string
---@field value? string the secret as it is sent; for auth of type "basic" the base64 of user:password
---@field username? string instead of a value: with a password, for auth of type "basic"; encoded here
---@field password? string
---@field source? table instead of a value: { type = "inline", value = ... }

---@class opensandbox.CredentialBinding
---@field name string
---@field hosts? string[] short for match = { hosts = ... }: host names or `*.suffix`, each of which the policy must allow by a rule
---@field match? table hosts, schemes (default "https"), methods (default GET, POST, PUT, PATCH, DELETE), paths (default "/*")
---@field auth table type = "bearer" or "basic" with credential (a credential's name); "api_key" with name (of the header) and credential; "custom_headers" with headers = { { name, credential } }; "passthrough" with substitutions alone. And, for every type, substitutions = { { credential, placeholder, ["in"] = { "path", "query", "header", "body" } } }: egress from July 2026

---@class opensandbox.VaultState
---@field revision integer it grows with each change
---@field credentials table[] name, source_type, revision; never the value
---@field bindings table[] name, revision, match, auth = { type, name }

local wire_types = { bearer = "bearer", basic = "basic", api_key = "apiKey", custom_headers = "customHeaders",
  passthrough = "passthrough" }
local types_here = {}
for here, there in pairs(wire_types) do types_here[there] = here end

local surfaces = { path = true, query = true, header = true, body = true }

local function demand(op, holds, text)
  if not holds then options.raise(op, text) end
end

local function is_text(value)
  return type(value) == "string" and value:find("%S") ~= nil and not value:find("%z")
end

-- A table with known keys only. Its values are looked at one by one: options.check would show those that are wrong.
local function check_table(op, what, value, names)
  demand(op, type(value) == "table", what .. " must be a table")
  local known = {}
  for _, name in ipairs(names) do known[name] = "any" end
  for key in pairs(value) do demand(op, type(key) == "string", what .. " must have names for all that is in it") end
  options.check(op, value, known)
end

local function check_list(op, what, value)
  demand(op, type(value) == "table" and (next(value) == nil or value[1] ~= nil), what .. " must be a list")
  return value
end

-- A list of strings that is not empty, as it travels; nil for nil.
local function texts(op, what, value)
  if value == nil then return nil end
  local list = {}
  for i, item in ipairs(check_list(op, what, value)) do
    demand(op, is_text(item), what .. " must hold strings that are not empty")
    list[i] = item
  end
  demand(op, #list > 0, what .. " must not be empty")
  return json.array(list)
end

-- `sent` gathers secrets, and in `brings` the names of the credentials; it is nil where a binding may use those of before.
local function add_secret(sent, value)
  local quoted = (json.encode(value) or ""):sub(2, -2)
  for _, form in ipairs { value, quoted, (quoted:gsub("\\/", "/")) } do -- the last two are how we and a server quote it
    sent.secrets[#sent.secrets + 1] = form
  end
end

local function credential_value(op, what, given, sent)
  local ways = (given.value ~= nil and 1 or 0) + (given.source ~= nil and 1 or 0)
    + ((given.username ~= nil or given.password ~= nil) and 1 or 0)
  demand(op, ways == 1, what .. " needs one of 'value', 'source', and 'username' with 'password'")
  if given.source ~= nil then
    check_table(op, what .. ": source", given.source, { "type", "value" })
    demand(op, given.source.type == nil or is_text(given.source.type), what .. ": source.type must be a string")
    return given.source.value, given.source.type
  elseif given.value ~= nil then
    return given.value
  end
  demand(op, type(given.username) == "string" and type(given.password) == "string",
    what .. ": 'username' and 'password' must be strings")
  demand(op, not given.username:find(":", 1, true), what .. ": a user name with a colon cannot be sent")
  add_secret(sent, given.password)
  return base64.encode(given.username .. ":" .. given.password)
end

local function credential(op, what, given, sent)
  check_table(op, what, given, { "name", "value", "source", "username", "password" })
  demand(op, is_text(given.name), what .. " needs a name")
  local value, source_type = credential_value(op, what, given, sent)
  demand(op, type(value) == "string" and value ~= "" and not value:find("%z"),
    what .. ": its value must be a string that is not empty, without NUL bytes")
  add_secret(sent, value)
  if sent.brings then sent.brings[given.name] = true end
  return { name = given.name, source = { type = source_type or "inline", value = value } }
end

-- The name of a credential in a binding. What stands there by mistake may be the secret itself.
local function reference(op, what, name, sent)
  demand(op, is_text(name), what .. " must be the name of a credential")
  demand(op, not sent.brings or sent.brings[name], what .. " is not the name of one of the credentials")
  return name
end

local function header_name(op, what, name)
  demand(op, type(name) == "string" and name:find("^[%w!#$%%&'*+%-.^_`|~]+$"), what .. " must be the name of a header")
  return name
end

local function custom_headers(op, what, given, sent)
  local headers = {}
  for i, entry in ipairs(check_list(op, what, given)) do
    local which = what .. " " .. i
    check_table(op, which, entry, { "name", "credential" })
    headers[i] = { name = header_name(op, which .. ": name", entry.name),
      credential = reference(op, which .. ": credential", entry.credential, sent) }
  end
  demand(op, #headers > 0, what .. " must not be empty")
  return json.array(headers)
end

local function substitutions(op, what, given, sent)
  if given == nil then return nil end
  local list = {}
  for i, entry in ipairs(check_list(op, what, given)) do
    local which = what .. " " .. i
    check_table(op, which, entry, { "credential", "placeholder", "in" })
    demand(op, is_text(entry.placeholder), which .. ": placeholder must be a string that is not empty")
    local places = texts(op, which .. ": in", entry["in"])
    demand(op, places, which .. ': "in" is needed: a list of "path", "query", "header" and "body"')
    for _, place in ipairs(places) do
      demand(op, surfaces[place], which .. ': "in" may hold "path", "query", "header" and "body"')
    end
    list[i] = { credential = reference(op, which .. ": credential", entry.credential, sent), placeholder = entry.placeholder,
      ["in"] = places }
  end
  demand(op, #list > 0, what .. " must not be empty")
  return json.array(list)
end

-- What each type of auth has, beside its type and substitutions.
local auth_fields = {
  bearer = { "credential" }, basic = { "credential" }, api_key = { "name", "credential" }, custom_headers = { "headers" },
  passthrough = {},
}

local function auth(op, what, given, sent)
  demand(op, type(given) == "table", what .. " must be a table")
  demand(op, given.username == nil and given.password == nil, what
    .. ": username and password belong to the credential: { name = ..., username = ..., password = ... }")
  local fields = auth_fields[given.type]
  demand(op, fields, what .. ': type must be "bearer", "basic", "api_key", "custom_headers" or "passthrough"')
  local known = { "type", "substitutions" }
  for _, name in ipairs(fields) do
    known[#known + 1] = name
    demand(op, given[name] ~= nil, ("%s of type %s needs '%s'"):format(what, given.type, name))
  end
  check_table(op, what, given, known)
  demand(op, given.type ~= "passthrough" or given.substitutions ~= nil, what .. " of type passthrough needs 'substitutions'")
  return {
    type = wire_types[given.type],
    credential = given.credential ~= nil and reference(op, what .. ": credential", given.credential, sent) or nil,
    name = given.name ~= nil and header_name(op, what .. ": name", given.name) or nil,
    headers = given.headers ~= nil and custom_headers(op, what .. ": header", given.headers, sent) or nil,
    substitutions = substitutions(op, what .. ": substitution", given.substitutions, sent),
  }
end

local function binding(op, what, given, sent)
  check_table(op, what, given, { "name", "hosts", "match", "auth" })
  demand(op, is_text(given.name), what .. " needs a name")
  local match = given.match or {}
  check_table(op, what .. ": match", match, { "hosts", "schemes", "methods", "paths" })
  demand(op, (given.hosts == nil) ~= (match.hosts == nil), what .. " needs 'hosts', or 'match' with hosts in it, and not both")
  return { name = given.name,
    match = { hosts = texts(op, what .. ": hosts", given.hosts or match.hosts),
      schemes = texts(op, what .. ": schemes", match.schemes),
      methods = texts(op, what .. ": methods", match.methods), paths = texts(op, what .. ": paths", match.paths) },
    auth = auth(op, what .. ": auth", given.auth, sent) }
end

local function list_of(op, what, given, make, sent)
  local list = {}
  for i, item in ipairs(check_list(op, what .. "s", given or {})) do list[i] = make(op, what .. " " .. i, item, sent) end
  return json.array(list)
end

local function changes_of(op, what, given, make, sent)
  if given == nil then return nil end
  check_table(op, what .. "s", given, { "add", "replace", "delete" })
  return {
    add = given.add and list_of(op, what .. " to add:", given.add, make, sent),
    replace = given.replace and list_of(op, what .. " to replace:", given.replace, make, sent),
    delete = texts(op, what .. "s to delete", given.delete),
  }
end

-- A match as callers write it. The ports that old sidecars tell follow from the schemes, and cannot be chosen.
local function match_of(answer)
  return { hosts = answer.hosts, schemes = answer.schemes, methods = answer.methods, paths = answer.paths }
end

local function credential_info(answer)
  if type(answer) ~= "table" or type(answer.name) ~= "string" then return nil, "credential" end
  return { name = answer.name, source_type = answer.sourceType, revision = answer.revision }
end

local function binding_info(answer)
  if type(answer) ~= "table" or type(answer.name) ~= "string" then return nil, "binding" end
  local kind = type(answer.auth) == "table" and answer.auth or {}
  return { name = answer.name, revision = answer.revision, match = type(answer.match) == "table" and match_of(answer.match) or nil,
    auth = { type = types_here[kind.type] or kind.type, name = kind.name } }
end

local function all(answers, info)
  local list = {}
  for i, answer in ipairs(type(answers) == "table" and answers or {}) do
    list[i] = info(answer)
    if not list[i] then return nil end
  end
  return list
end

local function vault_state(answer)
  local credentials, bindings = all(answer.credentials, credential_info), all(answer.bindings, binding_info)
  if type(answer.revision) ~= "number" or not credentials or not bindings then return nil, "state of a credential vault" end
  return { revision = answer.revision, credentials = credentials, bindings = bindings }
end

local function credential_list(answer)
  return type(answer.credentials) == "table" and all(answer.credentials, credential_info) or nil, "list of credentials"
end

local function binding_list(answer)
  return type(answer.bindings) == "table" and all(answer.bindings, binding_info) or nil, "list of bindings"
end

local function hints(err)
  local message = tostring(err.message)
  local function says(text) return message:find(text, 1, true) ~= nil end
  if err.status == 426 then
    return "Secrets travel over TLS or loopback only: use an https endpoint, or on Docker the bridge network, whose endpoint goes "
      .. "through execd"
  elseif err.status == 412 then
    if says "dns+nft" then return 'The server must run its sidecars with the egress mode "dns+nft"' end
    return "Create the sandbox with credential_proxy = true, beside its network_policy"
  elseif err.status == 400 and (says "unknown field" or says "unsupported auth type") then
    return "The sidecar is older than this: substitutions and passthrough need an egress newer than 1.1.4"
  elseif err.status == 400 and says "not allowed by egress policy" then
    return "Allow the host by a rule of its own first: sandbox.egress:allow(host). That all is allowed by default does not count"
  elseif err.status == 409 and err.url:find("^POST") ~= nil then
    return "There is one: change it with patch_credential_vault, or delete it first"
  elseif err.status == 409 then
    return "Somebody changed it meanwhile: look at its state, and try again with the revision it has now"
  elseif err.status == 404 and says "vault not found" then
    return "Make one with create_credential_vault"
  end
end

-- Until its proxy has started the sidecar refuses all changes. What stays refused says what it requires, or rejects.
local function may_pass(err)
  local message = tostring(err.message)
  return err.status == 412 and not message:find("requires", 1, true) and not message:find("rejects", 1, true)
end

local function ask(self, endpoint, request)
  request.path = "/credential-vault" .. (request.path or "")
  request.needs, request.hints = NEEDS, hints
  return sidecar.call(self, endpoint, request)
end

-- A change, tried until the sidecar's proxy is there.
local function change(self, endpoint, request)
  local refusal
  local function try()
    local value, err = ask(self, endpoint, options.merge(request))
    if not err or not may_pass(err) then return value, err end
    refusal = err
  end
  local every = { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = core.now() + START_PATIENCE }
  local value, err = poll(request.op, every, try)
  if value ~= nil or err then return value, err end
  return nil, refusal
end

--- Makes the vault: POST /credential-vault. Only one that is not there can be made.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param opts table credentials (opensandbox.Credential[]), bindings (opensandbox.CredentialBinding[])
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault.create_credential_vault(self, endpoint, opts)
  local op = self.op or "create_credential_vault"
  check_table(op, "the options", opts, { "credentials", "bindings" })
  local sent = { secrets = {}, brings = {} }
  local body = { credentials = list_of(op, "credential", opts.credentials, credential, sent) }
  body.bindings = list_of(op, "binding", opts.bindings, binding, sent)
  return change(self, endpoint, { op = op, method = "POST", json = body, secrets = sent.secrets, decode = vault_state })
end

--- What is in the vault, without its secrets: GET /credential-vault.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault.get_credential_vault(self, endpoint)
  return ask(self, endpoint, { op = self.op or "get_credential_vault", method = "GET", decode = vault_state })
end

--- Changes the vault, all or nothing: PATCH /credential-vault. First is deleted, then replaced, then added.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param changes table expected_revision (refused when the vault has another), credentials and bindings: each { add = {...}, replace = {...}, delete = { names } }
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault.patch_credential_vault(self, endpoint, changes)
  local op = self.op or "patch_credential_vault"
  check_table(op, "the changes", changes, { "expected_revision", "credentials", "bindings" })
  demand(op, next(changes) ~= nil, "the changes must not be empty")
  if changes.expected_revision ~= nil then
    options.argument(op, "option 'expected_revision'", changes.expected_revision, "count")
  end
  local sent = { secrets = {} }
  local body = { expectedRevision = changes.expected_revision }
  body.credentials = changes_of(op, "credential", changes.credentials, credential, sent)
  body.bindings = changes_of(op, "binding", changes.bindings, binding, sent)
  return change(self, endpoint, { op = op, method = "PATCH", json = body, secrets = sent.secrets, decode = vault_state })
end

--- Removes the vault and all that is in it: DELETE /credential-vault. One that is not there is a success.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@return true? ok
---@return opensandbox.Error? err
function vault.delete_credential_vault(self, endpoint)
  local _, err = change(self, endpoint, { op = self.op or "delete_credential_vault", method = "DELETE", shielded = true })
  if err and not (err.status == 404 and err.message:find("vault not found", 1, true)) then return nil, err end
  return true
end

local function item_path(op, kind, what, name)
  return "/" .. kind .. "/" .. url.escape(options.segment(op, what, name, "find it in list_vault_" .. kind))
end

--- The credentials of the vault, without their values: GET /credential-vault/credentials.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@return table[]? list name, source_type, revision
---@return opensandbox.Error? err
function vault.list_vault_credentials(self, endpoint)
  return ask(self, endpoint, { op = self.op or "list_vault_credentials", method = "GET", path = "/credentials",
    decode = credential_list })
end

--- One credential, without its value: GET /credential-vault/credentials/{name}.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param name string
---@return table? credential name, source_type, revision
---@return opensandbox.Error? err
function vault.get_vault_credential(self, endpoint, name)
  local op = self.op or "get_vault_credential"
  return ask(self, endpoint, { op = op, method = "GET", path = item_path(op, "credentials", "the credential's name", name),
    decode = credential_info })
end

--- The bindings of the vault: GET /credential-vault/bindings. They do not say which credentials they use.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@return table[]? list name, revision, match, auth
---@return opensandbox.Error? err
function vault.list_vault_bindings(self, endpoint)
  return ask(self, endpoint, { op = self.op or "list_vault_bindings", method = "GET", path = "/bindings", decode = binding_list })
end

--- One binding: GET /credential-vault/bindings/{name}.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param name string
---@return table? binding name, revision, match, auth
---@return opensandbox.Error? err
function vault.get_vault_binding(self, endpoint, name)
  local op = self.op or "get_vault_binding"
  return ask(self, endpoint, { op = op, method = "GET", path = item_path(op, "bindings", "the binding's name", name),
    decode = binding_info })
end

return vault

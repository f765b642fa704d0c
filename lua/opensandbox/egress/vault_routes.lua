--- The credential vault: a client method for each route. The first argument is the endpoint of `discover_egress`.
---
--- The egress sidecar adds credentials to requests that leave the sandbox, for the hosts that a binding names. So the sandbox itself holds
--- no secret that it could lose. It must have been created with `credential_proxy = true` and with a network_policy that allows each of
--- these hosts by a rule.

local deadlines = require "opensandbox.loop.deadline"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"
local polling = require "opensandbox.loop.polling"
local sidecar = require "opensandbox.egress.sidecar"
local url = require "opensandbox.base.url"
local vault_objects = require "opensandbox.egress.vault_objects"

---@class (partial) opensandbox.Client
local vault_routes = {}

local MIN_EGRESS_VERSION = "1.1.0"
local PROXY_START_TIMEOUT = 5 -- seconds: the sidecar refuses all changes until its proxy has started
local INITIAL_DELAY = 0.1     -- seconds
local MAX_DELAY = 1           -- seconds

-- Returns a hint for an error of a `request`, or nil.
local function hints(err, request)
  local message = tostring(err.message)
  local function says(text) return message:find(text, 1, true) ~= nil end
  if err.status == 426 then
    return "Secrets are sent over TLS or loopback only: use an https endpoint, or on Docker the bridge network, whose endpoint "
      .. "passes through execd"
  elseif err.status == 412 then
    if says "dns+nft" then return 'The server must run its sidecars with the egress mode "dns+nft"' end
    return "Create the sandbox with credential_proxy = true, beside its network_policy"
  elseif err.status == 400 and (says "unknown field" or says "unsupported auth type") then
    return "The sidecar is too old: substitutions and passthrough need an egress newer than 1.1.4"
  elseif err.status == 400 and says "not allowed by egress policy" then
    return "Allow the host by a rule of its own first: sandbox.egress:allow(host). A default action \"allow\" is not enough"
  elseif err.status == 409 and request.method == "POST" then
    return "The vault exists already: change it with patch_credential_vault, or delete it first"
  elseif err.status == 409 then
    return "Another client changed it meanwhile: get its state, and try again with its current revision"
  elseif err.status == 404 and says "vault not found" then
    return "Create the vault with create_credential_vault"
  end
end

-- Returns whether a refusal passes when the proxy has started. A permanent one names the requirement or the fault.
local function is_transient(err)
  local message = tostring(err.message)
  return err.status == 412 and not message:find("requires", 1, true) and not message:find("rejects", 1, true)
end

local function call(self, endpoint, request)
  request.path = "/credential-vault" .. (request.path or "")
  request.needs, request.hints = MIN_EGRESS_VERSION, hints
  return sidecar.call(self, endpoint, request)
end

-- Makes a change, and repeats it until the sidecar's proxy has started.
local function change(self, endpoint, request)
  local refusal
  local function attempt()
    local value, err = call(self, endpoint, tables.merge(request))
    if not err or not is_transient(err) then return value, err end
    refusal = err
  end
  local polled = { initial_delay = INITIAL_DELAY, max_delay = MAX_DELAY, deadline = deadlines.new(PROXY_START_TIMEOUT) }
  local value, err = polling.poll(request.op, polled, attempt)
  if value ~= nil or err then return value, err end
  return nil, refusal
end

--- The credentials, and the requests that they are for.
--- ```lua
--- local opts = {
---   credentials = { { name = "token", value = secret } },
---   bindings = { { name = "api", hosts = { "api.example.com" }, auth = { type = "bearer", credential = "token" } } },
--- }
--- assert(sandbox.vault:create(opts))
--- ```
---@class opensandbox.VaultOpts
---@field credentials opensandbox.Credential[] the secrets
---@field bindings opensandbox.CredentialBinding[] the requests that get them

--- Creates the vault: POST /credential-vault. It must not exist yet.
--- ```lua
--- assert(client:create_credential_vault(egress, {
---   credentials = { { name = "token", value = secret } },
---   bindings = { { name = "api", hosts = { "api.example.com" }, auth = { type = "bearer", credential = "token" } } },
--- }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param contents opensandbox.VaultOpts
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault_routes:create_credential_vault(endpoint, contents, opts)
  local op = self.op or "create_credential_vault"
  local body, secrets = vault_objects.create_body(op, contents)
  return change(self, endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "POST", json = body, secrets = secrets, decode = vault_objects.vault_state })
end

--- Returns the state of the vault, without its secrets: GET /credential-vault.
--- ```lua
--- print(assert(client:get_credential_vault(egress)).revision)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault_routes:get_credential_vault(endpoint, opts)
  local op = self.op or "get_credential_vault"
  return call(self, endpoint, { op = op, timeout = options.timeout(op, opts), method = "GET", decode = vault_objects.vault_state })
end

--- Changes of a vault, which are made together or not at all.
--- ```lua
--- assert(sandbox.vault:patch {
---   expected_revision = 3, credentials = { replace = { { name = "token", value = secret } } }, bindings = { delete = { "old" } },
--- })
--- ```
---@class opensandbox.VaultChanges
---@field expected_revision? integer the change is refused when the vault has another one
---@field credentials? { add?: opensandbox.Credential[], replace?: opensandbox.Credential[], delete?: string[] } those to add, to replace, and the names of those to delete
---@field bindings? { add?: opensandbox.CredentialBinding[], replace?: opensandbox.CredentialBinding[], delete?: string[] } those to add, to replace, and the names of those to delete

--- Changes the vault, all or nothing: PATCH /credential-vault. The sidecar deletes first, then replaces, then adds.
--- ```lua
--- assert(client:patch_credential_vault(egress, { credentials = { replace = { { name = "token", value = secret } } } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param changes opensandbox.VaultChanges
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function vault_routes:patch_credential_vault(endpoint, changes, opts)
  local op = self.op or "patch_credential_vault"
  local body, secrets = vault_objects.patch_body(op, changes)
  return change(self, endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "PATCH", json = body, secrets = secrets, decode = vault_objects.vault_state })
end

--- Deletes the vault with its credentials and bindings: DELETE /credential-vault. The call succeeds when there is none.
--- ```lua
--- assert(client:delete_credential_vault(egress))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function vault_routes:delete_credential_vault(endpoint, opts)
  local op = self.op or "delete_credential_vault"
  local _, err = change(self, endpoint, { op = op, timeout = options.timeout(op, opts), method = "DELETE", shielded = true })
  if err and not (err.status == 404 and err.message:find("vault not found", 1, true)) then return nil, err end
  return true
end

local function item_path(op, kind, what, name)
  return "/" .. kind .. "/" .. url.escape(options.proxy_safe_segment(op, what, name, "find it in list_vault_" .. kind))
end

--- Returns the credentials of the vault, without their values: GET /credential-vault/credentials.
--- ```lua
--- for _, credential in ipairs(assert(client:list_vault_credentials(egress))) do print(credential.name) end
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CredentialInfo[]? list
---@return opensandbox.Error? err
function vault_routes:list_vault_credentials(endpoint, opts)
  local op = self.op or "list_vault_credentials"
  return call(self, endpoint, { op = op, timeout = options.timeout(op, opts), method = "GET", path = "/credentials",
    decode = vault_objects.credential_list })
end

--- Returns one credential, without its value: GET /credential-vault/credentials/{name}.
--- ```lua
--- print(assert(client:get_vault_credential(egress, "token")).revision)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CredentialInfo? credential
---@return opensandbox.Error? err
function vault_routes:get_vault_credential(endpoint, name, opts)
  local op = self.op or "get_vault_credential"
  return call(self, endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = item_path(op, "credentials", "the credential's name", name),
    decode = vault_objects.credential_info })
end

--- Returns the bindings of the vault, without the names of their credentials: GET /credential-vault/bindings.
--- ```lua
--- for _, binding in ipairs(assert(client:list_vault_bindings(egress))) do print(binding.name) end
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.BindingInfo[]? list
---@return opensandbox.Error? err
function vault_routes:list_vault_bindings(endpoint, opts)
  local op = self.op or "list_vault_bindings"
  return call(self, endpoint, { op = op, timeout = options.timeout(op, opts), method = "GET", path = "/bindings",
    decode = vault_objects.binding_list })
end

--- Returns one binding: GET /credential-vault/bindings/{name}.
--- ```lua
--- print(assert(client:get_vault_binding(egress, "api")).name)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.BindingInfo? binding
---@return opensandbox.Error? err
function vault_routes:get_vault_binding(endpoint, name, opts)
  local op = self.op or "get_vault_binding"
  return call(self, endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = item_path(op, "bindings", "the binding's name", name),
    decode = vault_objects.binding_info })
end

return vault_routes

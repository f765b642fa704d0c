--- The credential vault of one sandbox: `sandbox.vault`. The egress sidecar adds its credentials to requests that leave the sandbox.

local class = require "opensandbox.base.class"

--- Credentials that are added to the requests of a sandbox, and that it never sees: `sandbox.vault`. The sandbox must have been created
--- with a `network_policy` and `credential_proxy = true`.
--- ```lua
--- print(assert(sandbox.vault:get()).revision)
--- ```
---@class opensandbox.Vault
local Vault = {}
Vault.__index = Vault
Vault.__name = "opensandbox.Vault"

local vault = {}

---@param sandbox opensandbox.Sandbox
---@return opensandbox.Vault
function vault.of(sandbox)
  return setmetatable({ _sandbox = sandbox }, Vault)
end

--- Creates the vault: POST /credential-vault of the egress API.
--- ```lua
--- assert(sandbox.vault:create {
---   credentials = { { name = "token", value = secret } },
---   bindings = { { name = "api", hosts = { "api.example.com" }, auth = { type = "bearer", credential = "token" } } },
--- })
--- ```
---@param opts opensandbox.VaultOpts
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:create(opts)
  return self._sandbox:call_egress("vault:create", "create_credential_vault", opts)
end

--- Returns its state, without its secrets: GET /credential-vault.
--- ```lua
--- print(assert(sandbox.vault:get()).revision)
--- ```
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:get()
  return self._sandbox:call_egress("vault:get", "get_credential_vault")
end

--- Changes it, all or nothing: PATCH /credential-vault.
--- ```lua
--- assert(sandbox.vault:patch { credentials = { replace = { { name = "token", value = secret } } } })
--- ```
---@param changes opensandbox.VaultChanges
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:patch(changes)
  return self._sandbox:call_egress("vault:patch", "patch_credential_vault", changes)
end

--- Deletes it: DELETE /credential-vault. The call succeeds when there is none.
--- ```lua
--- assert(sandbox.vault:delete())
--- ```
---@return true? ok
---@return opensandbox.Error? err
function Vault:delete()
  return self._sandbox:call_egress("vault:delete", "delete_credential_vault")
end

--- Returns its credentials, without their values: GET /credential-vault/credentials.
--- ```lua
--- for _, credential in ipairs(assert(sandbox.vault:credentials())) do print(credential.name) end
--- ```
---@return opensandbox.CredentialInfo[]? list
---@return opensandbox.Error? err
function Vault:credentials()
  return self._sandbox:call_egress("vault:credentials", "list_vault_credentials")
end

--- Returns one credential, without its value: GET /credential-vault/credentials/{name}.
--- ```lua
--- print(assert(sandbox.vault:credential("token")).revision)
--- ```
---@param name string
---@return opensandbox.CredentialInfo? credential
---@return opensandbox.Error? err
function Vault:credential(name)
  return self._sandbox:call_egress("vault:credential", "get_vault_credential", name)
end

--- Returns its bindings, without the names of their credentials: GET /credential-vault/bindings.
--- ```lua
--- for _, binding in ipairs(assert(sandbox.vault:bindings())) do print(binding.name) end
--- ```
---@return opensandbox.BindingInfo[]? list
---@return opensandbox.Error? err
function Vault:bindings()
  return self._sandbox:call_egress("vault:bindings", "list_vault_bindings")
end

--- Returns one binding: GET /credential-vault/bindings/{name}.
--- ```lua
--- print(assert(sandbox.vault:binding("api")).auth.type)
--- ```
---@param name string
---@return opensandbox.BindingInfo? binding
---@return opensandbox.Error? err
function Vault:binding(name)
  return self._sandbox:call_egress("vault:binding", "get_vault_binding", name)
end

class.check_colon(Vault, "vault")

return vault

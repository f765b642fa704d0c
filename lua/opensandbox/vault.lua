--- The credential vault of one sandbox: `sandbox.vault`. The egress sidecar adds its credentials to requests that leave the sandbox.

local class = require "opensandbox.base.class"
local deadline = require "opensandbox.loop.deadline"
local options = require "opensandbox.base.options"

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

-- Calls a client method of the sidecar within the `timeout` of the options.
local function call(self, op, opts, method, ...)
  return self._sandbox:call_egress(op, deadline.new(options.timeout(op, opts)), method, ...)
end

--- Creates the vault: POST /credential-vault of the egress API.
--- ```lua
--- assert(sandbox.vault:create {
---   credentials = { { name = "token", value = secret } },
---   bindings = { { name = "api", hosts = { "api.example.com" }, auth = { type = "bearer", credential = "token" } } },
--- })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@param contents opensandbox.VaultOpts
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:create(contents, opts)
  return call(self, "vault:create", opts, "create_credential_vault", contents)
end

--- Returns its state, without its secrets: GET /credential-vault.
--- ```lua
--- print(assert(sandbox.vault:get()).revision)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:get(opts)
  return call(self, "vault:get", opts, "get_credential_vault")
end

--- Changes it, all or nothing: PATCH /credential-vault.
--- ```lua
--- assert(sandbox.vault:patch { credentials = { replace = { { name = "token", value = secret } } } })
--- ```
---@param changes opensandbox.VaultChanges
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:patch(changes, opts)
  return call(self, "vault:patch", opts, "patch_credential_vault", changes)
end

--- Deletes the vault: DELETE /credential-vault. The call succeeds when there is none.
--- ```lua
--- assert(sandbox.vault:delete())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Vault:delete(opts)
  return call(self, "vault:delete", opts, "delete_credential_vault")
end

--- Returns its credentials, without their values: GET /credential-vault/credentials.
--- ```lua
--- for _, credential in ipairs(assert(sandbox.vault:credentials())) do print(credential.name) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CredentialInfo[]? list
---@return opensandbox.Error? err
function Vault:credentials(opts)
  return call(self, "vault:credentials", opts, "list_vault_credentials")
end

--- Returns one credential, without its value: GET /credential-vault/credentials/{name}.
--- ```lua
--- print(assert(sandbox.vault:credential("token")).revision)
--- ```
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CredentialInfo? credential
---@return opensandbox.Error? err
function Vault:credential(name, opts)
  return call(self, "vault:credential", opts, "get_vault_credential", name)
end

--- Returns its bindings, without the names of their credentials: GET /credential-vault/bindings.
--- ```lua
--- for _, binding in ipairs(assert(sandbox.vault:bindings())) do print(binding.name) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.BindingInfo[]? list
---@return opensandbox.Error? err
function Vault:bindings(opts)
  return call(self, "vault:bindings", opts, "list_vault_bindings")
end

--- Returns one binding: GET /credential-vault/bindings/{name}.
--- ```lua
--- print(assert(sandbox.vault:binding("api")).auth.type)
--- ```
---@param name string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.BindingInfo? binding
---@return opensandbox.Error? err
function Vault:binding(name, opts)
  return call(self, "vault:binding", opts, "get_vault_binding", name)
end

class.check_colon(Vault, "vault")

return vault

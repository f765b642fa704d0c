--- What may leave one sandbox, and with which credentials: `sandbox.egress` and `sandbox.vault`.

local network_policy = require "opensandbox.lifecycle.network_policy"
local presets = require "opensandbox.egress.presets"

---@class opensandbox.Egress
local Egress = {}
Egress.__index = Egress
Egress.__name = "opensandbox.Egress"

---@class opensandbox.Vault
local Vault = {}
Vault.__index = Vault
Vault.__name = "opensandbox.Vault"

local egress = {}

---@param sandbox opensandbox.Sandbox
---@return opensandbox.Egress
---@return opensandbox.Vault
function egress.of(sandbox)
  return setmetatable({ _sandbox = sandbox }, Egress), setmetatable({ _sandbox = sandbox }, Vault)
end

--- The policy that holds now, in the form that create and replace take.
---@return opensandbox.NetworkPolicy? policy
---@return opensandbox.Error? err
function Egress:policy()
  local status, err = self._sandbox:call_egress("egress:policy", "get_egress_policy")
  if not status then return nil, err end
  return status.policy
end

local function add_rules(self, op, action, ...)
  return self._sandbox:call_egress(op, "patch_egress_policy", presets.rules(action, presets.hosts(op, ...)))
end

--- Lets hosts be reached. The newest rule counts before the older ones.
---@param ... string|string[] hosts, `*.suffix`, addresses, CIDRs, and names of presets: "pypi", "npm", "github" ...
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:allow(...)
  return add_rules(self, "egress:allow", "allow", ...)
end

--- Keeps hosts from being reached.
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:deny(...)
  return add_rules(self, "egress:deny", "deny", ...)
end

--- Removes the rules for hosts, so that other rules and the default action hold for them.
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:remove(...)
  local op = "egress:remove"
  return self._sandbox:call_egress(op, "delete_egress_rules", presets.hosts(op, ...))
end

--- Puts another policy in the place of the whole.
---@param policy opensandbox.NetworkPolicy for example opensandbox.egress.only("pypi")
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:replace(policy)
  local op = "egress:replace"
  network_policy.check(op, policy)
  return self._sandbox:call_egress(op, "replace_egress_policy", policy)
end

--- Makes the vault: credentials, and the requests that get them.
---@param opts table credentials (opensandbox.Credential[]), bindings (opensandbox.CredentialBinding[])
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:create(opts)
  return self._sandbox:call_egress("vault:create", "create_credential_vault", opts)
end

--- What is in it, without its secrets.
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:get()
  return self._sandbox:call_egress("vault:get", "get_credential_vault")
end

--- Changes it, all or nothing.
---@param changes table expected_revision, credentials and bindings: each { add, replace, delete }
---@return opensandbox.VaultState? state
---@return opensandbox.Error? err
function Vault:patch(changes)
  return self._sandbox:call_egress("vault:patch", "patch_credential_vault", changes)
end

--- Removes it. One that is not there is a success.
---@return true? ok
---@return opensandbox.Error? err
function Vault:delete()
  return self._sandbox:call_egress("vault:delete", "delete_credential_vault")
end

--- Its credentials, without their values.
---@return table[]? list name, source_type, revision
---@return opensandbox.Error? err
function Vault:credentials()
  return self._sandbox:call_egress("vault:credentials", "list_vault_credentials")
end

--- One of them.
---@param name string
---@return table? credential
---@return opensandbox.Error? err
function Vault:credential(name)
  return self._sandbox:call_egress("vault:credential", "get_vault_credential", name)
end

--- Its bindings. They do not say which credentials they use.
---@return table[]? list name, revision, match, auth
---@return opensandbox.Error? err
function Vault:bindings()
  return self._sandbox:call_egress("vault:bindings", "list_vault_bindings")
end

--- One of them.
---@param name string
---@return table? binding
---@return opensandbox.Error? err
function Vault:binding(name)
  return self._sandbox:call_egress("vault:binding", "get_vault_binding", name)
end

return egress

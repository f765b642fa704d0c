--- The network policy of one sandbox: `sandbox.egress`.

local class = require "opensandbox.base.class"
local network_policy = require "opensandbox.lifecycle.network_policy"
local presets = require "opensandbox.egress.presets"

---@class opensandbox.Egress
local Egress = {}
Egress.__index = Egress
Egress.__name = "opensandbox.Egress"

local egress = {}

---@param sandbox opensandbox.Sandbox
---@return opensandbox.Egress
function egress.of(sandbox)
  return setmetatable({ _sandbox = sandbox }, Egress)
end

--- Returns the current policy, in the form that create and replace accept: GET /policy of the egress API.
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

--- Allows hosts: PATCH /policy. New rules come before older ones.
---@param ... string|string[] hosts, `*.suffix`, addresses, CIDRs, and names of presets: "pypi", "npm", "github" ...
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:allow(...)
  return add_rules(self, "egress:allow", "allow", ...)
end

--- Denies hosts: PATCH /policy. New rules come before older ones.
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:deny(...)
  return add_rules(self, "egress:deny", "deny", ...)
end

--- Removes the rules for hosts, so that other rules and the default action apply to them: DELETE /policy.
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:remove(...)
  local op = "egress:remove"
  return self._sandbox:call_egress(op, "delete_egress_rules", presets.hosts(op, ...))
end

--- Replaces the whole policy: PUT /policy.
---@param policy opensandbox.NetworkPolicy for example opensandbox.egress.only("pypi")
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:replace(policy)
  local op = "egress:replace"
  network_policy.check(op, policy)
  return self._sandbox:call_egress(op, "replace_egress_policy", policy)
end

class.check_colon(Egress, "egress")

return egress

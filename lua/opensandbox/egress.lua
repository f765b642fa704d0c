--- The network policy of one sandbox: `sandbox.egress`.

local class = require "opensandbox.base.class"
local network_policy = require "opensandbox.lifecycle.network_policy"
local presets = require "opensandbox.egress.presets"

--- The hosts that a sandbox may reach: `sandbox.egress`. The sandbox must have been created with a `network_policy`.
--- ```lua
--- assert(sandbox.egress:allow("pypi"))
--- ```
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
--- ```lua
--- local policy = assert(sandbox.egress:policy())
--- for _, rule in ipairs(policy.egress or {}) do print(rule.action, rule.target) end
--- ```
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
--- ```lua
--- assert(sandbox.egress:allow("pypi", "my.host.example"))
--- ```
---@param ... string|string[] hosts, `*.suffix`, addresses, CIDRs, and names of presets: "pypi", "npm", "github" ...
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:allow(...)
  return add_rules(self, "egress:allow", "allow", ...)
end

--- Denies hosts: PATCH /policy. New rules come before older ones.
--- ```lua
--- assert(sandbox.egress:deny("*.tracker.example"))
--- ```
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:deny(...)
  return add_rules(self, "egress:deny", "deny", ...)
end

--- Removes the rules for hosts, so that other rules and the default action apply to them: DELETE /policy.
--- ```lua
--- assert(sandbox.egress:remove("my.host.example"))
--- ```
---@param ... string|string[] as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:remove(...)
  local op = "egress:remove"
  return self._sandbox:call_egress(op, "delete_egress_rules", presets.hosts(op, ...))
end

--- Replaces the whole policy: PUT /policy.
--- ```lua
--- assert(sandbox.egress:replace(opensandbox.egress.only("pypi", "npm")))
--- ```
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

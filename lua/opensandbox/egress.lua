--- The network policy of one sandbox: `sandbox.egress`.

local class = require "opensandbox.base.class"
local network_policy = require "opensandbox.lifecycle.network_policy"
local presets = require "opensandbox.egress.presets"

---@class opensandbox.Egress
local Egress = {}
Egress.__index = Egress
Egress.__name = "opensandbox.Egress"

local egress = {}

local unpack = table.unpack or unpack -- luacheck: std max

---@param sandbox opensandbox.Sandbox
---@return opensandbox.Egress
function egress.of(sandbox)
  return setmetatable({ _sandbox = sandbox }, Egress)
end

--- Returns the current policy, in the form that create and replace accept: GET /policy of the egress API.
---@param opts? { timeout?: number } timeout in seconds
---@return opensandbox.NetworkPolicy? policy
---@return opensandbox.Error? err
function Egress:policy(opts)
  local status, err = self._sandbox:call_egress("egress:policy", opts, "get_egress_policy")
  if not status then return nil, err end
  return status.policy
end

-- Returns the hosts among the arguments, and the option table if it is the last argument. A table with a number as its key is a list of
-- hosts.
local function hosts_and_options(op, ...)
  local given, count = { ... }, select("#", ...)
  local last = given[count]
  local has_options = type(last) == "table" and type(next(last)) == "string"
  return presets.hosts(op, unpack(given, 1, has_options and count - 1 or count)), has_options and last or nil
end

local function add_rules(self, op, action, ...)
  local hosts, opts = hosts_and_options(op, ...)
  return self._sandbox:call_egress(op, opts, "patch_egress_policy", presets.rules(action, hosts))
end

--- Allows hosts: PATCH /policy. New rules come before older ones.
---@param ... string|string[]|{ timeout?: number } hosts, `*.suffix`, addresses, CIDRs, and names of presets: "pypi", "npm", "github" ...; the last may be options: timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:allow(...)
  return add_rules(self, "egress:allow", "allow", ...)
end

--- Denies hosts: PATCH /policy. New rules come before older ones.
---@param ... string|string[]|{ timeout?: number } as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:deny(...)
  return add_rules(self, "egress:deny", "deny", ...)
end

--- Removes the rules for hosts, so that other rules and the default action apply to them: DELETE /policy.
---@param ... string|string[]|{ timeout?: number } as for allow
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:remove(...)
  local op = "egress:remove"
  local hosts, opts = hosts_and_options(op, ...)
  return self._sandbox:call_egress(op, opts, "delete_egress_rules", hosts)
end

--- Replaces the whole policy: PUT /policy.
---@param policy opensandbox.NetworkPolicy for example opensandbox.egress.only("pypi")
---@param opts? { timeout?: number } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function Egress:replace(policy, opts)
  local op = "egress:replace"
  network_policy.check(op, policy)
  return self._sandbox:call_egress(op, opts, "replace_egress_policy", policy)
end

class.check_colon(Egress, "egress")

return egress

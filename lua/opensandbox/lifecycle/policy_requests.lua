--- The requests that read and change the network policy of a sandbox, without their path: the egress sidecar and the lifecycle server take
--- and answer the same. All of them are idempotent.

local json = require "opensandbox.base.json"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

local policy_requests = {}

--- The state of the network policy of a sandbox.
--- ```lua
--- local status = assert(sandbox.egress:allow("pypi"))
--- print(status.status, status.mode, status.enforcement_mode, status.reason, status.policy and status.policy.default_action)
--- ```
---@class opensandbox.EgressStatus
---@field status string "ok"
---@field mode? string "deny_all", "allow_all" or "enforcing": the effect of the policy
---@field enforcement_mode? string "dns" (host names only) or "dns+nft" (addresses too)
---@field reason? string why the policy is not enforced as asked
---@field policy? opensandbox.NetworkPolicy in the response to a read; a replacement accepts it unchanged

---@return opensandbox.EgressStatus? status
---@return string? missing
local function egress_status(object)
  if type(object.status) ~= "string" then return nil, "status of a policy" end
  local policy = type(object.policy) == "table" and network_policy.from_wire(object.policy) or nil
  if object.policy ~= nil and not policy then return nil, "policy" end
  return { status = object.status, mode = object.mode, enforcement_mode = object.enforcementMode, reason = object.reason,
    policy = policy }
end

local function status_with_policy(object)
  local status, missing = egress_status(object)
  if status and not status.policy then return nil, "policy" end
  return status, missing
end

--- Reads the policy.
---@param op string the method that the user called
---@return table request
function policy_requests.get(op)
  return { op = op, method = "GET", decode = status_with_policy }
end

--- Adds rules, or replaces those for the same targets.
---@param op string
---@param rules opensandbox.EgressRule[]
---@return table request
function policy_requests.patch(op, rules)
  network_policy.check_rules(op, rules)
  if #rules == 0 then options.raise(op, "the list of rules must not be empty") end
  return { op = op, method = "PATCH", json = network_policy.rules_to_wire(rules), decode = egress_status, may_repeat = true }
end

--- Deletes the rules for some targets.
---@param op string
---@param targets string|string[]
---@return table request
function policy_requests.delete(op, targets)
  if type(targets) == "string" then targets = { targets } end
  targets = options.argument(op, "the targets", targets, "string list")
  if #targets == 0 then options.raise(op, "the list of targets must not be empty") end
  for i, target in ipairs(targets) do network_policy.check_target(op, "target " .. i, target) end
  return { op = op, method = "DELETE", json = json.array(tables.merge(targets)), decode = egress_status, may_repeat = true }
end

--- Replaces the whole policy.
---@param op string
---@param policy opensandbox.NetworkPolicy
---@return table request
function policy_requests.replace(op, policy)
  network_policy.check(op, policy)
  return { op = op, method = "PUT", json = network_policy.to_wire(policy), decode = egress_status, may_repeat = true }
end

return policy_requests

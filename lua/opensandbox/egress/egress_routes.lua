--- The network policy of a running sandbox: a client method for each route of the egress API. The first argument is the endpoint from
--- `discover_egress`. Only a sandbox that was created with a network_policy has this API.
---
--- A change holds for new connections and look-ups; what is open, or was looked up before, lasts for some seconds.

local json = require "opensandbox.base.json"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"
local sidecar = require "opensandbox.egress.sidecar"

local egress = {}

---@class opensandbox.EgressStatus
---@field status string "ok"
---@field mode? string "deny_all", "allow_all" or "enforcing": what the policy comes to
---@field enforcement_mode? string "dns" (host names only) or "dns+nft" (addresses, too)
---@field reason? string what there is to say
---@field policy? opensandbox.NetworkPolicy in the answer of get_egress_policy: can be given to replace_egress_policy as it is

---@return opensandbox.EgressStatus? status
---@return string? missing
local function egress_status(answer)
  if type(answer.status) ~= "string" then return nil, "status of a policy" end
  local policy = type(answer.policy) == "table" and network_policy.from_wire(answer.policy) or nil
  if answer.policy ~= nil and not policy then return nil, "policy" end
  return { status = answer.status, mode = answer.mode, enforcement_mode = answer.enforcementMode, reason = answer.reason,
    policy = policy }
end

local function status_with_policy(answer)
  local status, missing = egress_status(answer)
  if status and not status.policy then return nil, "policy" end
  return status, missing
end

local function hints(err)
  if err.status == 400 and err.message:find("credential vault", 1, true) then
    return "A binding of the credential vault needs its hosts allowed: change the binding first"
  end
end

-- A call to /policy, in the first versions of the sidecar if it does not say otherwise. Each sets what it says, however often it is said.
local function policy_call(self, endpoint, request)
  request.path, request.hints, request.may_repeat = "/policy", hints, true
  request.decode, request.needs = request.decode or egress_status, request.needs or "1.0.0"
  return sidecar.call(self, endpoint, request)
end

--- The policy: GET /policy. What the operator of the server always allows or denies is not in it.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@return opensandbox.EgressStatus? status with its policy
---@return opensandbox.Error? err
function egress.get_egress_policy(self, endpoint)
  return policy_call(self, endpoint, { op = self.op or "get_egress_policy", method = "GET", decode = status_with_policy })
end

--- Adds rules, before those there are: PATCH /policy. A rule for a target that has one replaces it; the default action stays.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param rules opensandbox.EgressRule[]
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress.patch_egress_policy(self, endpoint, rules)
  local op = self.op or "patch_egress_policy"
  network_policy.check_rules(op, rules)
  if #rules == 0 then options.raise(op, "the list of rules must not be empty") end
  return policy_call(self, endpoint, { op = op, method = "PATCH", json = network_policy.rules_to_wire(rules) })
end

--- Removes the rules for some targets: DELETE /policy (egress from 1.0.13). Targets without a rule are passed over.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param targets string|string[]
---@return opensandbox.EgressStatus? status its reason says so when no rule was there
---@return opensandbox.Error? err
function egress.delete_egress_rules(self, endpoint, targets)
  local op = self.op or "delete_egress_rules"
  if type(targets) == "string" then targets = { targets } end
  options.argument(op, "the targets", targets, "list")
  if #targets == 0 then options.raise(op, "the list of targets must not be empty") end
  for i, target in ipairs(targets) do network_policy.check_target(op, "target " .. i, target) end
  return policy_call(self, endpoint, { op = op, method = "DELETE", json = json.array(options.merge(targets)), needs = "1.0.13" })
end

--- Puts another policy in the place of the whole: PUT /policy. The only way to change the default action.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param policy opensandbox.NetworkPolicy without a default_action: "deny"
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress.replace_egress_policy(self, endpoint, policy)
  local op = self.op or "replace_egress_policy"
  network_policy.check(op, policy)
  return policy_call(self, endpoint, { op = op, method = "PUT", json = network_policy.to_wire(policy) })
end

return egress

--- The network policy of a running sandbox: a client method for each route of the egress API. The first argument is the endpoint of
--- `discover_egress`. Only a sandbox that was created with a network_policy has this API.
---
--- A change applies to new connections and name lookups. Open connections and earlier lookups stay valid for some seconds.

local json = require "opensandbox.base.json"
local network_policy = require "opensandbox.lifecycle.network_policy"
local options = require "opensandbox.base.options"
local sidecar = require "opensandbox.egress.sidecar"
local tables = require "opensandbox.base.tables"

---@class (partial) opensandbox.Client
local egress_routes = {}

--- The state of the egress sidecar.
--- ```lua
--- local status = assert(sandbox.egress:allow("pypi"))
--- print(status.status, status.mode, status.enforcement_mode, status.reason, status.policy and status.policy.default_action)
--- ```
---@class opensandbox.EgressStatus
---@field status string "ok"
---@field mode? string "deny_all", "allow_all" or "enforcing": the effect of the policy
---@field enforcement_mode? string "dns" (host names only) or "dns+nft" (addresses too)
---@field reason? string why the policy is not enforced as asked
---@field policy? opensandbox.NetworkPolicy in the response of get_egress_policy; replace_egress_policy accepts it unchanged

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

local function hints(err)
  if err.status == 400 and err.message:find("credential vault", 1, true) then
    return "A binding of the credential vault needs its hosts allowed: change the binding first"
  end
end

-- Makes a call to /policy. It exists since egress 1.0.0, unless `needs` says otherwise. All of these calls are idempotent.
local function policy_call(self, endpoint, request)
  request.path, request.hints, request.may_repeat = "/policy", hints, true
  request.decode, request.needs = request.decode or egress_status, request.needs or "1.0.0"
  return sidecar.call(self, endpoint, request)
end

--- Returns the policy: GET /policy. It does not contain the rules that the operator of the server adds.
--- ```lua
--- print(assert(client:get_egress_policy(egress)).mode)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@return opensandbox.EgressStatus? status with its policy
---@return opensandbox.Error? err
function egress_routes:get_egress_policy(endpoint)
  return policy_call(self, endpoint, { op = self.op or "get_egress_policy", method = "GET", decode = status_with_policy })
end

--- Adds rules before the existing ones: PATCH /policy. A rule for the target of an existing rule replaces it. The default action stays.
--- ```lua
--- assert(client:patch_egress_policy(egress, { { action = "allow", target = "pypi.org" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param rules opensandbox.EgressRule[]
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress_routes:patch_egress_policy(endpoint, rules)
  local op = self.op or "patch_egress_policy"
  network_policy.check_rules(op, rules)
  if #rules == 0 then options.raise(op, "the list of rules must not be empty") end
  return policy_call(self, endpoint, { op = op, method = "PATCH", json = network_policy.rules_to_wire(rules) })
end

--- Deletes the rules for some targets: DELETE /policy (egress from 1.0.13). Targets without a rule are ignored.
--- ```lua
--- assert(client:delete_egress_rules(egress, { "pypi.org" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param targets string|string[]
---@return opensandbox.EgressStatus? status with a reason when no rule existed
---@return opensandbox.Error? err
function egress_routes:delete_egress_rules(endpoint, targets)
  local op = self.op or "delete_egress_rules"
  if type(targets) == "string" then targets = { targets } end
  targets = options.argument(op, "the targets", targets, "string list")
  if #targets == 0 then options.raise(op, "the list of targets must not be empty") end
  for i, target in ipairs(targets) do network_policy.check_target(op, "target " .. i, target) end
  return policy_call(self, endpoint, { op = op, method = "DELETE", json = json.array(tables.merge(targets)), needs = "1.0.13" })
end

--- Replaces the whole policy: PUT /policy. Only this changes the default action.
--- ```lua
--- assert(client:replace_egress_policy(egress, { default_action = "deny", egress = { { action = "allow", target = "pypi.org" } } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param policy opensandbox.NetworkPolicy without a default_action: "deny"
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress_routes:replace_egress_policy(endpoint, policy)
  local op = self.op or "replace_egress_policy"
  network_policy.check(op, policy)
  return policy_call(self, endpoint, { op = op, method = "PUT", json = network_policy.to_wire(policy) })
end

return egress_routes

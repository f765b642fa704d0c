--- The network policy of a running sandbox: a client method for each route of the egress API. The first argument is the endpoint of
--- `discover_egress`. Only a sandbox that was created with a network_policy has this API.
---
--- A change applies to new connections and name lookups. Open connections and earlier lookups stay valid for some seconds.

local options = require "opensandbox.base.options"
local policy_requests = require "opensandbox.lifecycle.policy_requests"
local sidecar = require "opensandbox.egress.sidecar"

---@class (partial) opensandbox.Client
local egress_routes = {}

local function hints(err)
  if err.status == 400 and err.message:find("credential vault", 1, true) then
    return "A binding of the credential vault needs its hosts allowed: change the binding first"
  end
end

-- Makes a call to /policy. It exists since egress 1.0.0, unless `needs` says otherwise.
local function policy_call(self, endpoint, request, opts, needs)
  request.timeout = options.timeout(request.op, opts)
  request.path, request.hints, request.needs = "/policy", hints, needs or "1.0.0"
  return sidecar.call(self, endpoint, request)
end

--- Returns the policy: GET /policy. It does not contain the rules that the operator of the server adds.
--- ```lua
--- print(assert(client:get_egress_policy(egress)).mode)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status with its policy
---@return opensandbox.Error? err
function egress_routes:get_egress_policy(endpoint, opts)
  return policy_call(self, endpoint, policy_requests.get(self.op or "get_egress_policy"), opts)
end

--- Adds rules before the existing ones: PATCH /policy. A rule for the target of an existing rule replaces it. The default action stays.
--- ```lua
--- assert(client:patch_egress_policy(egress, { { action = "allow", target = "pypi.org" } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param rules opensandbox.EgressRule[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress_routes:patch_egress_policy(endpoint, rules, opts)
  return policy_call(self, endpoint, policy_requests.patch(self.op or "patch_egress_policy", rules), opts)
end

--- Deletes the rules for some targets: DELETE /policy (egress from 1.0.13). Targets without a rule are ignored.
--- ```lua
--- assert(client:delete_egress_rules(egress, { "pypi.org" }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param targets string|string[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status with a reason when no rule existed
---@return opensandbox.Error? err
function egress_routes:delete_egress_rules(endpoint, targets, opts)
  return policy_call(self, endpoint, policy_requests.delete(self.op or "delete_egress_rules", targets), opts, "1.0.13")
end

--- Replaces the whole policy: PUT /policy. Only this changes the default action.
--- ```lua
--- assert(client:replace_egress_policy(egress, { default_action = "deny", egress = { { action = "allow", target = "pypi.org" } } }))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param policy opensandbox.NetworkPolicy without a default_action: "deny"
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function egress_routes:replace_egress_policy(endpoint, policy, opts)
  return policy_call(self, endpoint, policy_requests.replace(self.op or "replace_egress_policy", policy), opts)
end

return egress_routes

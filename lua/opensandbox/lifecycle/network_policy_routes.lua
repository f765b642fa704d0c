--- The network policy of a sandbox through the lifecycle server: a client method for each route. Servers from 1.1.1.
---
--- The server changes the policy of a sandbox that was made from a template itself. For others it passes the request on to the egress
--- sidecar, which only a sandbox that was created with a network_policy has.

local options = require "opensandbox.base.options"
local policy_requests = require "opensandbox.lifecycle.policy_requests"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"

---@class (partial) opensandbox.Client
local network_policy_routes = {}

local call_options = { timeout = "seconds" }

local function call(self, id, request, opts)
  request.timeout = options.check(request.op, opts, call_options).timeout
  request.path, request.sandbox_id = sandbox_requests.path(request.op, id, "/networkpolicy"), id
  return self.http:call(request)
end

--- Returns the policy: GET /sandboxes/{id}/networkpolicy.
--- ```lua
--- print(assert(client:get_network_policy(id)).mode)
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status with its policy
---@return opensandbox.Error? err
function network_policy_routes:get_network_policy(id, opts)
  return call(self, id, policy_requests.get(self.op or "get_network_policy"), opts)
end

--- Adds rules: PATCH /sandboxes/{id}/networkpolicy. A rule for the target of an existing rule replaces it, and the default action stays. New
--- rules come before the existing ones, but after them for a sandbox that was made from a template.
--- ```lua
--- assert(client:patch_network_policy(id, { { action = "allow", target = "pypi.org" } }))
--- ```
---@param id string
---@param rules opensandbox.EgressRule[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function network_policy_routes:patch_network_policy(id, rules, opts)
  return call(self, id, policy_requests.patch(self.op or "patch_network_policy", rules), opts)
end

--- Deletes the rules for some targets: DELETE /sandboxes/{id}/networkpolicy. Targets without a rule are ignored.
--- ```lua
--- assert(client:delete_network_rules(id, { "pypi.org" }))
--- ```
---@param id string
---@param targets string|string[]
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function network_policy_routes:delete_network_rules(id, targets, opts)
  return call(self, id, policy_requests.delete(self.op or "delete_network_rules", targets), opts)
end

--- Replaces the whole policy: PUT /sandboxes/{id}/networkpolicy. Only this changes the default action.
--- ```lua
--- assert(client:replace_network_policy(id, opensandbox.egress.only("pypi")))
--- ```
---@param id string
---@param policy opensandbox.NetworkPolicy without a default_action: "deny"
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.EgressStatus? status
---@return opensandbox.Error? err
function network_policy_routes:replace_network_policy(id, policy, opts)
  return call(self, id, policy_requests.replace(self.op or "replace_network_policy", policy), opts)
end

return network_policy_routes

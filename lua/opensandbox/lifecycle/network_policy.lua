--- Network policies: which hosts a sandbox can reach. Checks a policy of the caller, and converts it from and to JSON.

local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

local network_policy = {}

--- One rule of a network policy.
--- ```lua
--- local rule = { action = "allow", target = "10.0.0.0/8", ports = { 443 } }
--- ```
---@class opensandbox.EgressRule
---@field action string "allow" or "deny"
---@field target? string a host name, `*.suffix` (not the suffix itself), an address or a CIDR (addresses only where enforcement_mode is "dns+nft")
---@field ports? integer[] TCP ports, for an address or a CIDR, or for every target if the rule has none; servers before 1.2.0 ignore them

--- The hosts that a sandbox may reach. `opensandbox.egress.only(...)` makes one of names.
--- ```lua
--- local policy = { default_action = "deny", egress = { { action = "allow", target = "*.example.com" } } }
--- local sandbox = assert(client:create { image = "python:3.12", network_policy = policy })
--- ```
---@class opensandbox.NetworkPolicy
---@field default_action? string "allow" or "deny" for targets without a rule; the server's default is "deny"
---@field egress? opensandbox.EgressRule[] the first rule that matches is applied

local known_policy = { default_action = "any", egress = "any" }
local known_rule = { action = "any", target = "any", ports = "any" }
local actions = { allow = true, deny = true }

local function check_action(op, what, value)
  if actions[value] then return end
  options.raise(op, ('%s must be "allow" or "deny", not %s'):format(what,
    type(value) == "string" and ("%q"):format(value) or type(value)))
end

--- Checks the target of a rule.
---@param op string
---@param what string its name in messages
---@param target any
function network_policy.check_target(op, what, target)
  options.argument(op, what, target, "nonempty string")
  if target:find("[%s%c]") then options.raise(op, ("%s must not contain white space: %q"):format(what, target)) end
  if target:find("://", 1, true) then
    options.raise(op, ("%s must be a host name, not a URL: %q"):format(what, target))
  end
end

local function check_ports(op, what, ports)
  options.argument(op, what, ports, "table")
  if #ports == 0 then options.raise(op, what .. " must not be empty") end
  for _, port in ipairs(ports) do options.port(op, port, what .. ": each") end
end

--- Checks a list of rules.
---@param op string
---@param rules opensandbox.EgressRule[]
function network_policy.check_rules(op, rules)
  options.argument(op, "the list of rules", rules, "table")
  if next(rules) ~= nil and rules[1] == nil then
    options.raise(op, 'the rules must be a list, as { { action = "allow", target = "example.com" } }')
  end
  for i, rule in ipairs(rules) do
    local name = "rule " .. i
    options.argument(op, name, rule, "table")
    options.check(op, rule, known_rule)
    check_action(op, name .. ": action", rule.action)
    if rule.ports ~= nil then check_ports(op, name .. ": ports", rule.ports) end
    if rule.target ~= nil or rule.ports == nil then network_policy.check_target(op, name .. ": target", rule.target) end
  end
end

--- Checks a policy.
---@param op string
---@param policy opensandbox.NetworkPolicy
function network_policy.check(op, policy)
  options.argument(op, "the network policy", policy, "table")
  options.check(op, policy, known_policy)
  if policy.default_action ~= nil then check_action(op, "default_action", policy.default_action) end
  if policy.egress ~= nil then network_policy.check_rules(op, policy.egress) end
end

--- Converts checked rules to JSON.
---@param rules opensandbox.EgressRule[]
---@return table
function network_policy.rules_to_wire(rules)
  local list = {}
  for i, rule in ipairs(rules) do
    list[i] = { action = rule.action, target = rule.target, ports = rule.ports and json.array(tables.merge(rule.ports)) }
  end
  return json.array(list)
end

--- Converts a checked policy to JSON.
---@param policy opensandbox.NetworkPolicy
---@return table
function network_policy.to_wire(policy)
  return { defaultAction = policy.default_action, egress = policy.egress and network_policy.rules_to_wire(policy.egress) }
end

--- Converts a policy from decoded JSON.
---@param object table
---@return opensandbox.NetworkPolicy? policy nil when it is not a policy
function network_policy.from_wire(object)
  local rules = {}
  for i, rule in ipairs(type(object.egress) == "table" and object.egress or {}) do
    if type(rule) ~= "table" then return nil end
    rules[i] = { action = rule.action, target = rule.target, ports = rule.ports }
  end
  return { default_action = object.defaultAction, egress = rules }
end

return network_policy

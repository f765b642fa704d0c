--- Network policies: their rules, how changes are merged into them, and the traffic that they allow.
--
-- A policy is `{ default = "allow" | "deny" | ..., rules = { { action, target }... } }`; the first rule that matches decides. As in
-- the real sidecar, almost nothing is checked: not the names of targets, and not the default.

local json = require "opensandbox.base.json"
local validation = require "opensandbox.devserver.http.validation"

local policy = {}

local ACTIONS = { allow = true, deny = true }

local function trim(text)
  return text:match("^%s*(.-)%s*$")
end

-- Returns a rule as it is stored; nil and its problem.
local function read_rule(given)
  if type(given) ~= "table" then return nil, "json: cannot unmarshal value into Go struct field of type policy.EgressRule" end
  local action, target = given.action or "", given.target or ""
  if type(action) ~= "string" or type(target) ~= "string" then
    return nil, "json: cannot unmarshal value into Go struct field EgressRule of type string"
  end
  action, target = trim(action):lower(), trim(target)
  if action == "" then action = "deny" end
  if not ACTIONS[action] then return nil, ("unsupported action %q"):format(given.action) end
  if target == "" then return nil, "egress target cannot be empty" end
  return { action = action, target = target }
end

--- Reads a list of rules.
---@param list any
---@return table? rules
---@return string? problem
function policy.rules(list)
  if not validation.is_list(list) then return nil, "json: cannot unmarshal object into Go value of type []policy.EgressRule" end
  local rules = {}
  for index, given in ipairs(list) do
    local problem
    rules[index], problem = read_rule(given)
    if problem then return nil, problem end
  end
  return rules
end

--- Reads a policy. The default is to deny, so `{}` denies everything.
---@param given any
---@param is_array? boolean an empty array is decoded like an empty object
---@return table? policy
---@return string? problem
function policy.read(given, is_array)
  if given == nil or given == json.null then given = {} end
  if type(given) ~= "table" or given[1] ~= nil or is_array then
    return nil, "json: cannot unmarshal array into Go value of type policy.NetworkPolicy"
  end
  local default, list = given.defaultAction or "", given.egress
  if type(default) ~= "string" then
    return nil, "json: cannot unmarshal value into Go struct field NetworkPolicy.defaultAction of type string"
  end
  if list == nil or list == json.null then list = {} end
  local rules, problem = policy.rules(list)
  if not rules then return nil, problem end
  return { default = default == "" and "deny" or default:lower(), rules = rules }
end

--- Returns the rules after a patch: rules for new targets come first, those for known targets replace the old ones in place. The
-- first rule of a patch for a target counts.
function policy.merged(old, patch)
  local by_target, known, rules = {}, {}, {}
  for _, rule in ipairs(old) do known[rule.target:lower()] = true end
  for _, rule in ipairs(patch) do
    local key = rule.target:lower()
    if not by_target[key] and not known[key] then rules[#rules + 1] = rule end
    by_target[key] = by_target[key] or rule
  end
  for _, rule in ipairs(old) do rules[#rules + 1] = by_target[rule.target:lower()] or rule end
  return rules
end

--- Returns the rules without those of some targets.
function policy.without(old, targets)
  local rules, gone = {}, {}
  for _, target in ipairs(targets) do gone[trim(target):lower()] = true end
  for _, rule in ipairs(old) do
    if not gone[rule.target:lower()] then rules[#rules + 1] = rule end
  end
  return rules
end

--- Returns the mode as the API names it.
function policy.mode(current)
  if #current.rules > 0 then return "enforcing" end
  return ({ allow = "allow_all", deny = "deny_all" })[current.default] or "enforcing"
end

--- Returns the policy as the API shows it: with null instead of an empty list of rules.
function policy.show(current)
  local rules = json.array {}
  for index, rule in ipairs(current.rules) do rules[index] = rule end
  return { defaultAction = current.default, egress = rules[1] and rules or json.null }
end

--- Returns whether a pattern, "example.com" or "*.example.com", matches everything that another one matches.
function policy.covers(pattern, host)
  pattern, host = pattern:lower(), host:lower()
  local suffix = pattern:match("^%*(%..+)$")
  return pattern == host or (suffix ~= nil and #host > #suffix and host:sub(-#suffix) == suffix)
end

--- Returns whether a rule allows a host. The default does not count.
function policy.allows(current, host)
  for _, rule in ipairs(current.rules) do
    if policy.covers(rule.target, host) then return rule.action == "allow" end
  end
  return false
end

return policy

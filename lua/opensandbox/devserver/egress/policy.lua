--- Network policies: which rules there are, how changes are merged into them, and what they allow.
--
-- A policy is `{ default = "allow" | "deny", rules = { { action, target }... } }`; the first rule that matches decides.

local json = require "opensandbox.base.json"
local validation = require "opensandbox.devserver.http.validation"

local policy = {}

local ACTIONS = { allow = true, deny = true }
local RULE = { action = true, target = true }

local function trimmed(text)
  return text:match("^%s*(.-)%s*$")
end

-- A rule as it is kept; nil and what is wrong with it.
local function rule(given)
  if type(given) ~= "table" then return nil, "a rule must be an object" end
  for name in pairs(given) do
    if not RULE[name] then return nil, ("json: unknown field %q"):format(tostring(name)) end
  end
  local action, target = given.action or "", given.target
  if type(action) ~= "string" then return nil, "action must be a string" end
  action = trimmed(action):lower()
  if action == "" then action = "deny" end
  if not ACTIONS[action] then return nil, ("unsupported action %q"):format(given.action) end
  target = type(target) == "string" and trimmed(target) or ""
  if target == "" then return nil, "egress target cannot be empty" end
  local host = target:gsub("^%*%.", ""):gsub("/%d+$", "")
  if host:find("[^%w%.%-_:]") then return nil, ("invalid egress target %q"):format(target) end
  return { action = action, target = target }
end

--- Reads a list of rules.
-- @treturn[2] nil
-- @treturn[2] string what is wrong with them
function policy.rules(list)
  if not validation.is_list(list) then return nil, "json: the rules must be an array" end
  local rules = {}
  for index, given in ipairs(list) do
    local problem
    rules[index], problem = rule(given)
    if problem then return nil, problem end
  end
  return rules
end

--- Reads a policy. What is not given is denied, so `{}` denies everything.
-- @treturn[2] nil
-- @treturn[2] string what is wrong with it
function policy.read(given)
  if given == nil or given == json.null then given = {} end
  if type(given) ~= "table" or given[1] ~= nil then return nil, "json: a policy must be an object" end
  for name in pairs(given) do
    if name ~= "defaultAction" and name ~= "egress" then return nil, ("json: unknown field %q"):format(name) end
  end
  local default = given.defaultAction or ""
  if type(default) ~= "string" then return nil, "json: defaultAction must be a string" end
  local rules, problem = policy.rules(given.egress or {})
  if not rules then return nil, problem end
  return { default = default == "" and "deny" or default:lower(), rules = rules }   -- not checked further, as there
end

--- The rules after a patch: the new ones first, the first of a target's; then the old ones whose target is not among them.
function policy.merged(old, patch)
  local rules, seen = {}, {}
  for _, list in ipairs { patch, old } do
    for _, item in ipairs(list) do
      local key = item.target:lower()
      if not (seen[key] and (list == patch or seen[key] == patch)) then
        rules[#rules + 1] = item
        seen[key] = list
      end
    end
  end
  return rules
end

--- The rules without those of some targets.
function policy.without(old, targets)
  local rules, gone = {}, {}
  for _, target in ipairs(targets) do gone[trimmed(target):lower()] = true end
  for _, item in ipairs(old) do
    if not gone[item.target:lower()] then rules[#rules + 1] = item end
  end
  return rules
end

--- What the policy amounts to.
function policy.mode(current)
  if #current.rules > 0 then return "enforcing" end
  return current.default == "allow" and "allow_all" or "deny_all"
end

--- The policy as the API shows it. Without rules there is a null where a list could be, as in the real answer.
function policy.show(current)
  local rules = json.array {}
  for index, item in ipairs(current.rules) do rules[index] = item end
  return { defaultAction = current.default, egress = rules[1] and rules or json.null }
end

--- Whether a pattern, "example.com" or "*.example.com", matches all that another one matches.
function policy.covers(pattern, host)
  pattern, host = pattern:lower(), host:lower()
  local suffix = pattern:match("^%*(%..+)$")
  return pattern == host or (suffix ~= nil and #host > #suffix and host:sub(-#suffix) == suffix)
end

--- Whether a rule says that a host is allowed; the default does not count.
function policy.allows(current, host)
  for _, item in ipairs(current.rules) do
    if policy.covers(item.target, host) then return item.action == "allow" end
  end
  return false
end

return policy

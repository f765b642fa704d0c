--- The network policy of a sandbox through the lifecycle server, which passes it on to the sandbox's egress sidecar with the
-- sidecar's token. A sandbox that was made from a template has no sidecar; the server keeps its policy.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local policy = require "opensandbox.devserver.egress.policy"
local ports = require "opensandbox.lifecycle.ports"
local validation = require "opensandbox.devserver.http.validation"

local check = validation.check
local REQUIRED = { required = true }

local rule = check.model { { "action", check.string, REQUIRED }, { "target", check.nonempty_string, REQUIRED } }
local bodies = {
  GET = false,
  PUT = check.model { { "defaultAction", check.string }, { "egress", check.list(rule) } },
  PATCH = check.list(rule, 1),
  DELETE = check.list(check.nonempty_string, 1),
}

local function forward(call, text)
  local sandbox = call:sandbox()
  if not sandbox then return end
  call.response.json_type = "application/json"
  sandbox:answer(call.request, call.response, function()
    if not sandbox.egress then
      return call.response:fail(502, "BACKEND_CONNECTION_FAILED",
        ("Could not connect to the backend sandbox 127.0.0.1:%d: All connection attempts failed"):format(ports.EGRESS))
    end
    sandbox.egress:call(call.request.method, "/policy", text, call.request, call.response)
  end)
end

-- The rules after a patch: rules for known targets replace the old ones in place, and those for new targets come last. The first rule of a
-- patch for a target counts.
local function merged(old, patch)
  local rules, position = {}, {}
  for index, given in ipairs(old) do
    rules[index], position[given.target] = given, index
  end
  local seen = {}
  for _, given in ipairs(patch) do
    local index = position[given.target] or #rules + 1
    if not seen[given.target] then rules[index], position[given.target], seen[given.target] = given, index, true end
  end
  return rules
end

-- The policy of a sandbox from a template after a request, by method: functions of the policy and the body.
local changes = {
  GET = function(current) return current end,
  PUT = function(_, body) return policy.read(body) end,
  PATCH = function(current, body) return { default = current.default, rules = merged(current.rules, policy.rules(body)) } end,
  DELETE = function(current, body) return { default = current.default, rules = policy.without(current.rules, body) } end,
}

-- Answers a request for a sandbox from a template.
local function change(call, sandbox, body)
  sandbox.fast_policy = changes[call.request.method](sandbox.fast_policy or policy.read(sandbox.request.networkPolicy), body)
  local shown = policy.show(sandbox.fast_policy)
  if shown.egress == json.null then shown.egress = json.array {} end
  call.response:json(200, { status = "ok", mode = policy.mode(sandbox.fast_policy), policy = shown })
end

-- Returns the refusal of an action that is neither "allow" nor "deny".
local function refusal_of(body)
  for _, given in ipairs(body.egress or body) do
    if type(given) == "table" and not policy.rules { given } then
      return validation.refusal(400, "GENERAL::UNKNOWN_ERROR", "networkPolicy rule action must be allow or deny.")
    end
  end
end

local routes = {}

for method, check_body in each(bodies) do
  routes[method .. " /sandboxes/{id}/networkpolicy"] = function(call)
    local function serve(body, text)
      if not call.parameters.id:find("^fsb%-") then return forward(call, text) end -- such ids have those from templates
      local sandbox, refusal = call.store:get(call.parameters.id), refusal_of(body)
      if not sandbox then return call.response:fail(404, "GENERAL::UNKNOWN_ERROR", "Fsb sandbox not found.") end
      if refusal then return call:answer(refusal) end
      change(call, sandbox, body)
    end
    if not check_body then return serve({}, "") end
    call:body(check_body, serve)
  end
end

return routes

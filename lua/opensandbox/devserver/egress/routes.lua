--- The egress API of a sandbox that was made with a network policy: the policy, and the credential vault.
--
-- The policy is kept and shown, but not enforced: commands have this machine's network. The answers say so.

local json = require "opensandbox.base.json"
local policy = require "opensandbox.devserver.egress.policy"
local random = require "opensandbox.devserver.base.random"
local router = require "opensandbox.devserver.http.router"
local validation = require "opensandbox.devserver.http.validation"
local vault = require "opensandbox.devserver.egress.vault"

local BODY_LIMIT = 1024 * 1024
local MOST_RULES = 4096
local NOT_ENFORCED = "the development server keeps the policy, but does not enforce it"

local Egress = {}
Egress.__index = Egress

--- @param given the sandbox's network policy; without one there is no egress API
-- @param credential_proxy the member of that name of the request
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string what is wrong with the policy, if there is one
local function new(given, credential_proxy)
  if not given then return nil end
  local current, problem = policy.read(given)
  if not current then return nil, problem end
  return setmetatable({
    policy = current, token = random.hex(24), proxies = (credential_proxy or {}).enabled == true,
  }, Egress)
end

local Call = {}
Call.__index = Call

-- All errors are one line of text.
function Call:fail(status, message)
  self.response:send(status, {
    { "Content-Type", "text/plain; charset=utf-8" }, { "X-Content-Type-Options", "nosniff" },
  }, message .. "\n")
end

-- Reads the body as JSON of one kind, "object" or "array"; anything else is answered here. `empty` takes a body that has
-- nothing in it. What is over the limit is cut off, as there.
function Call:body(kind, callback, empty)
  self.request:body(16 * BODY_LIMIT, function(text)
    text = text:sub(1, BODY_LIMIT)
    local opening = text:match("^%s*(.?)")
    if opening == "" and empty then return empty() end
    local value, problem = json.decode(text)
    if opening == "" then
      problem = "EOF"
    elseif not problem and value ~= json.null and opening ~= (kind == "object" and "{" or "[") then
      problem = "json: the body must be an " .. kind
    end
    if problem then return self:fail(400, "invalid request body: " .. problem) end
    callback(value)
  end)
end

-- Puts a policy into force, unless it has too many rules or takes away what the vault needs.
function Call:apply(changed, reason)
  local egress = self.egress
  if #changed.rules > MOST_RULES then
    return self:fail(413, ("too many egress rules: %d, at most %d"):format(#changed.rules, MOST_RULES))
  end
  local orphan = egress.vault and egress.vault:uncovered(changed)
  if orphan then return self:fail(400, orphan) end
  egress.policy = changed
  self:status(false, reason)
end

function Call:status(with_policy, reason)
  local egress = self.egress
  self.response:json(200, {
    status = "ok", mode = policy.mode(egress.policy), enforcementMode = egress.proxies and "dns+nft" or "dns",
    policy = with_policy and policy.show(egress.policy) or nil,
    reason = reason and ("%s; %s"):format(reason, NOT_ENFORCED) or NOT_ENFORCED,
  })
end

local routes = {}

routes["GET /policy"] = function(call) call:status(true) end

routes["POST /policy"] = function(call)
  call:body("object", function(given)
    local changed, problem = policy.read(given)
    if not changed then return call:fail(400, "invalid policy: " .. problem) end
    call:apply(changed)
  end, function()
    call:apply(policy.read {}, "policy reset to deny all")
  end)
end

routes["PUT /policy"] = routes["POST /policy"]

routes["PATCH /policy"] = function(call)
  call:body("array", function(given)
    local patch, problem = policy.rules(given)
    if not patch or #patch == 0 then
      return call:fail(400, "invalid patch: " .. (problem or "at least one rule is required"))
    end
    local current = call.egress.policy
    call:apply { default = current.default, rules = policy.merged(current.rules, patch) }
  end)
end

routes["DELETE /policy"] = function(call)
  call:body("array", function(targets)
    if not validation.is_list(targets) or #targets == 0 then return call:fail(400, "at least one target is required") end
    for _, target in ipairs(targets) do
      if type(target) ~= "string" then return call:fail(400, "invalid request body: json: a target must be a string") end
    end
    local current = call.egress.policy
    local rules = policy.without(current.rules, targets)
    local same = #rules == #current.rules
    call:apply({ default = current.default, rules = rules }, same and "no matching targets found" or nil)
  end)
end

-- Writes need the credential proxy, and are refused without it before anything else is looked at.
function Call:writable()
  if self.egress.proxies then return true end
  self:fail(412, "credential proxy is not enabled: create the sandbox with credentialProxy.enabled")
end

function Call:vault()
  if self.egress.vault then return self.egress.vault end
  self:fail(404, "credential vault not found")
end

routes["POST /credential-vault"] = function(call)
  if not call:writable() then return end
  if call.egress.vault then return call:fail(409, "credential vault already exists") end
  call:body("object", function(given)
    local made, problem = vault.new(given, call.egress.policy)
    if not made then return call:fail(400, problem) end
    call.egress.vault = made
    call.response:json(201, made:state())
  end)
end

routes["GET /credential-vault"] = function(call)
  local current = call:vault()
  if current then call.response:json(200, current:state()) end
end

routes["PATCH /credential-vault"] = function(call)
  local current = call:writable() and call:vault()
  if not current then return end
  call:body("object", function(given)
    local changed, status, problem = current:patched(given, call.egress.policy)
    if not changed then return call:fail(status, problem) end
    call.egress.vault = changed
    call.response:json(200, changed:state())
  end)
end

routes["DELETE /credential-vault"] = function(call)
  if not (call:writable() and call:vault()) then return end
  call.egress.vault = nil
  call.response:empty(204)
end

for _, kind in ipairs { "credentials", "bindings" } do
  routes["GET /credential-vault/" .. kind] = function(call)
    local current = call:vault()
    if not current then return end
    local state = current:state()
    call.response:json(200, { revision = state.revision, [kind] = state[kind] })
  end

  routes["GET /credential-vault/" .. kind .. "/{name}"] = function(call)
    local current = call:vault()
    if not current then return end
    for _, item in ipairs(current:state()[kind]) do
      if item.name == call.parameters.name then return call.response:json(200, item) end
    end
    call:fail(404, ("%s %s not found"):format(kind:sub(1, -2), call.parameters.name))
  end
end

-- What the real proxy reads the values from, and shows nobody.
routes["GET /credential-vault/_active"] = function(call) call:fail(403, "forbidden") end

local all = router.new(routes)

--- Answers a request to the sandbox's egress port.
function Egress:handle(request, response)
  response.json_type = "application/json"
  local call = setmetatable({ egress = self, request = request, response = response }, Call)
  if request.path == "/healthz" then return response:send(200, { { "Content-Type", "text/plain; charset=utf-8" } }, "ok") end
  if request.headers["opensandbox-egress-auth"] ~= self.token then return call:fail(401, "unauthorized") end
  local handler, parameters = all:find(request.method, request.path)
  if handler then
    call.parameters = parameters
    return handler(call)
  elseif not parameters[1] then
    return call:fail(404, "404 page not found")
  end
  response:header("Allow", table.concat(parameters, ", "))
  call:fail(405, "method not allowed")
end

return { new = new }

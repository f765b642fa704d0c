--- The egress API of a sandbox that was created with a network policy: the policy, and the credential vault.
--
-- The server stores and returns both, but does not enforce the policy: commands have the network of this machine.

local json = require "opensandbox.base.json"
local policy = require "opensandbox.devserver.egress.policy"
local random = require "opensandbox.base.random"
local router = require "opensandbox.devserver.http.router"
local vault = require "opensandbox.devserver.egress.vault"

local MAX_BODY_SIZE = 1024 * 1024
local MAX_RULES = 4096
local METHODS = { "GET", "POST", "PUT", "PATCH", "DELETE" } -- in the order of an Allow header

local Egress = {}
Egress.__index = Egress

--- Creates the sidecar of a sandbox.
---@param given? table the network policy of the sandbox; without one there is no sidecar
---@param credential_proxy? table the member of that name of the request
---@return table? sidecar
---@return string? problem of the policy
local function new(given, credential_proxy)
  if not given then return nil end
  local current, problem = policy.read(given)
  if not current then return nil, problem end
  return setmetatable({
    policy = current, token = random.hex(24), has_credential_proxy = (credential_proxy or {}).enabled == true,
  }, Egress)
end

local Call = {}
Call.__index = Call

--- Answers with an error, which is always one line of text.
function Call:fail(status, message)
  self.response:send(status, {
    { "Content-Type", "text/plain; charset=utf-8" }, { "X-Content-Type-Options", "nosniff" },
  }, message .. "\n")
end

--- Answers with JSON, and a newline after it as Go's encoder writes it.
function Call:json(status, value)
  self.response:json(status, value, "\n")
end

-- Reads the body as JSON. `noun` comes before the message about a body that is not JSON. A body over the limit is truncated, as in
-- the sidecar.
function Call:body(noun, callback, on_empty)
  local function decode(text)
    text = text:sub(1, MAX_BODY_SIZE)
    if not text:find("%S") then return on_empty() end
    local value, problem = json.decode(text)
    if not problem then return callback(value, text) end
    local early = problem:find("T_END", 1, true) or problem:find("end", 1, true)
    self:fail(400, ("invalid %s: %s"):format(noun, early and self.early_end or problem))
  end
  if self.text then return decode(self.text) end
  self.request:body(16 * MAX_BODY_SIZE, decode)
end

-- Applies a policy, unless it has too many rules or forbids a host of the vault.
function Call:apply(changed, reason)
  local egress = self.egress
  if #changed.rules > MAX_RULES then
    return self:fail(413, ("too many egress rules: %d, at most %d"):format(#changed.rules, MAX_RULES))
  end
  local problem = egress.vault and egress.vault:uncovered(changed)
  if problem then return self:fail(400, "credential vault policy validation: " .. problem) end
  egress.policy = changed
  self:status(false, reason)
end

function Call:status(with_policy, reason)
  local current = self.egress.policy
  self:json(200, {
    status = "ok", mode = policy.mode(current), enforcementMode = "dns+nft", reason = reason,
    policy = with_policy and policy.show(current) or nil,
  })
end

local routes = {}

routes["GET /policy"] = function(call) call:status(true) end

routes["PUT /policy"] = function(call)
  call.early_end = "unexpected end of JSON input"
  call:body("policy", function(given, text)
    local changed, problem = policy.read(given, text:find("^%s*%[") ~= nil)
    if not changed then return call:fail(400, "invalid policy: " .. problem) end
    call:apply(changed)
  end, function()
    call.egress.policy = policy.read {}
    call:json(200, { status = "ok", mode = "deny_all", reason = "policy reset to default deny-all" })
  end)
end

routes["POST /policy"] = routes["PUT /policy"]

-- Reads an array that must not be empty.
local function body_list(call, noun, go_type, callback)
  call.early_end = "unexpected end of JSON input"
  call:body(noun, function(given)
    if type(given) ~= "table" or next(given) ~= nil and given[1] == nil then
      return call:fail(400, ("invalid %s: json: cannot unmarshal object into Go value of type %s"):format(noun, go_type))
    elseif #given == 0 then
      return call:fail(400, ("invalid %s: empty array"):format(noun))
    end
    callback(given)
  end, function() call:fail(400, "empty body") end)
end

routes["PATCH /policy"] = function(call)
  body_list(call, "patch rules", "[]policy.EgressRule", function(given)
    local patch, problem = policy.rules(given)
    if not patch then return call:fail(400, "invalid merged policy: " .. problem) end
    local current = call.egress.policy
    call:apply { default = current.default, rules = policy.merged(current.rules, patch) }
  end)
end

routes["DELETE /policy"] = function(call)
  body_list(call, "delete targets", "[]string", function(targets)
    for _, target in ipairs(targets) do
      if type(target) ~= "string" then
        return call:fail(400, "invalid delete targets: json: cannot unmarshal value into Go value of type string")
      end
    end
    local current = call.egress.policy
    local rules = policy.without(current.rules, targets)
    local same = #rules == #current.rules
    call:apply({ default = current.default, rules = rules }, same and "no matching targets found" or nil)
  end)
end

-- Returns whether the vault can be changed. A request for a change that is refused is answered here.
function Call:can_change_vault()
  if self.egress.has_credential_proxy then return true end
  self:fail(412, "credential vault requires transparent mitmproxy")
end

--- Returns the vault. A request for a missing one is answered here.
function Call:vault()
  if self.egress.vault then return self.egress.vault end
  self:fail(404, "credential vault not found")
end

-- Reads a body for the vault; `read` returns the new vault or a problem.
function Call:change_vault(noun, status, read)
  self.early_end = "unexpected EOF"
  self:body(noun, function(given, text)
    if text:find("^%s*%[") then
      return self:fail(400, ("invalid %s: json: cannot unmarshal array into Go value of an object"):format(noun))
    end
    local changed, problem, is_decoding, conflict = read(given)
    if not changed then
      return self:fail(conflict and 409 or 400, is_decoding and ("invalid %s: %s"):format(noun, problem) or problem)
    end
    self.egress.vault = changed
    self:json(status, changed:state())
  end, function() self:fail(400, ("invalid %s: EOF"):format(noun)) end)
end

routes["POST /credential-vault"] = function(call)
  if not call:can_change_vault() then return end
  if call.egress.vault then return call:fail(409, "credential vault already exists") end
  call:change_vault("credential vault request", 201, function(given) return vault.new(given, call.egress.policy) end)
end

routes["GET /credential-vault"] = function(call)
  local current = call:vault()
  if current then call:json(200, current:state()) end
end

routes["PATCH /credential-vault"] = function(call)
  local current = call:can_change_vault() and call:vault()
  if not current then return end
  call:change_vault("credential vault mutation request", 200, function(given)
    return current:patched(given, call.egress.policy)
  end)
end

routes["DELETE /credential-vault"] = function(call)
  if not (call:can_change_vault() and call:vault()) then return end
  call.egress.vault = nil
  call.response:empty(204)
end

for _, kind in ipairs { "credentials", "bindings" } do
  routes["GET /credential-vault/" .. kind] = function(call)
    local current = call:vault()
    if not current then return end
    local state = current:state()
    call:json(200, { revision = state.revision, [kind] = state[kind] })
  end

  routes["GET /credential-vault/" .. kind .. "/{name}"] = function(call)
    local current = call:vault()
    if not current then return end
    for _, item in ipairs(current:state()[kind]) do
      if item.name == call.parameters.name then return call:json(200, item) end
    end
    call:fail(404, kind:sub(1, -2) .. " not found")
  end
end

-- The sidecar's own proxy reads the values from this route, which no other program may use.
routes["GET /credential-vault/_active"] = function(call) call:fail(403, "forbidden") end

local all = router.new(routes)

-- Returns methods in the order of an Allow header.
local function allowed(methods)
  local has, list = {}, {}
  for _, method in ipairs(methods) do has[method] = true end
  for _, method in ipairs(METHODS) do
    if has[method] then list[#list + 1] = method end
  end
  return table.concat(list, ", ")
end

--- Answers a request, whose token has been checked.
---@param method string
---@param path string
---@param text? string the body, when it has been read already
---@param request table
---@param response table
function Egress:call(method, path, text, request, response)
  local call = setmetatable({ egress = self, text = text, request = request, response = response }, Call)
  local handler, parameters = all:find(method, path)
  if handler then
    call.parameters = parameters
    return handler(call)
  elseif not parameters[1] then
    return call:fail(404, path:find("^/credential%-vault/") and "not found" or "404 page not found")
  end
  response:header("Allow", allowed(parameters))
  call:fail(405, "method not allowed")
end

--- Answers a request to the sandbox's egress port.
function Egress:handle(request, response)
  response.json_type = "application/json"
  if request.path == "/healthz" then return response:send(200, { { "Content-Type", "text/plain; charset=utf-8" } }, "ok") end
  if request.headers["opensandbox-egress-auth"] ~= self.token then
    return setmetatable({ response = response }, Call):fail(401, "unauthorized")
  end
  self:call(request.method, request.path, nil, request, response)
end

return { new = new }

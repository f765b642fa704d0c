--- The network policy of a sandbox through the lifecycle server, which passes it on to the sandbox's egress sidecar with the
-- sidecar's token.

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

local routes = {}

for method, check_body in pairs(bodies) do
  routes[method .. " /sandboxes/{id}/networkpolicy"] = function(call)
    -- Sandboxes from templates have such ids, and only Kubernetes has templates.
    if call.parameters.id:find("^fsb%-") then
      return call.response:fail(404, "GENERAL::UNKNOWN_ERROR", "Fsb sandbox not found.")
    elseif not check_body then
      return forward(call, "")
    end
    call:body(check_body, function(_, text) forward(call, text) end)
  end
end

return routes

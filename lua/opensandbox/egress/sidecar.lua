--- Calls to the egress sidecar, which runs beside a sandbox with a network policy. Adds hints to its errors, which are one line of text.

local errors = require "opensandbox.base.errors"

local sidecar = {}

local NO_SIDECAR = "A sandbox has an egress API only when it was created with a network_policy"

local function general_hint(err, needs)
  if err.code == "connect_failed" or err.status == 502 then return NO_SIDECAR end
  if err.status == 401 then return "Check the endpoint's headers: use what client:discover_egress returns" end
  if errors.is_unknown_route(err) then
    return ("Use the endpoint that client:discover_egress returns; if it is that one, its sidecar is too old, because this needs "
      .. "egress %s or newer"):format(needs)
  end
end

--- Makes a plain call.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param request table as for HttpClient:call_endpoint, and: needs (the first version of the sidecar that knows the route), hints (returns the hint for an error and the request, or nil)
---@return any value
---@return opensandbox.Error? err
function sidecar.call(client, endpoint, request)
  local value, err = client.http:call_endpoint(endpoint, request)
  if not err then return value end
  err.hint = request.hints and request.hints(err, request) or general_hint(err, request.needs) or err.hint
  return nil, err
end

return sidecar

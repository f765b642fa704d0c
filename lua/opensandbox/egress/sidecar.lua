--- Calls to the egress sidecar, which stands beside a sandbox that has a network policy: what its refusals, one line of plain text
--- each, mean to the caller.

local errors = require "opensandbox.base.errors"

local sidecar = {}

local NO_SIDECAR = "A sandbox has an egress API only when it was created with a network_policy"

local function general_hint(err, needs)
  if err.code == "connect_failed" or err.status == 502 then return NO_SIDECAR end
  if err.status == 401 then return "Check the endpoint's headers: use what client:discover_egress returns" end
  if errors.is_unknown_route(err) then
    return ("Use the endpoint that client:discover_egress returns; if it is that one, its sidecar is too old: this needs egress %s "
      .. "or newer"):format(needs)
  end
end

--- A plain call. `request` as for a call to execd, and: needs (the first version of the sidecar that knows the route), hints (function
--- of an error: what to do about those that are special to the call).
---@return any value
---@return opensandbox.Error? err
function sidecar.call(client, endpoint, request)
  local value, err = client.http:call_endpoint(endpoint, request)
  if not err then return value end
  err.hint = request.hints and request.hints(err) or general_hint(err, request.needs) or err.hint
  return nil, err
end

return sidecar

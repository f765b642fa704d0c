--- Calls to the isolated sessions of execd, which only newer versions have: what it means when one says no.

local errors = require "opensandbox.base.errors"
local capabilities = require "opensandbox.http.capabilities"

local support = {}

-- What there is to lack, by the name that is remembered: its words, and the first execd that has it.
local features = {
  isolated = { "isolated sessions", "1.0.20" },
  ["isolated list"] = { "a list of isolated sessions, binds and uid_mode", "1.0.21" },
  ["isolated background"] = { "isolated runs in the background", "1.0.22" },
}

--- The error for a feature that this execd does not have.
---@param err? opensandbox.Error what it said
---@return opensandbox.Error
function support.missing(op, execd, feature, err)
  local what, version = features[feature][1], features[feature][2]
  return errors.new { kind = "state", code = "unsupported", op = op, status = err and err.status, url = err and err.url,
    sandbox_id = type(execd) == "table" and execd.sandbox_id or nil, cause = err,
    message = ("this execd has no %s: they need execd %s or newer"):format(what, version),
    hint = "Check the execd image that the server gives its sandboxes, and that the URL is that of an execd" }
end

local function hint_for(err)
  if err.status == 503 and err.code == "SERVICE_UNAVAILABLE" then
    return "The sandbox must be created with extensions = { [\"bootstrap.execd.isolation\"] = \"enable\" }, on a server that "
      .. "allows it; get_isolation_capabilities says what is missing"
  elseif err.code == "SESSION_NOT_FOUND" then
    return "It was deleted, or idle for too long, or its shell has ended"
  end
end

--- Makes a call unless it is known to be in vain, and says what its failure means.
---@param feature string one of the above
---@param call fun(): any, any
function support.ask(client, op, execd, feature, call)
  if capabilities.get(client, execd, feature) == false then return nil, support.missing(op, execd, feature) end
  local value, second = call()
  if value ~= nil or not second then return value, second end
  local err = second
  if errors.is_unknown_route(err) then
    capabilities.set(client, execd, feature, false)
    return nil, support.missing(op, execd, feature, err)
  end
  err.hint = hint_for(err) or err.hint
  return nil, err
end

--- A plain call that says what its failure means.
---@param request table as for client:_execd
function support.call(client, execd, feature, request)
  return support.ask(client, request.op, execd, feature, function() return client.http:call_endpoint(execd, request) end)
end

return support

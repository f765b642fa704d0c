--- Explains failed calls to isolated sessions: execd is too old, or is not allowed to isolate, or the session has ended.

local errors = require "opensandbox.base.errors"
local capabilities = require "opensandbox.http.capabilities"

local isolated_errors = {}

-- The features that an older execd lacks: the name in messages, and the first version that has it.
local features = {
  isolated = { "isolated sessions", "1.0.20" },
  ["isolated list"] = { "list of isolated sessions, binds and uid_mode", "1.0.21" },
  ["isolated background"] = { "isolated runs in the background", "1.0.22" },
  ["isolated workspace"] = { "report of a session's workspace, which whole directories need", "1.0.22" },
  ["isolated overlays"] = { "overlays in isolated sessions, and sessions without a workspace", "1.1.1" },
}

local NO_SESSION = "Create another session. A session ends when it is deleted or idle for too long, when its shell exits (exit, "
  .. "exec, a failure under set -e), and with a run that times out, is cancelled, or whose callback raises"

--- Makes the error for a feature that this execd does not have.
---@param op string
---@param execd opensandbox.Endpoint|string
---@param feature string one of the above
---@param err? opensandbox.Error execd's response
---@return opensandbox.Error
function isolated_errors.unsupported(op, execd, feature, err)
  local name, version = features[feature][1], features[feature][2]
  return errors.new { kind = "state", code = "unsupported", op = op, status = err and err.status, url = err and err.url,
    sandbox_id = type(execd) == "table" and execd.sandbox_id or nil, cause = err,
    message = ("this execd has no %s: that needs execd %s or newer"):format(name, version),
    hint = "Check the execd image that the server gives its sandboxes, and that the URL is that of an execd" }
end

--- Adds the meaning for the session to an error of execd.
---@param err opensandbox.Error
---@return opensandbox.Error err the same
function isolated_errors.explain(err)
  if err.status == 503 and err.code == "SERVICE_UNAVAILABLE" then
    err.hint = "The sandbox must be created with extensions = { [\"bootstrap.execd.isolation\"] = \"enable\" }, on a server that "
      .. "allows it; get_isolation_capabilities says what is missing"
  elseif err.code == "SESSION_NOT_FOUND" then
    err.kind, err.hint = "state", NO_SESSION
  end
  return err
end

--- Makes a call, unless execd is known to lack the feature, and explains its failure.
---@param client opensandbox.Client
---@param op string
---@param execd opensandbox.Endpoint|string
---@param feature string one of the above
---@param call fun(): any, any
function isolated_errors.call_with(client, op, execd, feature, call)
  if capabilities.get(client, execd, feature) == false then return nil, isolated_errors.unsupported(op, execd, feature) end
  local value, second = call()
  if value ~= nil or not second then return value, second end
  local err = second
  if errors.is_unknown_route(err) then
    capabilities.set(client, execd, feature, false)
    return nil, isolated_errors.unsupported(op, execd, feature, err)
  end
  return nil, isolated_errors.explain(err)
end

--- Makes a plain call, and explains its failure.
---@param request table as for HttpClient:call_endpoint
function isolated_errors.call(client, execd, feature, request)
  return isolated_errors.call_with(client, request.op, execd, feature, function()
    return client.http:call_endpoint(execd, request)
  end)
end

return isolated_errors

--- The errors of calls that need a running sandbox, explained by the state of the sandbox: errors of kind `state` with the remedy.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local objects = require "opensandbox.lifecycle.objects"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"

local sandbox_state = {}

local LOOKUP_TIMEOUT = 5        -- seconds: the answer only improves an error
local MIN_LOOKUP_TIMEOUT = 0.75 -- seconds, if the time of the call is over already: no call outlives its time limit by a second
local MAX_LOOKUP_AGE = 1        -- seconds

local final_states = { Failed = true, Terminated = true, Stopping = true }
local idle_states = { Paused = true, Pausing = true }

local RESUME = "Resume it first: client:resume_sandbox(id), or sandbox:resume()"
local KEEP_ALIVE = "If its lifetime is over, create the next one with a longer timeout, or use sandbox:renew or sandbox:keep_alive"

--- Returns whether a sandbox in this state never runs again.
---@param state string
---@return boolean
function sandbox_state.is_final(state)
  return final_states[state] == true
end

--- Returns whether a sandbox in this state does not run until it is resumed.
---@param state string
---@return boolean
function sandbox_state.is_idle(state)
  return idle_states[state] == true
end

--- The error for a sandbox that is in a final or an idle state.
---@param op string
---@param info opensandbox.SandboxInfo
---@return opensandbox.Error
function sandbox_state.error(op, info)
  local text = ("the sandbox is %s"):format(info.state)
  if info.message or info.reason then text = text .. ": " .. tostring(info.message or info.reason) end
  return errors.new { kind = "state", code = "sandbox_" .. info.state:lower(), op = op, sandbox_id = info.id, message = text,
    hint = idle_states[info.state] and RESUME or nil }
end

--- Returns whether an error means that the sandbox does not exist. Kubernetes also returns 404 for a sandbox without an address yet.
---@param err opensandbox.Error
---@return boolean
function sandbox_state.is_absence(err)
  return err.status == 404 and err.code:find("SANDBOX_NOT_FOUND", 1, true) ~= nil
end

--- The error for a sandbox that does not exist any more, or never did.
---@param op string
---@param id string
---@param cause opensandbox.Error the server's 404
---@return opensandbox.Error
function sandbox_state.gone(op, id, cause)
  return errors.new { kind = "state", code = "sandbox_gone", status = cause.status, op = op, sandbox_id = id, url = cause.url,
    request_id = cause.request_id, cause = cause, hint = KEEP_ALIVE,
    message = "the sandbox is gone, because it was deleted or its lifetime is over: " .. cause.message }
end

local gateway_codes = { ["GENERAL::UNKNOWN_ERROR"] = true, BACKEND_CONNECTION_FAILED = true }
local gateway_statuses = { [502] = true, [503] = true, [504] = true }

-- Returns whether an error of an endpoint may come from a sandbox that does not run. A response with a code of execd's own does not: only
-- gateways and the server's proxy answer for a sandbox that is down.
local function may_be_down(err)
  if err.kind ~= "http" then return err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" end
  local is_gateway = err.code == "HTTP_" .. err.status or err.code:find("SANDBOX", 1, true) ~= nil or gateway_codes[err.code]
  if err.status == 404 then return is_gateway and not errors.is_unknown_route(err) end
  return is_gateway and gateway_statuses[err.status]
end

-- The last lookups, by HTTP client and sandbox id: { at, info, problem }. Many calls may fail at the same time.
local lookups = setmetatable({}, { __mode = "k" })

-- Looks a sandbox up, or returns the last lookup if it is new enough. A sandbox that ran or was paused is always looked up again, because it can
-- have been deleted or resumed since then.
local function look_up(client, request)
  local by_id = lookups[client.http] or {}
  local lookup = by_id[request.sandbox_id]
  local can_differ = lookup and lookup.info and not final_states[lookup.info.state]
  if not lookup or can_differ or core.now() - lookup.at > MAX_LOOKUP_AGE then
    local info, problem = client.http:call(request)
    lookup = { at = core.now(), info = info, problem = problem }
    lookups[client.http] = { [request.sandbox_id] = lookup } -- the others are soon too old
  end
  return lookup.info, lookup.problem
end

--- Explains an error of a call to a sandbox's endpoint by the state of the sandbox: GET /sandboxes/{id}.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param err opensandbox.Error
---@param shielded? boolean a cancelled task may wait for the response, as for that of the call
---@param seconds number that the call has left
---@return opensandbox.Error err of kind `state` when the sandbox is gone, paused or failed, with the given error as its cause; else the given one
function sandbox_state.explain(client, op, err, shielded, seconds)
  local id = err.sandbox_id
  if not id or not may_be_down(err) then return err end
  local request = sandbox_requests.get(op, id)
  request.shielded, request.decode = shielded, objects.sandbox_info
  if err.kind == "timeout" then seconds = 0 end
  request.timeout = math.max(MIN_LOOKUP_TIMEOUT, math.min(seconds, LOOKUP_TIMEOUT))
  local info, problem = look_up(client, request)
  local explanation
  if problem and problem.kind == "cancelled" then
    return problem
  elseif problem and sandbox_state.is_absence(problem) then
    explanation = sandbox_state.gone(op, id, problem)
  elseif info and (final_states[info.state] or idle_states[info.state]) then
    explanation = sandbox_state.error(op, info)
  else
    return err
  end
  explanation.cause, explanation.result, explanation.command_id = err, err.result, err.command_id
  return explanation
end

return sandbox_state

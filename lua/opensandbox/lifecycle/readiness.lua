--- Readiness: a sandbox is ready when its execd answers a ping, not when its state says Running.
--
-- State and ping are asked in turn, at short intervals that grow, so that a sandbox that failed, ended or was deleted is an error
-- at once, with the server's reason, instead of a timeout.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local loop = require "opensandbox.loop"
local poll = require "opensandbox.loop.polling"

local ready = {}

local DEFAULT_TIMEOUT = 30     -- seconds
local FIRST_PAUSE = 0.02       -- seconds
local LONGEST_PAUSE = 0.5      -- seconds
local PING_TIMEOUT = 2         -- seconds: a paused container accepts connections and never answers
local final_states = { Failed = true, Terminated = true, Stopping = true }
local idle_states = { Paused = true, Pausing = true }
local PAUSE_TIMEOUT = 60       -- seconds

-- Statuses that will not change by waiting; 404 and the 500s do, while a sandbox starts.
local refusals = { [400] = true, [401] = true, [403] = true, [405] = true, [422] = true, [501] = true }

-- What a failed ping or endpoint lookup means: true when it may pass by itself while the sandbox starts.
local function may_pass(err)
  if err.kind == "transport" then return err.code ~= "resolve_failed" and err.code ~= "tls_failed" end
  if err.kind == "http" then return not refusals[err.status] end
  return err.kind == "timeout" or err.kind == "stream"
end

local function failed(op, id, info)
  local text = ("the sandbox is %s"):format(info.state)
  if info.message or info.reason then text = text .. ": " .. tostring(info.message or info.reason) end
  return errors.new { kind = "state", code = "sandbox_" .. info.state:lower(), op = op, sandbox_id = id, message = text,
    hint = idle_states[info.state] and "Resume it first" or nil }
end

local function out_of_time(op, id, option, timeout, info, cause)
  local hint = info and info.state == "Running" and ("The server runs it, but it cannot be reached from here: check the network, "
    .. "use the option use_server_proxy, or raise ") .. option
  local err = errors.timeout { op = op, code = "not_ready", text = "not ready in time", option = option, seconds = timeout,
    hint = hint or nil, sandbox_id = id, cause = cause }
  err.message = ("%s; the state is %s"):format(err.message, info and info.state or "unknown")
  if cause then err.message = err.message .. ", and the last attempt failed: " .. tostring(cause.message) end
  return err
end

-- One look at execd: the endpoint when it answered, else nil and the error.
local function reach(client, id, execd, left)
  local err
  if not execd then
    execd, err = client:discover_execd(id, { timeout = left })
    if not execd then return nil, err end
  end
  local ok
  ok, err = client:ping(execd, { timeout = math.min(PING_TIMEOUT, left) })
  return execd, not ok and err or nil
end

--- Waits until the sandbox is ready.
---@param client opensandbox.Client
---@param op string the operation, for errors
---@param id string
---@param opts table timeout (seconds), option (that option's name), ping (false: the state is enough), on_state; info, execd: what is known already; resumes: it was told to go on, so a state of rest passes
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Endpoint|opensandbox.Error execd the endpoint that answered, or the error
function ready.wait(client, op, id, opts)
  local timeout = opts.timeout or DEFAULT_TIMEOUT
  local deadline = core.now() + timeout
  local pause = FIRST_PAUSE
  local info = opts.info
  local execd, cause, seen = opts.execd, nil, nil
  while true do
    if not info then
      local err
      info, err = client:get_sandbox(id, { timeout = math.max(deadline - core.now(), 0.05) })
      if not info then
        if err.status == 404 then err.kind, err.message = "state", "the sandbox is gone: " .. err.message end
        if not err.retryable then
          err.op = op
          return nil, err
        end
        cause = err
      end
    end
    if info then
      if info.state ~= seen and opts.on_state then opts.on_state(info) end
      seen = info.state
      local stays = final_states[info.state] or (idle_states[info.state] and not opts.resumes)
      if stays then return nil, failed(op, id, info) end
      if info.state == "Running" and opts.ping == false then return info end
      if info.state ~= "Pending" and not idle_states[info.state] then
        local known = execd
        execd, cause = reach(client, id, known, math.max(deadline - core.now(), 0.05))
        if cause and cause.kind ~= "cancelled" and known and known == opts.execd then -- it may be another by now
          execd, cause = reach(client, id, nil, math.max(deadline - core.now(), 0.05))
        end
        if execd and not cause then
          if info.state == "Running" then return info, execd end
        elseif not may_pass(cause) then
          cause.op = op
          return nil, cause
        end
      end
    end
    local left = deadline - core.now()
    if left <= 0 then return nil, out_of_time(op, id, opts.option or "timeout", timeout, info, cause) end
    local stopped = loop.sleep(op, math.min(pause, left))
    if stopped then return nil, stopped end
    pause = math.min(pause * 1.5, LONGEST_PAUSE)
    info = nil
  end
end

--- Waits until a sandbox that was told to pause is Paused.
---@param timeout? number seconds
---@return true? ok
---@return opensandbox.Error? err
function ready.wait_paused(client, op, id, timeout)
  timeout = timeout or PAUSE_TIMEOUT
  local state
  local function look()
    local info, err = client:get_sandbox(id)
    if not info then
      err.op = op
      return nil, err
    end
    state = info.state
    if state == "Paused" then return true end
    if final_states[state] then return nil, failed(op, id, info) end
  end
  local ok, err = poll(op, { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = core.now() + timeout }, look)
  if ok or err then return ok, err end
  return nil, errors.timeout { op = op, code = "not_paused", text = ("not paused in time, the state is %s"):format(state),
    option = "timeout", seconds = timeout, sandbox_id = id }
end

return ready

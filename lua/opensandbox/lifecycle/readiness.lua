--- Waiting for a state: of a sandbox that starts or is paused, of a snapshot, of a template.
--
-- A sandbox is ready when its execd answers a ping, not when its state is Running.
--
-- State and ping are requested in turn, at growing intervals, so that a sandbox that failed or was deleted is an error at once, with the
-- server's reason, instead of a timeout.

local errors = require "opensandbox.base.errors"
local polling = require "opensandbox.loop.polling"
local sandbox_state = require "opensandbox.lifecycle.sandbox_state"

local readiness = {}

--- Default time limits, in seconds.
readiness.READY_TIMEOUT = 30
readiness.PAUSE_TIMEOUT = 60
readiness.BUILD_TIMEOUT = 900 -- of a snapshot or a template; the server's own limit for snapshots on Kubernetes

local INITIAL_BUILD_DELAY = 0.05 -- seconds
local MAX_BUILD_DELAY = 2        -- seconds
local PING_TIMEOUT = 2           -- seconds: a paused container accepts connections and never responds

-- Statuses that do not change by waiting. 404 and 5xx change while a sandbox starts.
local refusals = { [400] = true, [401] = true, [403] = true, [405] = true, [422] = true, [501] = true }

-- Returns whether the cause of a failed ping or endpoint lookup can pass while the sandbox starts.
local function is_transient(err)
  if err.kind == "transport" then return err.code ~= "resolve_failed" and err.code ~= "tls_failed" end
  if err.kind == "http" then return not refusals[err.status] end
  return err.kind == "timeout" or err.kind == "stream"
end

-- One wait for readiness.
local Wait = {}
Wait.__index = Wait

-- Remembers a failure that can pass. The time limit cuts off the last request, so an
-- earlier failure is more informative.
function Wait:remember(err)
  if not (self.cause and self.limit:has_passed()) then self.cause = err end
end

-- Requests the state. Returns nothing when the cause of a failure can pass.
function Wait:get_info()
  if self.given_info then
    local info = self.given_info
    self.given_info = nil
    return info
  end
  local info, err = self.client:get_sandbox(self.id, { timeout = self.limit:request_timeout() })
  if info then return info end
  if sandbox_state.is_absence(err) then return nil, sandbox_state.gone(self.op, self.id, err) end
  if not err.retryable then return nil, err end
  self:remember(err)
end

-- Sends one ping. Returns the endpoint that answered, or nil and the error.
function Wait:ping(execd)
  local ok, err
  if not execd then
    execd, err = self.client:discover_execd(self.id, { timeout = self.limit:request_timeout() })
    if not execd then return nil, err end
  end
  ok, err = self.client:ping(execd, { timeout = self.limit:clamp(PING_TIMEOUT) })
  self.execd = ok and execd or self.execd
  if not ok then return nil, err end
  return execd
end

-- One attempt, for polling.poll. Returns the info when the sandbox is ready.
function Wait:check()
  local info, err = self:get_info()
  if not info then return nil, err end
  local state = info.state
  if self.on_state and not (self.info and self.info.state == state) then self.on_state(info) end
  self.info = info
  local is_idle = sandbox_state.is_idle(state)
  if sandbox_state.is_final(state) or (is_idle and not self.resumes) then return nil, sandbox_state.error(self.op, info) end
  if state == "Running" and not self.needs_ping then return info end
  if state == "Pending" or is_idle then return nil end
  local execd
  execd, err = self:ping(self.given_execd)
  if err and err.kind ~= "cancelled" and self.given_execd then
    self.given_execd = nil -- the endpoint may have changed
    execd, err = self:ping()
  end
  if execd then
    self.cause = nil
    if state ~= "Running" then return nil end
    if not self.ready then return info end
    return self:check_user(info, execd)
  end
  if not is_transient(err) then return nil, err end
  self:remember(err)
end

-- Calls the user's own check, which can fail in ways that pass.
function Wait:check_user(info, execd)
  local is_ready, err = self.ready(execd)
  if is_ready then return info end
  if errors.is(err) and (err.kind == "cancelled" or err.kind == "closed") then return nil, err end
  if not errors.is(err) then
    err = errors.new { kind = "state", code = "not_ready", op = self.op, sandbox_id = self.id,
      message = "the function ready returned " .. tostring(is_ready) .. (err ~= nil and ", " .. tostring(err) or "") }
  end
  self.is_reached = true
  self:remember(err)
end

function Wait:timeout_error()
  local info, cause = self.info, self.cause
  local is_unreachable = info and info.state == "Running" and not self.is_reached
  local advice = self.client.use_server_proxy and "check the network between the server and the sandbox, or raise "
    or "check the network, use the option use_server_proxy, or raise "
  local err = errors.timeout { op = self.op, code = "not_ready", text = "not ready in time", option = self.option,
    seconds = self.limit.seconds, sandbox_id = self.id, cause = cause,
    hint = is_unreachable and "The server runs it, but it cannot be reached from here: " .. advice .. self.option or nil }
  err.message = ("%s; the state is %s"):format(err.message, info and info.state or "unknown")
  if cause then err.message = err.message .. ", and the last attempt failed: " .. tostring(cause.message) end
  return err
end

---@class opensandbox.ReadinessOpts
---@field option? string the caller's name for the option that is the time limit, default "timeout"
---@field ping? boolean false: the state Running is enough
---@field on_state? fun(info: opensandbox.SandboxInfo) called with each new state
---@field ready? fun(execd: opensandbox.Endpoint): any, any a further check, which is called when the ping has succeeded
---@field info? opensandbox.SandboxInfo of this moment, if it is known
---@field execd? opensandbox.Endpoint a known endpoint, which may be outdated
---@field resumes? boolean the sandbox was resumed, so an idle state is no error

--- Waits until a sandbox is ready.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param id string
---@param limit opensandbox.Deadline
---@param opts opensandbox.ReadinessOpts
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Endpoint|opensandbox.Error execd the endpoint that answered, or the error
function readiness.wait(client, op, id, limit, opts)
  local wait = setmetatable({
    client = client:for_op(op), op = op, id = id, limit = limit, option = opts.option or "timeout", on_state = opts.on_state,
    ready = opts.ready, needs_ping = opts.ping ~= false, resumes = opts.resumes, given_info = opts.info, given_execd = opts.execd,
    info = nil,  -- of the last response
    execd = nil, -- the endpoint that answered
    cause = nil, -- the last failure that can pass
    is_reached = false, -- the ping has succeeded, and the user's check has not
  }, Wait)
  local info, err = polling.poll(op, { deadline = limit }, function() return wait:check() end)
  if info then return info, wait.execd end
  return nil, err or wait:timeout_error()
end

-- Waits until the object that `wait.get(timeout)` returns is in the state `wait.wanted`.
-- wait: noun ("the snapshot"); final(info): the error for a state that is never followed by the wanted one, or nil; code and sandbox_id of the
-- timeout; delays for polling.poll
local function wait_for_state(client, op, limit, wait)
  local state = "unknown"
  local function check()
    local info, err = wait.get(limit:clamp(client.http.timeouts.timeout))
    if not info then return nil, err end
    state = info.state
    if state == wait.wanted then return info end
    return nil, wait.final(info)
  end
  local polled = { initial_delay = wait.initial_delay, max_delay = wait.max_delay, deadline = limit, sleeper = client.http }
  local info, err = polling.poll(op, polled, check)
  if info or (err and not limit:has_passed()) then return info, err end
  return nil, errors.timeout { op = op, code = wait.code, option = "timeout", seconds = limit.seconds, sandbox_id = wait.sandbox_id,
    cause = err, text = ("%s is not %s in time, its state is %s"):format(wait.noun, wait.wanted, state) }
end

--- Waits until a sandbox that is being paused is Paused.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param id string
---@param limit opensandbox.Deadline
---@return true? ok
---@return opensandbox.Error? err
function readiness.wait_paused(client, op, id, limit)
  local view = client:for_op(op)
  local info, err = wait_for_state(client, op, limit, {
    noun = "the sandbox", wanted = "Paused", code = "not_paused", sandbox_id = id,
    get = function(timeout) return view:get_sandbox(id, { timeout = timeout }) end,
    final = function(found) return sandbox_state.is_final(found.state) and sandbox_state.error(op, found) or nil end,
  })
  return info and true, err
end

-- Waits until the server has built something in the background. `building`: the states that pass.
local function wait_built(client, op, limit, wait, building)
  wait.code, wait.initial_delay, wait.max_delay = "not_ready", INITIAL_BUILD_DELAY, MAX_BUILD_DELAY
  function wait.final(info)
    if building[info.state] then return nil end
    return errors.new { kind = "state", code = ("%s_%s"):format(wait.noun:match("%S+$"), info.state:lower()), op = op,
      sandbox_id = info.sandbox_id,
      message = ("%s is %s: %s"):format(wait.noun, info.state, info.message or info.reason or "the server gave no reason") }
  end
  return wait_for_state(client, op, limit, wait)
end

--- Waits until a snapshot is Ready.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param id string of the snapshot
---@param limit opensandbox.Deadline
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function readiness.wait_snapshot(client, op, id, limit)
  local view = client:for_op(op)
  return wait_built(client, op, limit, { noun = "the snapshot", wanted = "Ready",
    get = function(timeout) return view:get_snapshot(id, { timeout = timeout }) end }, { Creating = true })
end

--- Waits until a template is Succeeded.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param id string of the template
---@param limit opensandbox.Deadline
---@return opensandbox.TemplateInfo? info
---@return opensandbox.Error? err
function readiness.wait_template(client, op, id, limit)
  local view = client:for_op(op)
  return wait_built(client, op, limit, { noun = "the template", wanted = "Succeeded",
    get = function(timeout) return view:get_template(id, { timeout = timeout }) end }, { Pending = true, Building = true })
end

return readiness

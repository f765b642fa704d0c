--- Runs that no cut connection disturbs: the command runs in the background, and its log is read by a byte cursor in short
--- requests.

local command_requests = require "opensandbox.execution.command_requests"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local errors = require "opensandbox.base.errors"
local execution = require "opensandbox.execution.execution"
local log_follower = require "opensandbox.execution.log_follower"
local loop = require "opensandbox.loop"
local output_buffer = require "opensandbox.execution.output_buffer"
local run_result = require "opensandbox.execution.run_result"

local durable_run = {}

local UNREACHABLE_TIMEOUT = 60 -- seconds without a response after which the sandbox counts as unreachable
local RETRY_DELAY = 0.5        -- seconds before a request that failed is repeated

---@class opensandbox.DurableRun a command that has started
---@field id string
---@field client opensandbox.Client
---@field endpoint opensandbox.Endpoint|string of execd
---@field op string
---@field opts table
---@field started_at number on the clock of core.now()
---@field last_response_at number on the same clock
---@field stdout table buffer, of output_buffer.lua
---@field is_stopped? boolean
local DurableRun = {}
DurableRun.__index = DurableRun

--- Stops the command without waiting for the response.
function DurableRun:stop_remote()
  if self.is_stopped then return end
  self.is_stopped = true
  command_requests.stop(self.client, self.endpoint, self.op, self.id, true, self.opts.after_stop)
end

DurableRun.abandon = DurableRun.stop_remote -- called when a wait whose owner it is was abandoned

--- Returns the result as far as it is known.
---@param status? opensandbox.CommandStatus the last one
---@return opensandbox.CommandResult
function DurableRun:result(status)
  local outcome = status and command_requests.outcome(status) or {}
  local text, dropped = self.stdout:text()
  local duration = outcome.duration or core.now() - self.started_at
  return run_result {
    id = self.id, exit_code = outcome.exit_code, signal = outcome.signal, error = outcome.error, duration = duration,
    timed_out = execution.timed_out(outcome.exit_code, duration, self.opts.timeout),
    stdout = text, stdout_dropped = dropped, stderr = "", stderr_dropped = 0,
  }
end

-- Makes a request about the command. Any response proves that the sandbox is reachable.
local function request(self, route, ...)
  local timeout = self.opts.timeout
  if timeout and core.now() > self.started_at + timeout + execution.SERVER_TIMEOUT_GRACE then
    return nil, errors.timeout { op = self.op, code = "timeout", text = "not finished in time", option = "timeout",
      seconds = timeout, timer = "timeout", sandbox_id = self.sandbox_id }
  end
  local value, err = route(self.client, self.endpoint, self.id, ...)
  if value then self.last_response_at = core.now() end
  return value, err
end

-- Returns whether a request that failed with this error is repeated.
local function is_transient(self, err)
  if command_requests.is_unknown_command(err) then
    return core.now() < self.started_at + command_requests.REGISTRATION_TIMEOUT
  end
  return err.retryable and core.now() - self.last_response_at < UNREACHABLE_TIMEOUT
end

local function append_output(self, text)
  self.stdout:append(text)
  local callback = self.opts.on_stdout
  if not callback then return end
  local ok, problem = coxpcall.pcall(callback, text)
  if ok then return end
  self:stop_remote()
  error(problem, 0)
end

-- Reads the log to the end of the command.
local function follow(self)
  local extra = { on_abandon = function() self:stop_remote() end }
  local log = log_follower {
    op = self.op, cursor = 0, owner = self,
    logs = function(cursor) return request(self, command_requests.logs, cursor, extra) end,
    status = function() return request(self, command_requests.status, extra) end,
  }
  while true do
    local text, _, status, err = log:next()
    if text then
      append_output(self, text)
    elseif status then
      return self:result(status)
    else
      if is_transient(self, err) then err = loop.sleep(self.op, RETRY_DELAY, nil, self) end
      if err then
        self:stop_remote()
        err.result, err.command_id = self:result(), self.id
        return nil, err
      end
    end
  end
end

--- Wraps a function that runs commands, so that it runs them in the background and follows their log.
---@param run fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
---@param client opensandbox.Client a view for the method that the user called
---@param endpoint opensandbox.Endpoint|string
---@return fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function durable_run.wrap(run, client, endpoint)
  return function(body, opts)
    body.background = true
    local started_at = core.now()
    local started, err = run(body, { background = true, timeout = opts.timeout, idle_timeout = opts.idle_timeout,
      on_event = opts.on_event, after_stop = opts.after_stop })
    if not started then return nil, err end
    return follow(setmetatable({
      client = client, endpoint = endpoint, op = client.op, opts = opts, id = started.id, started_at = started_at,
      last_response_at = core.now(), stdout = output_buffer.new(opts.max_output or client.max_output),
      sandbox_id = type(endpoint) == "table" and endpoint.sandbox_id or nil,
    }, DurableRun))
  end
end

return durable_run

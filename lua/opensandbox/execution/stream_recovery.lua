--- Determines how a command ended, after its event stream broke.
--
-- The first event carries the command's id, the id gives the status, and the status the exit code. execd to 1.1.0 keeps the output
-- in two files. Only the exit code and the output together are a result.

local command_requests = require "opensandbox.execution.command_requests"
local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local execution = require "opensandbox.execution.execution"
local line_normalizer = require "opensandbox.execution.line_normalizer"
local output_buffer = require "opensandbox.execution.output_buffer"
local polling = require "opensandbox.loop.polling"

-- Polls the status until the command has ended. Gives up when the server has not answered for `idle_timeout` seconds.
local function last_status(self, deadline)
  local client, idle_timeout = self.client, self.idle_timeout
  local last_response_at = core.now()
  local registered_by = self.started_at + command_requests.REGISTRATION_TIMEOUT
  local extra = { timeout = math.min(idle_timeout, client.http.timeouts.timeout), on_abandon = function() self:stop_remote() end }
  return polling.poll(self.op, { deadline = deadline, owner = self }, function()
    local status, err = command_requests.status(client, self.endpoint, self.id, extra)
    if status then
      last_response_at = core.now()
      return (not status.running or self.opts.background) and status or nil
    end
    local may_change = err.retryable
    if command_requests.is_unknown_command(err) then may_change = core.now() < registered_by end
    if not may_change or core.now() - last_response_at > idle_timeout then return nil, err end
  end)
end

-- execd's ids are hexadecimal digits. Any other text comes from a hostile sandbox, and is not put into a path.
local function is_plain_id(id)
  return id:find("^[%w-]+$") ~= nil
end

-- Replaces the output of one stream by that of the file that execd keeps. The text received as events must be a prefix of the file;
-- only the rest is passed to the callback.
local function complete_output(self, name)
  local max_output, callback, arrived = self.max_output, self.opts["on_" .. name], self[name]
  local text, dropped = arrived:text()
  local delivered = #text + dropped
  local whole, prefix = output_buffer.new(max_output), output_buffer.new(max_output)
  local compared, differs = 0, false
  local function append(piece)
    whole:append(piece)
    if compared < delivered then
      local known = piece:sub(1, delivered - compared)
      prefix:append(known)
      compared, piece = compared + #known, piece:sub(#known + 1)
      differs = compared == delivered and prefix:text() ~= text
    end
    if piece ~= "" and callback and not differs then callback(piece) end
  end
  local lines = line_normalizer()
  if not is_plain_id(self.id) then
    return nil, self.exchange:error { kind = "protocol", code = "unexpected_response",
      message = "the id of the command is not valid" }
  end
  local reader, err = self.client:download_file(self.endpoint, "/tmp/" .. self.id .. "." .. name)
  if not reader then return nil, err end
  local ok
  ok, err = reader:for_each(function(bytes)
    local piece = lines:feed(bytes)
    if piece ~= "" then append(piece) end
  end)
  if not ok then return nil, err end
  local rest = lines:finish()
  if rest ~= "" then self.exchange:call_user(append, rest) end
  if callback and (differs or compared < delivered) then
    return nil, self.exchange:error { kind = "stream", code = "output_differs",
      message = ("the %s received as events is not the beginning of the command's output"):format(name) }
  end
  self[name] = whole
  return true
end

-- The error when the exit code is known and the output is not.
local function output_lost(self, err, cause)
  return self.exchange:error { kind = "stream", code = "output_lost", cause = cause,
    message = ("the command ended with exit code %s, but the event stream broke and its output cannot be fetched: %s"):format(
      tostring(self.exit_code), err.message),
    hint = "Use the option durable or capture = \"exact\", which do not depend on the stream" }
end

--- Recovers an execution of a command, which has an id.
---@param self opensandbox.Execution
---@param err opensandbox.Error why the stream broke
---@return opensandbox.CommandResult? result with `recovered`
---@return opensandbox.Error? err the error to return
return function(self, err)
  local timeout = self.opts.timeout
  local status, problem = last_status(self,
    deadlines.since(self.started_at, timeout and timeout + execution.SERVER_TIMEOUT_GRACE))
  if not status then
    if problem and problem.kind == "state" then return nil, problem end -- the sandbox does not run
    if problem and problem.kind == "cancelled" then err = problem end
    if not problem then
      err = self.exchange:error(errors.timeout_fields { code = "timeout", option = "timeout", seconds = timeout, timer = "timeout",
        text = "not finished in time, and the event stream broke before", cause = err })
    elseif problem ~= err then
      err.cause = problem
    end
    if not (problem and command_requests.is_unknown_command(problem)) then self:stop_remote(err.timer == "idle_timeout") end
    return nil, err
  end
  local outcome = command_requests.outcome(status)
  if not self.opts.background then
    if not outcome.exit_code then
      err.cause = self.exchange:error { kind = "protocol", code = "exit_code_unknown",
        message = "the command's status holds no exit code" }
      return nil, err
    end
    self.exit_code, self.signal, self.error_event = outcome.exit_code, outcome.signal, outcome.error
    self.duration = outcome.duration
    for _, name in ipairs(self.opts.redirected and {} or { "stdout", "stderr" }) do
      local ok, lost = complete_output(self, name)
      if not ok then
        if lost.kind == "cancelled" then return nil, lost end
        return nil, output_lost(self, err, lost)
      end
    end
  end
  local result = self:result()
  result.recovered = true
  return result
end

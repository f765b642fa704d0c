--- Finding out how a command ended whose stream of events broke.
--
-- Its id, which came with the first event, leads to its status, and that to the exit code. What it wrote stands in two files as long as
-- execd keeps them (to 1.1.0). Only both together are a result.

local errors = require "opensandbox.base.errors"
local capture = require "opensandbox.execution.output_buffer"
local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local lines = require "opensandbox.execution.line_normalizer"
local output_file = require "opensandbox.files.resumable_read"
local polling = require "opensandbox.loop.polling"
local routes = require "opensandbox.execution.command_requests"
local run = require "opensandbox.execution.execution"


-- Waits until the command has ended, as long as somebody answers: a peer that is silent for as long as its stream may be is gone.
local function last_status(self, deadline)
  local client, patience = self.client, self.idle_timeout
  local heard = core.now()
  local known_by = self.began + routes.START_PATIENCE
  local more = { timeout = math.min(patience, client.http.timeouts.timeout), on_abandon = function() self:stop() end }
  return polling.poll("run_command", { deadline = deadline, owner = self }, function()
    local status, err = routes.status(client, self.endpoint, self.id, more)
    if status then
      heard = core.now()
      return (not status.running or self.opts.background) and status or nil
    end
    local may_change = err.retryable
    if routes.is_unknown(err) then may_change = core.now() < known_by end
    if not may_change or core.now() - heard > patience then return nil, err end
  end)
end

-- Makes the output of one stream of the file that execd keeps. What came by events must be its beginning: the rest is for the callback.
local function complete_output(self, name)
  local limit, callback, arrived = self.limit, self.opts["on_" .. name], self[name]
  local text, dropped = arrived:text()
  local told = #text + dropped
  local whole, beginning = capture.new(limit), capture.new(limit)
  local seen, differs = 0, false
  local function take(piece)
    whole:append(piece)
    if seen < told then
      local known = piece:sub(1, told - seen)
      beginning:append(known)
      seen, piece = seen + #known, piece:sub(#known + 1)
      differs = seen == told and beginning:text() ~= text
    end
    if piece ~= "" and callback and not differs then callback(piece) end
  end
  local rebuilt = lines()
  local ok, err = output_file(self.client, self.endpoint, "/tmp/" .. self.id .. "." .. name, function(bytes)
    local piece = rebuilt:feed(bytes)
    if piece ~= "" then take(piece) end
  end)
  if not ok then return nil, err end
  local rest = rebuilt:finish()
  if rest ~= "" then self.exchange:call_user(take, rest) end
  if callback and (differs or seen < told) then
    return nil, self.exchange:error { kind = "stream", code = "output_differs",
      message = ("what %s came by events is not the beginning of what the command wrote"):format(name) }
  end
  self[name] = whole
  return true
end

-- The error when the end of the command is known, and its output is not.
local function output_lost(self, err, cause)
  return self.exchange:error { kind = "stream", code = "output_lost", cause = cause,
    message = ("the command ended with exit code %s, but the event stream broke and its output cannot be fetched: %s"):format(
      tostring(self.exit_code), err.message),
    hint = "Use the option durable or capture = \"exact\", which do not depend on the stream" }
end

--- Settles a run of a command: its result with `recovered`, or nil and the error to return.
---@param self table a run, with an id
---@param err opensandbox.Error what broke the stream
return function(self, err)
  local timeout = self.opts.timeout
  local status, problem = last_status(self, deadlines.since(self.began, timeout and timeout + run.GRACE))
  if not status then
    if problem and problem.kind == "state" then return nil, problem end -- the sandbox does not run
    if problem and problem.kind == "cancelled" then err = problem end
    if not problem then
      err = self.exchange:error(errors.timeout_fields { code = "timeout", option = "timeout", seconds = timeout, timer = "timeout",
        text = "not finished in time, and the event stream broke before", cause = err })
    elseif problem ~= err then
      err.cause = problem
    end
    if not (problem and routes.is_unknown(problem)) then self:stop(err.timer == "idle_timeout") end
    return nil, err
  end
  local ended = routes.outcome(status)
  if not self.opts.background then
    if not ended.exit_code then
      err.cause = self.exchange:error { kind = "protocol", code = "exit_code_unknown",
        message = "the command's status holds no exit code" }
      return nil, err
    end
    self.exit_code, self.signal, self.report, self.duration = ended.exit_code, ended.signal, ended.error, ended.duration
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

--- Commands that no cut connection disturbs: they run in the background, and their log is followed by a byte cursor, in short requests.

local capture = require "opensandbox.execution.output_buffer"
local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local follow = require "opensandbox.execution.log_follower"
local loop = require "opensandbox.loop"
local coxpcall = require "opensandbox.loop.coxpcall"
local routes = require "opensandbox.execution.command_requests"
local run = require "opensandbox.execution.execution"

local durable = {}

local PATIENCE = 60  -- seconds without any answer after which the sandbox is given up
local PAUSE = 0.5    -- seconds before a request that failed is made again

-- A command that has been started, and what has arrived of it.
local Durable = {}
Durable.__index = Durable

-- Stops the command, without waiting for the answer.
function Durable:stop()
  if self.stopped then return end
  self.stopped = true
  self.client.http:send_to_endpoint(self.endpoint, routes.interrupt(self.op, self.id), true)
end

Durable.abandon = Durable.stop -- as the owner of a wait

function Durable:result(status)
  local ended = status and routes.outcome(status) or {}
  local text, dropped = self.stdout:text()
  local duration = ended.duration or core.now() - self.began
  return {
    id = self.id, exit_code = ended.exit_code, signal = ended.signal, error = ended.error, duration = duration,
    timed_out = run.timed_out(ended.exit_code, duration, self.opts.timeout),
    stdout = text, stdout_dropped = dropped, stderr = "", stderr_dropped = 0,
  }
end

-- A request about the command. Whoever answers is there.
function Durable:ask(route, ...)
  local timeout = self.opts.timeout
  if timeout and core.now() > self.began + timeout + run.GRACE then
    return nil, errors.timeout { op = self.op, code = "timeout", text = "not finished in time", option = "timeout",
      seconds = timeout, timer = "timeout", sandbox_id = self.sandbox_id }
  end
  local value, err = route(self.client, self.endpoint, self.id, ...)
  if value then self.heard = core.now() end
  return value, err
end

function Durable:may_pass(err)
  if routes.is_unknown(err) then return core.now() < self.began + routes.START_PATIENCE end
  return err.retryable and core.now() - self.heard < PATIENCE
end

function Durable:output(text)
  self.stdout:append(text)
  local callback = self.opts.on_stdout
  if not callback then return end
  local ok, problem = coxpcall.pcall(callback, text)
  if ok then return end
  self:stop()
  error(problem, 0)
end

function Durable:follow()
  local more = { on_abandon = function() self:stop() end }
  local log = follow {
    op = self.op, cursor = 0, owner = self,
    logs = function(cursor) return self:ask(routes.logs, cursor, more) end,
    look = function() return self:ask(routes.status, more) end,
  }
  while true do
    local text, _, status, err = log:next()
    if text then
      self:output(text)
    elseif status then
      return self:result(status)
    else
      if self:may_pass(err) then err = loop.sleep(self.op, PAUSE, nil, self) end
      if err then
        self:stop()
        err.op, err.result, err.command_id = self.op, self:result(), self.id
        return nil, err
      end
    end
  end
end

--- Puts the following of the log around a way to start commands.
---@param begin fun(body: table, opts: table): opensandbox.CommandResult?, opensandbox.Error?
function durable.over(begin, client, endpoint, op)
  return function(body, opts)
    body.background = true
    local began = core.now()
    local started, err = begin(body, { background = true, timeout = opts.timeout, idle_timeout = opts.idle_timeout,
      on_event = opts.on_event })
    if not started then return nil, err end
    return setmetatable({
      client = client, endpoint = endpoint, op = op, opts = opts, id = started.id, began = began, heard = core.now(),
      stdout = capture.new(opts.max_output or client.max_output),
    }, Durable):follow()
  end
end

return durable

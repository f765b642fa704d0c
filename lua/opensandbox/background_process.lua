--- Base class of objects for processes in the background: commands, and runs of isolated sessions. Their status is polled, and their output
--- is read by a byte cursor.
--
-- A class defines `_status(op, opts)` and `_logs(op, cursor, opts)`, which return what `status` and `logs` of execution/command_requests.lua return.

local deadline = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local follow = require "opensandbox.execution.log_follower"
local options = require "opensandbox.base.options"
local polling = require "opensandbox.loop.polling"
local requests = require "opensandbox.execution.command_requests"

local background_process = {}

--- A process in the background: a command, or a run of an isolated session.
--- ```lua
--- print(command.id, command.sandbox.id)
--- ```
---@class opensandbox.BackgroundProcess
---@field id string execd's name for it
---@field sandbox opensandbox.Sandbox the sandbox that it runs in
local BackgroundProcess = {}

--- Returns its output from a byte offset: stdout and stderr in the order in which they were written.
--- ```lua
--- local text, cursor = command:logs(0)
--- print(#text, "bytes; the next call begins at", cursor)
--- ```
---@param cursor? integer byte offset, default 0
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return string? text
---@return integer|opensandbox.Error cursor for the next call, or the error
function BackgroundProcess:logs(cursor, opts)
  local op = self._op_prefix .. ":logs"
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "natural") end
  local log, err = self:_logs(op, cursor or 0, opts)
  if not log then return nil, err end
  return log.text, log.cursor
end

--- Returns its status.
--- ```lua
--- local status = assert(command:status())
--- if not status.running then print(status.exit_code) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function BackgroundProcess:status(opts)
  return self:_status(self._op_prefix .. ":status", opts)
end

--- How a process in the background ended.
--- ```lua
--- local ended = assert(command:wait { timeout = 60 })
--- print(ended.id, ended.exit_code, ended.signal, ended.duration, ended.error)
--- ```
---@class opensandbox.CommandEnd
---@field id string execd's name for the process
---@field exit_code? integer -1 when a signal ended it; nil when its session ended first
---@field signal? string name of the signal that ended it
---@field duration? number seconds
---@field error? string execd's description of how it ended

local function end_of(status)
  local outcome = requests.outcome(status)
  return { id = status.id, exit_code = outcome.exit_code, error = status.error, duration = outcome.duration,
    signal = outcome.signal }
end

-- Returns the error when the time limit has passed before the process has ended.
local function timeout_error(self, limit, facts)
  facts.option, facts.seconds, facts.sandbox_id = "timeout", limit.seconds, self.sandbox.id
  facts.text, facts.hint = ("the %s has not ended"):format(self._noun), self._timeout_hint
  return errors.timeout(facts)
end

local wait_options = { timeout = "seconds" }

--- Waits until it has ended. If the wait ends first, the process continues.
--- ```lua
--- local ended, err = command:wait { timeout = 60 }
--- if ended then print(ended.exit_code, ended.signal) else print(err) end
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return opensandbox.CommandEnd? ended
---@return opensandbox.Error? err kind `timeout`, code `wait_timeout` when it has not ended in time
function BackgroundProcess:wait(opts)
  local op = self._op_prefix .. ":wait"
  opts = options.check(op, opts, wait_options)
  local limit = deadline.new(opts.timeout)
  local ended, err = polling.poll(op, { deadline = limit }, function()
    local status, problem = self:_status(op, { timeout = limit:remaining() })
    if not status then return nil, problem end
    return not status.running and end_of(status) or nil
  end)
  local ran_out = err and err.kind == "timeout" and limit:has_passed()
  if ended or (err and not ran_out) then return ended, err end
  return nil, timeout_error(self, limit, { op = op, code = "wait_timeout", cause = err })
end

--- Output of a process in the background, or its end.
--- ```lua
--- for event in command:events() do
---   if event.type == "output" then io.write(event.text) end
---   if event.type == "exit" then print(event.id, event.exit_code, event.signal, event.duration, event.error) end
---   saved = event.cursor or saved -- command:events { cursor = saved } continues here, in another process, too
--- end
--- ```
---@class opensandbox.CommandEvent
---@field type string "output", or "exit" for the last event
---@field text? string output: bytes as they were written, cut between two characters
---@field cursor? integer output: the position of the next event, for `events { cursor = }`
---@field id? string exit: execd's name for the process
---@field exit_code? integer exit: -1 when a signal ended it; nil when its session ended first
---@field signal? string exit: name of the signal that ended it
---@field duration? number exit: seconds
---@field error? string exit: execd's description of how it ended

--- The output of a process in the background, event by event.
--- ```lua
--- for event in command:events { cursor = 0 } do print(event.type) end
--- ```
---@class opensandbox.CommandEvents
local Events = {}
Events.__index = Events

--- Waits for the next event and returns it.
--- ```lua
--- local events = command:events()
--- local event, err = events:next()
--- while event do
---   event, err = events:next()
--- end
--- ```
---@return opensandbox.CommandEvent? event nil after the last one
---@return opensandbox.Error? err
function Events:next()
  if self._finished then return nil end
  local text, cursor, status, err = self._log:next()
  if text then return { type = "output", text = text, cursor = cursor } end
  if not status then
    local has_passed = not err or (err.kind == "timeout" and self._limit:has_passed())
    return nil, has_passed and self._timeout_error(err) or err
  end
  self._finished = true
  local event = end_of(status)
  event.type = "exit"
  return event
end

-- For `for event in command:events() do`. An error is raised, because a loop would hide it.
function Events:__call()
  local event, err = self:next()
  if err then error(err, 0) end
  return event
end

local events_options = { cursor = "natural", timeout = "seconds" }

--- Follows its output until it has ended, in short requests, so that nothing is lost when one of them fails. Use the result in a `for`
--- loop, or call its method `next`.
--- ```lua
--- for event in command:events() do
---   if event.type == "output" then io.write(event.text) else print("exit code", event.exit_code) end
--- end
--- ```
---@param opts? { cursor?: integer, timeout?: opensandbox.Duration } cursor: byte offset of the first output, default 0; timeout: for the whole iteration, default: none
---@return opensandbox.CommandEvents events the error when the time is over has kind `timeout` and code `follow_timeout`
function BackgroundProcess:events(opts)
  return self:events_for(self._op_prefix .. ":events", opts)
end

--- Internal: does the same for another method.
---@param op string the method that the user called
---@param opts? { cursor?: integer, timeout?: opensandbox.Duration }
---@return opensandbox.CommandEvents events
function BackgroundProcess:events_for(op, opts)
  opts = options.check(op, opts, events_options)
  local limit = deadline.new(opts.timeout)
  local log = follow {
    op = op, cursor = opts.cursor or 0, limit = limit,
    logs = function(cursor) return self:_logs(op, cursor, { timeout = limit:remaining() }) end,
    status = function() return self:_status(op, { timeout = limit:remaining() }) end,
  }
  return setmetatable({ _finished = false, _log = log, _limit = limit, _timeout_error = function(cause)
    return timeout_error(self, limit, { op = op, code = "follow_timeout", cause = cause })
  end }, Events)
end

function BackgroundProcess:__tostring()
  return ("%s: %s"):format(getmetatable(self).__name, self.id)
end

--- Makes a class of such objects.
---@param class table its methods, and: __name; _op_prefix (the prefix of its operations); _noun (its name in messages); _timeout_hint (the advice when one has not ended in time)
---@return table class
function background_process.class(class)
  for name, method in each(BackgroundProcess) do class[name] = class[name] or method end
  class.__index = class
  return class
end

return background_process

--- A command in the background: started by this process or by another, watched, waited for, ended.

local core = require "opensandbox.core"
local errors = require "opensandbox.errors"
local loop = require "opensandbox.loop"
local options = require "opensandbox.options"
local poll = require "opensandbox.poll"

local FIRST_PAUSE = 0.02    -- seconds between two looks
local LONGEST_PAUSE = 0.5   -- seconds
local START_PATIENCE = 2    -- seconds: execd says that a command has started a little before it knows it

---@class opensandbox.Command
---@field id string execd's id: what sandbox:command() takes, in another process too
local Command = {}
Command.__index = Command
Command.__name = "opensandbox.Command"

local handles = {}

--- A handle on a command of a sandbox.
---@param sandbox opensandbox.Sandbox
---@param id string
---@param is_fresh boolean it was started just now
function handles.new(sandbox, id, is_fresh)
  return setmetatable({ id = id, _sandbox = sandbox, _known_by = is_fresh and core.now() + START_PATIENCE or 0 }, Command)
end

-- execd's words for a command that it does not know: three routes, three ways to say it.
local function is_unknown(err)
  local message = tostring(err.message)
  return err.kind == "http" and (message:find("command not found", 1, true) or message:find("no such session", 1, true))
end

-- Calls a client method for this command. One that was started a moment ago may not be known yet.
local function ask(self, op, method, ...)
  local execd, err = self._sandbox:_execd(op)
  if not execd then return nil, err end
  local client = self._sandbox.client
  local pause = FIRST_PAUSE
  while true do
    local value, second = client[method](client, execd, self.id, ...)
    if value ~= nil then return value, second end
    if not is_unknown(second) or core.now() > self._known_by then
      second.op = op
      return nil, second
    end
    err = loop.pause(op, pause)
    if err then return nil, err end
    pause = pause * 1.5
  end
end

--- How it is doing.
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function Command:status()
  return ask(self, "command:status", "get_command_status")
end

--- What it has written, stdout and stderr in the order they were written.
---@param cursor? integer byte offset to go on from, default 0
---@return string? text
---@return integer|opensandbox.Error cursor for the next call, or the error
function Command:logs(cursor)
  return ask(self, "command:logs", "get_command_logs", cursor)
end

---@class opensandbox.CommandEnd
---@field id string
---@field exit_code integer -1 when a signal ended it
---@field signal? string the signal's name when one ended it
---@field duration? number seconds
---@field error? string execd's words for how it ended

local function ending(status)
  local duration = status.started_at and status.finished_at and status.finished_at - status.started_at
  return {
    id = status.id, exit_code = status.exit_code, error = status.error, duration = duration,
    signal = status.exit_code == -1 and (tostring(status.error):match("signal: (.+)") or "unknown") or nil,
  }
end

local wait_options = { timeout = "seconds" }

--- Waits until it has ended. It is not stopped when the waiting is.
---@param opts? table timeout (seconds; default: as long as it takes)
---@return opensandbox.CommandEnd? ended
---@return opensandbox.Error? err
function Command:wait(opts)
  local op = "command:wait"
  opts = options.check(op, opts, wait_options)
  local every = { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = opts.timeout and core.now() + opts.timeout }
  local ended, err = poll(op, every, function()
    local status, problem = ask(self, op, "get_command_status")
    if not status then return nil, problem end
    return not status.running and ending(status) or nil
  end)
  if ended or err then return ended, err end
  return nil, errors.new { kind = "timeout", code = "wait_timeout", clock = "timeout", op = op, sandbox_id = self._sandbox.id,
    message = ("the command has not ended: timeout of %g s ran out"):format(opts.timeout),
    hint = "It goes on: wait again, or kill it" }
end

--- Ends it: SIGTERM to its processes, SIGKILL after 3 seconds. One that has ended already is a success.
---@return true? ok
---@return opensandbox.Error? err
function Command:kill()
  local ok, err = ask(self, "command:kill", "interrupt_command")
  if ok then return true end
  if tostring(err.message):find("is not running", 1, true) then return true end
  return nil, err
end

---@class opensandbox.CommandEvent
---@field type string "output", or "exit", which is the last
---@field text? string output: bytes, as they were written, cut anywhere
---@field cursor? integer output: where the next event begins; what events{ cursor = } takes
---@field exit_code? integer exit, and the other fields of opensandbox.CommandEnd

---@class opensandbox.CommandEvents
local Events = {}
Events.__index = Events

--- The next event. Waits for it.
---@return opensandbox.CommandEvent? event nil after the last
---@return opensandbox.Error? err
function Events:next()
  if self.over then return nil end
  local op, pause = "command:events", FIRST_PAUSE
  while true do
    local text, cursor = ask(self.command, op, "get_command_logs", self.cursor)
    if not text then return nil, cursor end
    self.cursor = cursor
    if text ~= "" then return { type = "output", text = text, cursor = cursor } end
    -- It had ended before this look, so there will be no more.
    if self.status then
      self.over = true
      local event = ending(self.status)
      event.type = "exit"
      return event
    end
    local status, err = ask(self.command, op, "get_command_status")
    if not status then return nil, err end
    if status.running then
      err = loop.pause(op, pause)
      if err then return nil, err end
      pause = math.min(pause * 1.5, LONGEST_PAUSE)
    else
      self.status = status
    end
  end
end

-- `for event in command:events() do`: an error is raised, for a loop would hide it.
function Events:__call()
  local event, err = self:next()
  if err then error(err, 0) end
  return event
end

local events_options = { cursor = "count" }

--- Follows its output until it has ended, from the beginning or from a cursor: in short requests, so that nothing is lost when one of
--- them fails. For a `for` loop, or call `next` on it.
---@param opts? table cursor (byte offset to begin at)
---@return opensandbox.CommandEvents
function Command:events(opts)
  opts = options.check("command:events", opts, events_options)
  return setmetatable({ command = self, cursor = opts.cursor or 0 }, Events)
end

function Command:__tostring()
  return "opensandbox.Command: " .. self.id
end

return handles

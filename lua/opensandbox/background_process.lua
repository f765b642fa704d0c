--- What runs in the background: watched, waited for, its output followed. What the handles on commands and on runs of isolated sessions
--- have in common.
--
-- A handle's class says how to ask: `_status(op)` and `_logs(op, cursor)` give what routes.status and routes.logs do.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local follow = require "opensandbox.execution.log_follower"
local options = require "opensandbox.base.options"
local poll = require "opensandbox.loop.polling"
local routes = require "opensandbox.execution.command_requests"

local background = {}

local FIRST_PAUSE = 0.02    -- seconds between two looks
local LONGEST_PAUSE = 0.5   -- seconds

---@class opensandbox.Background
local Background = {}

--- What it has written, stdout and stderr in the order they were written.
---@param cursor? integer byte offset to go on from, default 0
---@return string? text
---@return integer|opensandbox.Error cursor for the next call, or the error
function Background:logs(cursor)
  local op = self._name .. ":logs"
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "count") end
  local log, err = self:_logs(op, cursor or 0)
  if not log then return nil, err end
  return log.text, log.cursor
end

--- How it is doing.
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function Background:status()
  return self:_status(self._name .. ":status")
end

---@class opensandbox.CommandEnd
---@field id string
---@field exit_code? integer -1 when a signal ended it; nil when its session ended before it did
---@field signal? string the signal's name when one ended it
---@field duration? number seconds
---@field error? string execd's words for how it ended

local function ending(status)
  local ended = routes.outcome(status)
  return { id = status.id, exit_code = ended.exit_code, error = status.error, duration = ended.duration, signal = ended.signal }
end

local wait_options = { timeout = "seconds" }

--- Waits until it has ended. It is not stopped when the waiting is.
---@param opts? table timeout (seconds; default: as long as it takes)
---@return opensandbox.CommandEnd? ended
---@return opensandbox.Error? err
function Background:wait(opts)
  local op = self._name .. ":wait"
  opts = options.check(op, opts, wait_options)
  local every = { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = opts.timeout and core.now() + opts.timeout }
  local ended, err = poll(op, every, function()
    local status, problem = self:_status(op)
    if not status then return nil, problem end
    return not status.running and ending(status) or nil
  end)
  if ended or err then return ended, err end
  return nil, errors.timeout { op = op, code = "wait_timeout", option = "timeout",
    text = ("the %s has not ended"):format(self._what), seconds = opts.timeout, hint = self._goes_on, sandbox_id = self.sandbox.id }
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
  local text, cursor, status, err = self.log:next()
  if text then return { type = "output", text = text, cursor = cursor } end
  if not status then return nil, err end
  self.over = true
  local event = ending(status)
  event.type = "exit"
  return event
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
function Background:events(opts)
  local op = self._name .. ":events"
  opts = options.check(op, opts, events_options)
  return setmetatable({ log = follow {
    op = op, cursor = opts.cursor or 0,
    logs = function(cursor) return self:_logs(op, cursor) end,
    status = function() return self:_status(op) end,
  } }, Events)
end

function Background:__tostring()
  return ("%s: %s"):format(getmetatable(self).__name, self.id)
end

--- A class of handles.
---@param class table its methods, and: __name; _name, _what (in operations and in texts); _goes_on (what can be done about one that goes on)
function background.class(class)
  for name, method in pairs(Background) do class[name] = class[name] or method end
  class.__index = class
  return class
end

return background

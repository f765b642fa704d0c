--- A command in the background: started by this process or by another, watched, waited for, ended.

local core = require "opensandbox.core"
local errors = require "opensandbox.errors"
local follow = require "opensandbox.follow"
local options = require "opensandbox.options"
local poll = require "opensandbox.poll"
local routes = require "opensandbox.command_routes"

local FIRST_PAUSE = 0.02    -- seconds between two looks
local LONGEST_PAUSE = 0.5   -- seconds

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
  return setmetatable({ id = id, _sandbox = sandbox, _known_by = is_fresh and core.now() + routes.START_PATIENCE or 0 }, Command)
end

-- Asks execd about this command. One that was started a moment ago may not be known yet.
local function ask(self, op, route, ...)
  local execd, err = self._sandbox:_execd(op)
  if not execd then return nil, err end
  local client, arguments = self._sandbox.client, { ... }
  return routes.patiently(op, self._known_by, function()
    return route(client, execd, self.id, arguments[1])
  end)
end

--- How it is doing.
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function Command:status()
  return ask(self, "command:status", routes.status)
end

--- What it has written, stdout and stderr in the order they were written.
---@param cursor? integer byte offset to go on from, default 0
---@return string? text
---@return integer|opensandbox.Error cursor for the next call, or the error
function Command:logs(cursor)
  if cursor ~= nil then options.argument("command:logs", "the cursor", cursor, "count") end
  local log, err = ask(self, "command:logs", routes.logs, cursor or 0)
  if not log then return nil, err end
  return log.text, log.cursor
end

---@class opensandbox.CommandEnd
---@field id string
---@field exit_code integer -1 when a signal ended it
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
function Command:wait(opts)
  local op = "command:wait"
  opts = options.check(op, opts, wait_options)
  local every = { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = opts.timeout and core.now() + opts.timeout }
  local ended, err = poll(op, every, function()
    local status, problem = ask(self, op, routes.status)
    if not status then return nil, problem end
    return not status.running and ending(status) or nil
  end)
  if ended or err then return ended, err end
  return nil, errors.new { kind = "timeout", code = "wait_timeout", clock = "timeout", op = op, sandbox_id = self._sandbox.id,
    message = ("the command has not ended: timeout of %g s ran out"):format(opts.timeout),
    hint = "It goes on: wait again, or kill it" }
end

local function interrupt(client, execd, id)
  return client:interrupt_command(execd, id)
end

--- Ends it: SIGTERM to its processes, SIGKILL after 3 seconds. One that has ended already is a success.
---@return true? ok
---@return opensandbox.Error? err
function Command:kill()
  local ok, err = ask(self, "command:kill", interrupt)
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
function Command:events(opts)
  local op = "command:events"
  opts = options.check(op, opts, events_options)
  return setmetatable({ log = follow {
    op = op, cursor = opts.cursor or 0,
    logs = function(cursor) return ask(self, op, routes.logs, cursor) end,
    look = function() return ask(self, op, routes.status) end,
  } }, Events)
end

function Command:__tostring()
  return "opensandbox.Command: " .. self.id
end

return handles

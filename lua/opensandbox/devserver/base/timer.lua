--- Timers that never fire early.
--
-- libuv counts a timer from the time at which the loop last woke, which is stale after a long callback. So the loop's clock is
-- updated before every start. One millisecond is added, because that clock counts whole milliseconds.

local uv = require "luv"
local safe_callback = require "opensandbox.devserver.base.safe_callback"

local MAX_DELAY = 2 ^ 50 -- milliseconds; libuv adds this to its clock, and the sum must stay an exact number

local Timer = {}
Timer.__index = Timer

--- Calls `callback` once after a delay. Replaces the earlier callback.
---@param milliseconds number
---@param callback fun()
---@param on_error? fun() called when the callback raises
function Timer:start(milliseconds, callback, on_error)
  uv.update_time()
  local delay = milliseconds > 0 and math.ceil(math.min(milliseconds, MAX_DELAY)) + 1 or 0
  self.handle:start(delay, 0, safe_callback.wrap(callback, on_error))
end

--- Calls `callback` after each interval. Replaces the earlier callback.
---@param milliseconds integer
---@param callback fun()
---@param on_error? fun() called when the callback raises
function Timer:start_interval(milliseconds, callback, on_error)
  uv.update_time()
  self.handle:start(milliseconds + 1, milliseconds, safe_callback.wrap(callback, on_error))
end

function Timer:stop()
  if not self.handle:is_closing() then self.handle:stop() end
end

--- Stops the timer for good. It may be closed already.
function Timer:close()
  if not self.handle:is_closing() then self.handle:close() end
end

local timer = {}

--- Creates a timer that is not started.
function timer.new()
  return setmetatable({ handle = uv.new_timer() }, Timer)
end

--- Creates a timer that calls `callback` once after a delay, and closes itself then.
---@param milliseconds number
---@param callback fun()
---@param on_error? fun()
function timer.after(milliseconds, callback, on_error)
  local self = timer.new()
  self:start(milliseconds, function()
    self:close()
    callback()
  end, on_error)
  return self
end

--- Creates a timer that calls `callback` after each interval, until it is closed.
---@param milliseconds integer
---@param callback fun()
---@param on_error? fun()
function timer.every(milliseconds, callback, on_error)
  local self = timer.new()
  self:start_interval(milliseconds, callback, on_error)
  return self
end

return timer

--- Delays that grow by a factor, up to a limit.

---@class opensandbox.Backoff
local Backoff = {}
Backoff.__index = Backoff

local INITIAL_DELAY = 0.02 -- seconds
local MAX_DELAY = 0.5      -- seconds
local FACTOR = 1.5

--- Returns the delay before the next attempt. The one after it is longer.
---@return number seconds
function Backoff:next()
  local delay = self.delay
  self.delay = math.min(delay * self.factor, self.max_delay)
  return delay
end

--- Starts again with the shortest delay.
function Backoff:reset()
  self.delay = self.initial_delay
end

local backoff = {}

--- Makes a series of delays.
---@param initial_delay? number seconds, default 0.02
---@param max_delay? number seconds, default 0.5
---@param factor? number default 1.5
---@return opensandbox.Backoff
function backoff.new(initial_delay, max_delay, factor)
  initial_delay = initial_delay or INITIAL_DELAY
  return setmetatable({
    initial_delay = initial_delay, max_delay = max_delay or MAX_DELAY, factor = factor or FACTOR,
    delay = initial_delay, -- the next one
  }, Backoff)
end

return backoff

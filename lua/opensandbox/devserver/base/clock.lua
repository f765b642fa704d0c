--- The time of day.

local uv = require "luv"

local clock = {}

--- Returns the time in seconds since 1970, with microseconds as its fraction.
---@return number
function clock.now()
  local seconds, microseconds = uv.gettimeofday()
  return seconds + microseconds / 1e6
end

--- Returns the time in whole milliseconds since 1970.
---@return number
function clock.milliseconds()
  local seconds, microseconds = uv.gettimeofday()
  return seconds * 1000 + math.floor(microseconds / 1000)
end

return clock

--- The clock of the lifecycle server, estimated from the Date headers of its responses. The expiry of a sandbox is an instant on that
--- clock, and this machine's clock may be wrong.

local core = require "opensandbox.core"
local time = require "opensandbox.base.time"

---@class opensandbox.ServerClock
---@field monotonic? number offset of the server's clock from core.now(), in seconds; nil: no Date was received yet
---@field wall? number offset of the server's clock from core.wall_clock(), in seconds
local ServerClock = {}
ServerClock.__index = ServerClock

local server_clock = {}

local MAX_DELAY = 60 -- seconds: a date that is older than expected by more than that means that the server's clock was set back

---@return opensandbox.ServerClock
function server_clock.new()
  return setmetatable({ monotonic = nil, wall = nil }, ServerClock)
end

-- Returns the better one of two offsets. A date is cut to whole seconds and arrives late, so the greatest offset is the best.
local function better(known, offset)
  return (not known or offset > known or offset < known - MAX_DELAY) and offset or known
end

--- Learns from the Date header of a response that has just arrived.
---@param date? string
function ServerClock:observe(date)
  local instant = time.parse_http_date(date)
  if not instant then return end
  self.monotonic = better(self.monotonic, instant - core.now())
  self.wall = better(self.wall, instant - core.wall_clock())
end

--- Returns the present time of the server. Of both clocks here, the later one counts: the monotonic clock may stop while the machine sleeps,
--- and the other one may be set back.
---@return number seconds since 1970; the time of this machine if no Date was received yet
function ServerClock:now()
  if not self.monotonic then return core.wall_clock() end
  return math.max(core.now() + self.monotonic, core.wall_clock() + self.wall)
end

return server_clock

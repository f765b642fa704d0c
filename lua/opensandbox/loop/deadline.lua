--- One time limit over several calls.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"

---@class opensandbox.Deadline
---@field seconds? number the whole time; nil: no limit
local Deadline = {}
Deadline.__index = Deadline

local deadline = {}

local MAX_REQUEST_SHARE = 1 / 3 -- of the whole time
local MIN_REQUEST_TIMEOUT = 1   -- seconds

--- The seconds that are left of a limit that has passed. They are more than 0, because 0 means no limit. A request with so little time is not
--- sent.
deadline.NO_TIME = 1e-6

--- Returns the seconds that are left, always more than 0.
---@return number? seconds nil: no limit
function Deadline:remaining()
  return self.at and math.max(self.at - core.now(), deadline.NO_TIME)
end

--- Returns whether the time has run out.
---@return boolean
function Deadline:has_passed()
  return self.at ~= nil and core.now() >= self.at
end

--- Returns the smaller one of `seconds` and the seconds that are left.
---@param seconds number
---@return number
function Deadline:clamp(seconds)
  return math.min(self:remaining() or seconds, seconds)
end

--- Returns the time limit of one request of several, at most the seconds that are left. It is a part of the whole time, so that a request
--- that hangs leaves time for another one.
---@return number seconds
function Deadline:request_timeout()
  return self:clamp(math.max(self.seconds * MAX_REQUEST_SHARE, MIN_REQUEST_TIMEOUT))
end

--- Makes the error that replaces a result after the time has run out.
---@param op string
---@param cause? opensandbox.Error
---@return opensandbox.Error
function Deadline:error(op, cause)
  return errors.timeout { op = op, code = "timeout", text = "not finished in time", option = self.option, seconds = self.seconds,
    timer = "timeout", cause = cause }
end

--- Makes a time limit that starts now.
---@param seconds? number nil: no limit
---@param option? string the caller's option that is the limit, default "timeout"
---@return opensandbox.Deadline
function deadline.new(seconds, option)
  return deadline.since(core.now(), seconds, option)
end

--- Makes a time limit that started earlier.
---@param start number on the clock of core.now()
---@param seconds? number nil: no limit
---@param option? string the caller's option that is the limit, default "timeout"
---@return opensandbox.Deadline
function deadline.since(start, seconds, option)
  return setmetatable({ seconds = seconds, option = option or "timeout", at = seconds and start + seconds }, Deadline)
end

return deadline

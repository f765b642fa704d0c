--- One time limit over several calls.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"

local SHORTEST = 0.001 -- seconds: 0 would mean no limit

local Deadline = {}
Deadline.__index = Deadline

--- Seconds that are left, always more than 0; nil when there is no limit.
---@return number?
function Deadline:left()
  return self.at and math.max(self.at - core.now(), SHORTEST)
end

function Deadline:over()
  return self.at ~= nil and core.now() >= self.at
end

--- The seconds that are left, at most `seconds`.
function Deadline:at_most(seconds)
  return math.min(self:left() or seconds, seconds)
end

--- The error to tell in place of what came of the time running out.
---@param op string
---@param cause? opensandbox.Error
---@return opensandbox.Error
function Deadline:error(op, cause)
  return errors.timeout { op = op, code = "timeout", text = "not finished in time", option = self.option, seconds = self.seconds,
    timer = "timeout", cause = cause }
end

local deadline = {}

--- A limit that begins now.
---@param seconds? number nil: none
---@param option? string the caller's option that is the limit, default "timeout"
function deadline.new(seconds, option)
  return setmetatable({ seconds = seconds, option = option or "timeout", at = seconds and core.now() + seconds }, Deadline)
end

return deadline

--- The standard input of the program. Input that cannot be read must not look like its end.

local event_loop = require "opensandbox.cli.base.event_loop"
local failure = require "opensandbox.cli.base.failure"

local input = {}

local STDIN = 0

--- Waits for input and reads it. Other tasks run meanwhile. A failure is raised, and so is the error of a cancelled task.
---@param seconds? number the longest wait, default: no limit
---@param when_closed? string the text to return when there is no standard input; default: that is a failure
---@return string? bytes "" at the end; nil when the time has passed
function input.read(seconds, when_closed)
  local bytes, err, name = event_loop.read(STDIN, seconds)
  if bytes or not err then return bytes end
  if type(err) == "table" then error(err, 0) end
  if name == "EBADF" and when_closed then return when_closed end
  failure.raise(failure.EXIT.FAILED, "cannot read the standard input: " .. err)
end

return input

--- Our terminal in raw mode, in which each key goes to the sandbox. Every way out of the program leaves that mode.

local core = require "opensandbox.core"
local failure = require "opensandbox.cli.base.failure"

local raw_terminal = {}

local STDIN = 0

local raw

--- Enters raw mode.
function raw_terminal.enter()
  local mode, problem = core.raw_mode(STDIN)
  if not mode then failure.raise(failure.EXIT.CANNOT_RUN, "cannot use the terminal: " .. problem) end
  raw = mode
end

--- Leaves raw mode, if it was entered.
function raw_terminal.leave()
  if raw then raw:restore() end
  raw = nil
end

return raw_terminal

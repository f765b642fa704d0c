--- Waiting for something that the library's background work, or a server, brings about.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"

local MAX_WAIT = 20       -- seconds
local POLL_INTERVAL = 0.005 -- seconds

--- Lets all clients and tasks run until `done()` is true, and returns its results; raises at the caller's line when that takes too
--- long.
---@param done fun(): any
---@param why? string | fun(): string the event that did not happen
return function(done, why)
  local deadline = core.now() + MAX_WAIT
  while true do
    local value = done()
    if value then return value end
    if core.now() > deadline then
      error(type(why) == "function" and why() or why or ("it did not happen in %d s"):format(MAX_WAIT), 2)
    end
    opensandbox.sleep(POLL_INTERVAL)
  end
end

--- Waiting for something that the library's background work brings about.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"

local LONGEST = 10 -- seconds

--- Lets all clients and tasks go on until `done()` is true; an error at the caller's line when that takes too long.
---@param done fun(): any
---@param why? string what did not happen
return function(done, why)
  local deadline = core.now() + LONGEST
  while not done() do
    if core.now() > deadline then error(why or ("it did not happen in %d s"):format(LONGEST), 2) end
    opensandbox.sleep(0.005)
  end
end

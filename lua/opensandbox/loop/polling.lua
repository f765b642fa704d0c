--- Looking again and again, at intervals that grow, until what is seen will do.

local core = require "opensandbox.core"
local loop = require "opensandbox.loop"

local GROWTH = 1.5

--- Calls `look` until it gives a value or an error.
---@param op string the operation, for errors
---@param every table first, longest: seconds between two looks; deadline: on the clock of core.now(), nil for none; owner: see loop.wait
---@param look fun(): any, opensandbox.Error? nothing: look again
---@return any value nil, and no error, when the deadline has passed
---@return opensandbox.Error? err
return function(op, every, look)
  local pause = every.first
  while true do
    local value, err = look()
    if value ~= nil or err then return value, err end
    local left = every.deadline and every.deadline - core.now() or pause
    if left <= 0 then return nil end
    err = loop.sleep(op, math.min(pause, left), nil, every.owner)
    if err then return nil, err end
    pause = math.min(pause * GROWTH, every.longest)
  end
end

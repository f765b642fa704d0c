--- Polling at intervals that grow, until a check succeeds or fails.

local backoffs = require "opensandbox.loop.backoff"
local loop = require "opensandbox.loop"

local polling = {}

--- Calls `check` until it returns a value or an error.
---@param op string for errors
---@param opts table deadline? (opensandbox.Deadline; default: no limit), initial_delay?, max_delay?, factor? (see Backoff), owner? (see loop.wait), sleeper? (its method `sleep(op, seconds)` waits in place of loop.sleep)
---@param check fun(): any, opensandbox.Error? it is called again if it returns nothing
---@return any value nil without an error when the deadline has passed
---@return opensandbox.Error? err
function polling.poll(op, opts, check)
  local backoff = backoffs.new(opts.initial_delay, opts.max_delay, opts.factor)
  while true do
    local value, err = check()
    if value ~= nil or err then return value, err end
    local delay = backoff:next()
    if opts.deadline then
      if opts.deadline:has_passed() then return nil end
      delay = opts.deadline:clamp(delay)
    end
    if opts.sleeper then err = opts.sleeper:sleep(op, delay) else err = loop.sleep(op, delay, nil, opts.owner) end
    if err then return nil, err end
    -- A request of a further check would have no time for its answer.
    if opts.deadline and opts.deadline:has_passed() then return nil end
  end
end

return polling

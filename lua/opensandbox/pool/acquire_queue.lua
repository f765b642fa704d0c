--- The calls of `acquire` that wait in this process, in the order in which they came.

local core = require "opensandbox.core"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.AcquireRequest a call of acquire; it ends with a `sandbox` or an `err`
---@field sandbox? opensandbox.Sandbox
---@field err? opensandbox.Error
---@field is_fresh boolean the sandbox was created for this request, so that it needs no check
---@field since number when it began, on the clock of core.now()
---@field answered boolean the store has answered that there is none now
---@field waiter? opensandbox.Waiter
local AcquireRequest = {}
AcquireRequest.__index = AcquireRequest

---@class opensandbox.AcquireQueue the list of the requests that have not ended
local AcquireQueue = {}
AcquireQueue.__index = AcquireQueue

local acquire_queue = {}

---@return opensandbox.AcquireQueue
function acquire_queue.new()
  return setmetatable({}, AcquireQueue)
end

--- Adds a request.
---@param position? integer default: at the end
---@return opensandbox.AcquireRequest
function AcquireQueue:add(position)
  local request = setmetatable({ queue = self, since = core.now(), is_fresh = false, answered = false }, AcquireRequest)
  table.insert(self, math.min(position or #self + 1, #self + 1), request)
  return request
end

--- Ends the first request.
---@param sandbox? opensandbox.Sandbox
---@param err? opensandbox.Error
---@param is_fresh? boolean
function AcquireQueue:finish_first(sandbox, err, is_fresh)
  local request = table.remove(self, 1)
  request.sandbox, request.err, request.is_fresh = sandbox, err, is_fresh or false
  scheduler.wake(request.waiter)
end

--- Ends requests with an error, the first one first, until so many are left.
---@param count integer
---@param err opensandbox.Error
function AcquireQueue:fail_until(count, err)
  while #self > count do self:finish_first(nil, err) end
end

--- Returns its position in the queue, or nil when it has ended.
---@return integer?
function AcquireRequest:position()
  for index, request in ipairs(self.queue) do
    if request == self then return index end
  end
end

--- Called when the code that called acquire stops waiting, also when the host ends its coroutine.
function AcquireRequest:abandon()
  local position = self:position()
  if position then table.remove(self.queue, position) end
  if self.sandbox then self.sandbox:delete_in_background() end
end

return acquire_queue

--- Lets several coroutines wait for the news of one transfer: one may receive while another sends.
--
-- A transport has one waiter for each transfer. While any coroutine waits, this object is in its place, and wakes them all.

local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.SharedWait
---@field is_shared boolean tells it from a waiter
local SharedWait = { is_shared = true }
SharedWait.__index = SharedWait

local shared_wait = {}

--- Makes a shared wait.
---@param transport opensandbox.Transport
---@return opensandbox.SharedWait
function shared_wait.new(transport)
  return setmetatable({ transport_waiters = transport.waiters, id = nil, waiters = {} }, SharedWait)
end

--- Waits for the news of this transfer from now on, in place of any other.
---@param id integer of the transfer
function SharedWait:follow(id)
  if self.id then self.transport_waiters[self.id] = nil end
  self.id = id
  if next(self.waiters) ~= nil then self.transport_waiters[id] = self end
end

--- Wakes all coroutines that wait. The scheduler calls it when the transfer has news.
function SharedWait:wake()
  scheduler.wake_all(self.waiters)
end

--- Makes a wait for the running code, which checks from now on, before each `wait`, whether the transfer has news.
---@param shielded? boolean as for loop.wait
---@return opensandbox.Wait
function SharedWait:expect(shielded)
  return scheduler.expect { registry = self.waiters, key = {}, shielded = shielded, owner = self }
end

--- Waits until the transfer has news, or the time has passed. It may also return earlier.
---@param wait opensandbox.Wait of `expect`
---@param seconds? number nil: without a limit
---@return string? interruption as of loop.wait
---@return string? reason
function SharedWait:wait(wait, seconds)
  if self.id then self.transport_waiters[self.id] = self end
  wait.seconds = seconds
  local interruption, reason = loop.wait(wait)
  self:abandon()
  return interruption, reason
end

--- Internal: leaves the transport when no coroutine waits any more. The loop calls it for a coroutine that the host has ended.
function SharedWait:abandon()
  if self.id and next(self.waiters) == nil then self.transport_waiters[self.id] = nil end
end

return shared_wait

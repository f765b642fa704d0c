--- Lets several coroutines wait for the news of one transfer: one may receive while another sends.
--
-- A transport has one waiter for each transfer. While any coroutine waits, this object is that waiter, and wakes all of them.

local each = require "opensandbox.base.each"
local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.SharedWait
local SharedWait = {}
SharedWait.__index = SharedWait

local shared_wait = {}

--- Makes a shared wait.
---@param transport opensandbox.Transport
---@return opensandbox.SharedWait
function shared_wait.new(transport)
  return setmetatable({ transport_waiters = transport.waiters, id = nil, waiters = {}, parked = true }, SharedWait)
end

--- Waits for the news of this transfer from now on, in place of any other.
---@param id integer of the transfer
function SharedWait:follow(id)
  if self.id then self.transport_waiters[self.id] = nil end
  self.id = id
  if next(self.waiters) ~= nil then self.transport_waiters[id] = self end
end

--- Wakes all coroutines that wait. The scheduler calls it as the method of a waiter.
function SharedWait:notify()
  self.woken = false
  for _, waiter in each(self.waiters) do scheduler.wake(waiter) end
end

--- Waits until the transfer has news, or the time has passed.
---@param seconds? number nil: without a limit
---@param shielded? boolean as for loop.wait
---@return string? interruption as of loop.wait
---@return string? reason
function SharedWait:wait(seconds, shielded)
  if self.id then self.transport_waiters[self.id] = self end
  local interruption, reason = loop.wait {
    registry = self.waiters, key = {}, seconds = seconds, shielded = shielded, owner = self,
  }
  self:abandon()
  return interruption, reason
end

--- Internal: leaves the transport when no coroutine waits any more. The loop calls it for a coroutine that the host has ended.
function SharedWait:abandon()
  if self.id and next(self.waiters) == nil then self.transport_waiters[self.id] = nil end
end

return shared_wait

--- Several coroutines that wait for one transfer. For example, one coroutine receives while another sends.
--
-- A transport has one waiter for each transfer. This object is that waiter while any coroutine waits, and it wakes all of them.

local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.SharedWait
local SharedWait = {}
SharedWait.__index = SharedWait

local shared_wait = {}

--- Makes the shared wait for a transfer.
---@param transport opensandbox.Transport
---@param id integer of the transfer
---@return opensandbox.SharedWait
function shared_wait.new(transport, id)
  return setmetatable({ transport_waiters = transport.waiters, id = id, waiters = {}, parked = true }, SharedWait)
end

--- Wakes all waiting coroutines. The scheduler calls this.
function SharedWait:notify()
  self.woken = false
  for _, waiter in pairs(self.waiters) do scheduler.wake(waiter) end
end

--- Waits until the transfer has progressed or the time has passed.
---@param seconds? number nil: no limit
---@param shielded? boolean see opensandbox.Wait
---@return string? interruption see loop.wait
---@return string? reason
function SharedWait:wait(seconds, shielded)
  self.transport_waiters[self.id] = self
  local interruption, reason = loop.wait {
    registry = self.waiters, key = {}, seconds = seconds, shielded = shielded, owner = self,
  }
  self:abandon()
  return interruption, reason
end

--- Removes this object from the transport after the last wait. The loop calls this if the host has ended a waiting coroutine.
function SharedWait:abandon()
  if next(self.waiters) == nil then self.transport_waiters[self.id] = nil end
end

return shared_wait

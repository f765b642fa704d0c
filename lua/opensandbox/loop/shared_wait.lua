--- Several coroutines that wait for the news of one transfer: one receives from it, say, while another sends.
--
-- A transport has one waiter for each transfer. This object takes that place while anyone waits, and wakes all of them.

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

--- For the scheduler, to which this object is a waiter: wakes all who wait.
function SharedWait:notify()
  self.woken = false
  for _, waiter in pairs(self.waiters) do scheduler.wake(waiter) end
end

--- Waits until there is news of the transfer, or the time has passed.
---@param seconds? number nil: without a limit
---@param shielded? boolean as for loop.wait
---@return string? interruption as of loop.wait
---@return string? reason
function SharedWait:wait(seconds, shielded)
  self.transport_waiters[self.id] = self
  local interruption, reason = loop.wait {
    registry = self.waiters, key = {}, seconds = seconds, shielded = shielded, owner = self,
  }
  self:abandon()
  return interruption, reason
end

--- Leaves the transport when nobody waits any more. The loop calls this for a coroutine that its host has ended.
function SharedWait:abandon()
  if next(self.waiters) == nil then self.transport_waiters[self.id] = nil end
end

return shared_wait

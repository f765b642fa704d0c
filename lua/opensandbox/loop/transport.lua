--- A transport: the core's set of transfers that belongs to one client, and the code that waits for news of them.
--
-- The scheduler drives all transports of a Lua state. It knows no clients.

local core = require "opensandbox.core"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.Transport
---@field multi userdata the core's handle, see src/lua_multi.c
---@field waiters table<integer, table> waiters by the id of the transfer that they wait for
local Transport = {}
Transport.__index = Transport

local transport = {}

--- Makes a transport and hands it to the scheduler.
---@param defaults table fields that every request to the core gets: TLS and proxy
---@param on_exit fun() called when the host is about to end; it must not refer to the transport's owner strongly
---@return opensandbox.Transport
function transport.new(defaults, on_exit)
  local self = setmetatable({ multi = core.multi(), waiters = {}, on_exit = on_exit, defaults = defaults }, Transport)
  scheduler.add(self)
  return self
end

--- Starts a transfer.
---@param request table as multi:request() of the core takes it
---@return userdata transfer
function Transport:start(request)
  for name, value in pairs(self.defaults) do request[name] = value end
  return self.multi:request(request)
end

--- Moves the data of this transport only, waiting at most `seconds`, and wakes nobody. For code that cannot wait in the loop.
---@param seconds number
function Transport:step(seconds)
  self.multi:step(seconds)
end

--- Ends all transfers. Code that waits for one of them continues with an error of kind `closed`.
---@param seconds? number the longest wait for detached requests that must be answered, default 2
function Transport:close(seconds)
  self.multi:close(seconds)
  for _, waiter in pairs(self.waiters) do scheduler.wake(waiter) end
end

return transport

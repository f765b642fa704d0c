--- A transport: the core's set of transfers of one client, and the code that waits for them.
--
-- The scheduler drives all transports of a Lua state and knows no clients.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.Transport
---@field multi userdata the core's handle, see src/lua_multi.c
---@field waiters table<integer, opensandbox.Waiter> by the id of the transfer that they wait for
---@field on_exit fun() called when the host is about to exit
---@field defaults table fields that every request to the core gets
local Transport = {}
Transport.__index = Transport

local transport = {}

--- Makes a transport and adds it to the scheduler.
---@param defaults table fields that every request to the core gets: TLS and proxy
---@param on_exit fun() called when the host is about to exit; it must not refer strongly to the transport's owner
---@return opensandbox.Transport
function transport.new(defaults, on_exit)
  local self = setmetatable({ multi = core.multi(), waiters = {}, on_exit = on_exit, defaults = defaults }, Transport)
  scheduler.add(self)
  return self
end

--- Starts a transfer.
---@param request table as multi:request() of the core takes it, or multi:websocket() where its field `websocket` is true
---@return userdata transfer
function Transport:start(request)
  for name, value in each(self.defaults) do request[name] = value end
  if request.websocket then return self.multi:websocket(request) end
  return self.multi:request(request)
end

--- Moves the data of this transport only, waiting at most `seconds`, and wakes no waiter. For code that cannot wait in the loop.
---@param seconds number
function Transport:step(seconds)
  self.multi:step(seconds)
end

--- Stops all transfers. Code that waits for one of them continues with an error of kind `closed`.
---@param seconds? number the longest wait for detached requests with wait_on_close, default 2
function Transport:close(seconds)
  self.multi:close(seconds)
  scheduler.wake_all(self.waiters)
end

return transport

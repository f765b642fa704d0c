--- luasocket and copas.
--
-- A program that calls socket.select() itself watches the client: `socket.select({ client }, nil, client:timeout())`, then
-- `client:step(0)`; its tasks are our own coroutines. In copas, tasks are copas threads. Its older versions have no timers and can wait
-- for nothing but sockets: each waiting thread reads from something that looks like one and has the scheduler's descriptor, which an
-- alarm makes readable when time is up.

local options = require "opensandbox.options"
local plain = require "opensandbox.loop.plain"
local scheduler = require "opensandbox.scheduler"

local adapter = { name = "socket" }

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local waiting, roused = 0, 0

local function copas()
  return package.loaded.copas
end

local Waiter = {}
Waiter.__index = Waiter

function Waiter:getfd() return scheduler:pollfd() end

function Waiter:dirty() return self.woken end

-- All waiting threads are resumed when the descriptor is readable; the first of them moves what there is to move.
function Waiter:receive()
  if not self.woken then scheduler:step(0) end
  if self.woken then return "" end
  return nil, "timeout"
end

function Waiter:settimeout() return 1 end

function Waiter:close() return 1 end -- what copas does to the last socket of a thread that ends

function Waiter:suspend()
  if not scheduler:alarm(0) then
    options.raise("opensandbox", "copas cannot wait for us on this platform: it needs epoll")
  end
  waiting = waiting + 1
  while not self.woken do copas().receive(self, 1) end
  waiting = waiting - 1
  roused = roused - 1
end

function Waiter:rouse()
  roused = roused + 1
end

function adapter.spawn(body)
  if not copas() then return plain.spawn(body) end
  copas().addthread(function()
    local running = coroutine.running()
    waiters[running] = setmetatable({}, Waiter)
    scheduler.park(waiters[running], { seconds = 0 }) -- copas starts threads at once
    body()
  end)
end

-- copas does not tell its threads from other coroutines: where it was chosen as the loop, all are taken for threads.
function adapter.waiter(running, was_chosen)
  if not waiters[running] and was_chosen and copas() then waiters[running] = setmetatable({}, Waiter) end
  return waiters[running]
end

function adapter.changed()
  if waiting > 0 then scheduler:alarm(roused > 0 and 0 or nil) end
end

return adapter

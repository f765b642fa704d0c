--- The adapter for copas. Tasks are its threads.
--
-- Older copas can wait only for sockets. Each waiting thread therefore reads from an object that behaves like a socket. A thread of
-- ours, the driver, reads from such an object with the scheduler's descriptor and steps the scheduler. An alarm makes the descriptor
-- readable when a time has passed.

local copas = require "copas"
local coxpcall = require "opensandbox.loop.coxpcall"
local each = require "opensandbox.base.each"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local standalone = require "opensandbox.loop.adapters.standalone"

local adapter = { name = "copas" }

local MAX_WAIT = 60 -- seconds

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local waiting, unfinished = 0, 0 -- number of threads that wait for us, and of tasks
local driving = false

local function has_work()
  return waiting > 0 or scheduler.has_work()
end

local driver = { started = false }

function driver.getfd() return scheduler:pollfd() end

function driver.dirty() return scheduler:dirty() end

-- copas also calls this once before the thread waits, when a step would be too early.
function driver.receive()
  if driver.started then scheduler:step(0) end
  driver.started = true
  if has_work() then return nil, "timeout" end
  return ""
end

function driver.settimeout() return 1 end

function driver.close() return 1 end

local function drive()
  driver.started = false
  repeat copas.receive(driver, 1) until not has_work()
  driving = false
end

local function require_pollable()
  if not scheduler:pollfd() then
    options.raise("opensandbox", "copas cannot wait for us on this platform: it needs epoll")
  end
end

local Waiter = {}
Waiter.__index = Waiter

-- select() ignores an object without a descriptor, so a thread is resumed when it is woken, and not before.
function Waiter:getfd() return self.woken and scheduler:pollfd() or nil end

function Waiter:dirty() return self.woken end

function Waiter:receive()
  if self.woken then return "" end
  return nil, "timeout"
end

function Waiter:settimeout() return 1 end

function Waiter:close() return 1 end -- copas closes the last socket of a thread that ends

function Waiter:suspend()
  waiting = waiting + 1
  adapter.changed()
  while not self.woken do copas.receive(self, 1) end
  waiting = waiting - 1
end

function Waiter:notify() end

function adapter.spawn(body)
  require_pollable()
  unfinished = unfinished + 1
  copas.addthread(function()
    local running = coroutine.running()
    waiters[running] = setmetatable({}, Waiter)
    scheduler.park(waiters[running], { seconds = 0 }) -- copas starts threads at once
    body()
    unfinished = unfinished - 1
  end)
end

-- Returns whether a known thread has resumed the running coroutine.
local function is_inside_another()
  for thread in each(waiters) do
    if coroutine.status(thread) == "normal" then return true end
  end
  return false
end

-- copas does not distinguish its threads from other coroutines. If the user chose this adapter, a coroutine that does not run inside a
-- known thread counts as a thread.
function adapter.waiter(running, was_chosen)
  if not waiters[running] and was_chosen and not is_inside_another() then
    require_pollable()
    waiters[running] = setmetatable({}, Waiter)
  end
  return waiters[running]
end

-- Outside of any thread, the threads continue during the wait. Inside a thread, copas cannot be stepped.
function adapter.block(waiter)
  while not waiter.woken and unfinished > 0 and not coxpcall.running() do
    adapter.changed()
    copas.step(MAX_WAIT)
  end
  standalone.block(waiter)
end

function adapter.changed()
  if not has_work() or not scheduler:alarm() then return end
  if not driving then
    driving = true
    copas.addthread(drive)
  end
end

return adapter

--- copas: tasks are its threads. Its older versions have no timers and can wait for nothing but sockets, so each waiting thread reads
--- from something that looks like one. A thread of ours, the driver, reads from one that has the scheduler's descriptor, which an alarm
--- makes readable when time is up, and steps the scheduler.

local copas = require "copas"
local options = require "opensandbox.base.options"
local plain = require "opensandbox.loop.adapters.standalone"
local coxpcall = require "opensandbox.loop.coxpcall"
local scheduler = require "opensandbox.loop.scheduler"

local adapter = { name = "copas" }

local LONGEST_STEP = 60 -- seconds

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local waiting, unfinished = 0, 0 -- threads that wait for us, and tasks
local driving = false

local function goes_on()
  return waiting > 0 or scheduler.has_work()
end

local driver = { began = false }

function driver.getfd() return scheduler:pollfd() end

function driver.dirty() return scheduler:dirty() end

-- copas calls this before it waits, too. What waits then has not even begun to.
function driver.receive()
  if driver.began then scheduler:step(0) end
  driver.began = true
  if goes_on() then return nil, "timeout" end
  return ""
end

function driver.settimeout() return 1 end

function driver.close() return 1 end

local function drive()
  driver.began = false
  repeat copas.receive(driver, 1) until not goes_on()
  driving = false
end

local function needs_descriptor()
  if not scheduler:pollfd() then
    options.raise("opensandbox", "copas cannot wait for us on this platform: it needs epoll")
  end
end

local Waiter = {}
Waiter.__index = Waiter

-- select() passes over what has no descriptor, so a thread is resumed when it is woken, and not before.
function Waiter:getfd() return self.woken and scheduler:pollfd() or nil end

function Waiter:dirty() return self.woken end

function Waiter:receive()
  if self.woken then return "" end
  return nil, "timeout"
end

function Waiter:settimeout() return 1 end

function Waiter:close() return 1 end -- what copas does to the last socket of a thread that ends

function Waiter:suspend()
  waiting = waiting + 1
  adapter.changed()
  while not self.woken do copas.receive(self, 1) end
  waiting = waiting - 1
end

function Waiter:notify() end

function adapter.spawn(body)
  needs_descriptor()
  unfinished = unfinished + 1
  copas.addthread(function()
    local running = coroutine.running()
    waiters[running] = setmetatable({}, Waiter)
    scheduler.park(waiters[running], { seconds = 0 }) -- copas starts threads at once
    body()
    unfinished = unfinished - 1
  end)
end

-- Whether a thread that we know has resumed the running coroutine.
local function is_inside_another()
  for thread in pairs(waiters) do
    if coroutine.status(thread) == "normal" then return true end
  end
  return false
end

-- copas does not tell its threads from other coroutines: where it was chosen as the loop, one that is not inside of a thread that we know
-- is taken for a thread.
function adapter.waiter(running, was_chosen)
  if not waiters[running] and was_chosen and not is_inside_another() then
    needs_descriptor()
    waiters[running] = setmetatable({}, Waiter)
  end
  return waiters[running]
end

-- Outside of any thread, the threads go on meanwhile; inside, copas cannot be stepped.
function adapter.block(waiter)
  while not waiter.woken and unfinished > 0 and not coxpcall.running() do
    adapter.changed()
    copas.step(LONGEST_STEP)
  end
  plain.block(waiter)
end

function adapter.changed()
  if not goes_on() or not scheduler:alarm() then return end
  if not driving then
    driving = true
    copas.addthread(drive)
  end
end

return adapter

--- The scheduler: which code waits for which transfer or until when, and which code continues next. One for all transports of a Lua
--- state.
--
-- A *waiter* stands for a coroutine that can wait: a task of ours, a coroutine of the host's, or a caller that blocks. The waiter knows
-- how to suspend and how to notify it; the scheduler decides when. Nothing here yields. User code runs only in `step`, where ready tasks
-- are resumed. A waiter goes through three steps: `wake` (its wait is over), `notify` (its host is told), `resume` (its coroutine runs).
--
-- Fields of a waiter that the scheduler sets: `parked` (its wait, see park), `woken`; timers.lua sets `at` and `position`. Fields that the
-- adapter sets: `blocks` (it drives the scheduler itself) and what the adapter needs. loop.lua sets `task`.
--
-- A host's event loop drives the scheduler like one client: watch `pollfd`, wake up after `timeout`, call `step`.

local core = require "opensandbox.core"
local new_timers = require "opensandbox.loop.timers"

local scheduler = { now = core.now }

local POLL_INTERVAL = 0.005 -- seconds between polls of several transports, where they have no descriptors

local transports = setmetatable({}, { __mode = "k" })
local watched = setmetatable({}, { __mode = "k" }) -- by transport: the poller that watches it, and its descriptor
local timers = new_timers()
local run_queue, first, last = {}, 1, 0 -- waiters of ours that can continue
local parked = 0
local poller

--- Called whenever the set of things to wait for has changed. The host's adapter sets this function.
function scheduler.on_change() end

local stepping = false

--- Notifies the host that something changed. While a step runs, the host is notified at its end.
function scheduler.notify()
  if not stepping then scheduler.on_change() end
end

--- Drives a transport from now on. The transport is held weakly.
---@param transport opensandbox.Transport
function scheduler.add(transport)
  transports[transport] = true
end

--- Tells the owners of all transports that the host is about to end.
function scheduler.exit()
  for transport in pairs(transports) do transport.on_exit() end
end

-- A transport is busy while transfers run, detached ones included.
local function is_busy(transport)
  return transport.multi:inflight() > 0
end

-- The set of all busy transports' descriptors.
local function descriptors()
  if poller and poller:inherited() then
    poller:close()
    poller = nil
  end
  if not poller then poller = core.poller() end
  for transport in pairs(transports) do
    local fd = is_busy(transport) and transport.multi:pollfd()
    local known = watched[transport]
    if fd and not (known and known.poller == poller and known.fd == fd) then
      poller:watch(fd)
      watched[transport] = { poller = poller, fd = fd }
    end
  end
  return poller
end

--- The descriptor to watch for reading; nil on platforms without one.
function scheduler:pollfd() return descriptors():pollfd() end

--- "r": what to watch the descriptor for.
function scheduler:events() return "r" end

--- Seconds until `step` should be called even though the descriptor is quiet; nil when there is no need.
function scheduler:timeout()
  if first <= last then return 0 end
  local next_time
  local due = timers:first()
  if due then next_time = math.max(due.at - core.now(), 0) end
  for transport in pairs(transports) do
    local seconds = transport.multi:timeout()
    if seconds and (not next_time or seconds < next_time) then next_time = seconds end
  end
  return next_time
end

scheduler.getfd = scheduler.pollfd

function scheduler:dirty() return self:timeout() == 0 end

--- Makes the descriptor readable after `seconds` too (default: when `step` is due), for hosts without timers. Returns nil where the
--- platform cannot do that.
function scheduler:alarm(seconds)
  return descriptors():alarm(seconds or self:timeout())
end

--- Returns whether a coroutine waits or is ready.
function scheduler.has_waiters()
  return parked > 0 or first <= last
end

--- Returns whether a step could ever do anything: a transfer runs, a timer is set, or a waiter is ready.
function scheduler.has_work()
  if first <= last or timers:first() then return true end
  for transport in pairs(transports) do
    if is_busy(transport) then return true end
  end
  return false
end

--- Ends a waiter's wait. Its host is notified once, however often this is called.
function scheduler.wake(waiter)
  if not waiter.parked or waiter.woken then return end
  waiter.woken = true
  timers:remove(waiter)
  waiter:notify()
end

--- Puts a waiter of ours into the run queue. The next step resumes it.
function scheduler.enqueue(waiter)
  last = last + 1
  run_queue[last] = waiter
  scheduler.notify()
end

--- Removes a waiter from its registry and from the timers. Returns its wait.
function scheduler.unpark(waiter)
  local wait = waiter.parked
  if not wait then return nil end
  waiter.parked = nil
  if not waiter.blocks then parked = parked - 1 end
  timers:remove(waiter)
  if wait.registry then wait.registry[wait.key] = nil end
  return wait
end

--- Suspends the running code until its waiter is woken.
---@param waiter table
---@param wait table seconds (at most); registry and key (the table and key under which the waiter is found meanwhile)
function scheduler.park(waiter, wait)
  waiter.parked, waiter.woken = wait, false
  if wait.seconds then timers:add(waiter, core.now() + wait.seconds) end
  if wait.registry then wait.registry[wait.key] = waiter end
  if not waiter.blocks then parked = parked + 1 end -- a blocking caller drives the scheduler itself
  scheduler.notify()
  waiter:suspend()
  scheduler.unpark(waiter)
end

-- Wakes the waiters whose transfer has news and those whose time has come. Returns their number.
local function wake_waiters()
  local woken = 0
  for transport in pairs(transports) do
    local multi = transport.multi
    local id = multi:changed()
    while id do
      local waiter = transport.waiters[id]
      if waiter then
        scheduler.wake(waiter)
        woken = woken + 1
      end
      id = multi:changed()
    end
  end
  local now = core.now()
  local due = timers:first()
  while due and due.at <= now do
    scheduler.wake(due)
    woken = woken + 1
    due = timers:first()
  end
  return woken
end

-- Resumes the waiters that are ready now. Waiters that become ready during this run after the next network poll.
local function run_ready()
  local until_here = last
  while first <= last and first <= until_here do -- a task may block, and step in here
    local waiter = run_queue[first]
    run_queue[first] = nil
    first = first + 1
    waiter:resume()
  end
  if first > last then first, last = 1, 0 end
end

-- Moves the data of all transports, waiting at most `seconds`.
local function poll_network(seconds)
  local busy, several
  for transport in pairs(transports) do
    if is_busy(transport) then
      several = busy ~= nil
      busy = transport
      if several then break end
    end
  end
  if busy and not several then
    busy.multi:step(seconds)
    return
  end
  local set = descriptors()
  if several and not set:pollfd() then seconds = math.min(seconds, POLL_INTERVAL) end
  set:wait(seconds)
  for transport in pairs(transports) do
    if is_busy(transport) then transport.multi:step(0) end
  end
end

--- Moves the data of all transports, waiting at most `seconds` (default 0), and resumes the tasks that can continue. Returns the number
--- of waiters woken.
function scheduler:step(seconds)
  local due = self:timeout()
  if not seconds or seconds < 0 then seconds = 0 end
  stepping = true
  poll_network(due and math.min(due, seconds) or seconds)
  local woken = wake_waiters()
  run_ready()
  stepping = false
  self.on_change()
  return woken
end

return scheduler

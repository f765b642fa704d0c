--- The scheduler: decides which waiting code continues, and when. A Lua state has one scheduler for all its transports.
--
-- Nothing in this file yields. User code runs only in `step`, which resumes tasks that are ready. A host's event loop drives the
-- scheduler like a client: it watches `pollfd`, wakes up after `timeout` and calls `step`.
--
-- A *waiter* represents code that can wait: a task of ours, a coroutine of the host, or a caller that blocks. A wait ends in three
-- steps: the scheduler wakes the waiter, the waiter notifies its host, and the host resumes the coroutine.

---@class opensandbox.Waiter
---@field suspend fun(self: opensandbox.Waiter) called in the waiter's coroutine; yields to the host until `woken` is true
---@field notify fun(self: opensandbox.Waiter) makes the host continue `suspend`; called from any code
---@field resume? fun(self: opensandbox.Waiter) continues the coroutine; only waiters in the run queue have it, into which `wake` puts them
---@field blocks? boolean set by loop/init.lua: the caller blocks, so it drives the scheduler itself
---@field task? opensandbox.Task|false set by task.lua: the task whose coroutine this is
---@field parked? opensandbox.Wait set by the scheduler: the wait, from `park` to `unpark`
---@field woken? boolean set by the scheduler: the wait has ended
---@field next? opensandbox.Waiter|false set by the scheduler: the next one in the run queue
---@field is_queued? boolean set by the scheduler: it is in the run queue
---@field at? number set by timers.lua: when the wait times out, on the clock of core.now()
---@field position? integer|false set by timers.lua
--- An adapter adds the fields that it needs.

---@class opensandbox.Wait
---@field seconds? number the wait ends after this time at the latest
---@field registry? table the table in which the waiter is found during the wait
---@field key? any its key in that table
---@field shielded? boolean a cancelled task may wait here, because the call deletes or stops something
---@field checked_at? integer set by scheduler.expect and by the scheduler: the number of changes after which the code checks for itself whether the awaited event has happened
---@field owner? table its method `abandon` is called if the host ends the coroutine during the wait

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local new_timers = require "opensandbox.loop.timers"

local scheduler = { now = core.now }

local POLL_INTERVAL = 0.005 -- seconds between polls of several transports that have no descriptors

local transports = setmetatable({}, { __mode = "k" })
local watched = setmetatable({}, { __mode = "k" }) -- by transport: { poller, fd }, the poller that watches the descriptor
local timers = new_timers()
local first, last -- of the list of waiters that the next step resumes; a list needs no memory to grow
local changes = 0 -- number of moments at which code that is about to wait may have missed the event
local parked = 0 -- number of waiters, without those that block
local poller
local step_failed = false -- memory has run out in a step, so code that waits for a transfer may have missed its news
local resuming -- the waiter that the running step resumes

--- The error of Lua when memory runs out.
scheduler.NO_MEMORY = "not enough memory"

--- Called whenever there is something else to wait for. The host's adapter sets this function.
function scheduler.on_change() end

local stepping = false

--- Notifies the host that there is something else to wait for. A running step does this at its end.
function scheduler.notify()
  if not stepping then scheduler.on_change() end
end

--- Adds a transport. The scheduler drives it, and holds it weakly.
---@param transport opensandbox.Transport
function scheduler.add(transport)
  transports[transport] = true
end

--- Reports to the owners of all transports that the host is about to exit.
function scheduler.exit()
  for transport in each(transports) do transport.on_exit() end
end

-- Returns whether transfers run, including detached transfers.
local function is_busy(transport)
  return transport.multi:inflight() > 0
end

-- Returns the poller that watches the descriptors of all busy transports; nil while too many files are open to make it.
local function descriptors()
  if poller and poller:inherited() then
    poller:close()
    poller = nil
  end
  if not poller then poller = core.poller() end
  if not poller then return nil end
  for transport in each(transports) do
    local fd = is_busy(transport) and transport.multi:pollfd()
    local known = watched[transport]
    if fd and not (known and known.poller == poller and known.fd == fd) then
      poller:watch(fd)
      watched[transport] = { poller = poller, fd = fd }
    end
  end
  return poller
end

--- Returns the descriptor to watch for reading.
---@return integer? fd nil on platforms without one, and while too many files are open
function scheduler:pollfd()
  local set = descriptors()
  return set and set:pollfd()
end

--- Returns "r", the event to watch the descriptor for.
function scheduler:events() return "r" end

--- Returns the time after which `step` must be called even if the descriptor has no event.
---@return number? seconds nil: no limit
function scheduler:timeout()
  if first then return 0 end
  local next_time
  local due = timers[1]
  if due then next_time = math.max(due.at - core.now(), 0) end
  for transport in each(transports) do
    local seconds = transport.multi:timeout()
    if seconds and (not next_time or seconds < next_time) then next_time = seconds end
  end
  return next_time
end

scheduler.getfd = scheduler.pollfd

function scheduler:dirty() return self:timeout() == 0 end

--- Makes the descriptor readable after a time as well, for hosts without timers.
---@param seconds? number default: the value of `timeout`
---@return true? ok nil if the platform cannot do this, and while too many files are open
function scheduler:alarm(seconds)
  local set = descriptors()
  return set and set:alarm(seconds or self:timeout())
end

--- Returns whether a coroutine waits or is ready.
function scheduler.has_waiters()
  return parked > 0 or first ~= nil
end

--- Returns whether a later step can have an effect: a transfer runs, a timer is set, or a waiter is ready.
function scheduler.has_work()
  if first or timers[1] then return true end
  for transport in each(transports) do
    if is_busy(transport) then return true end
  end
  return false
end

-- Adds a waiter to the run queue. It calls nothing and needs no memory, so that neither an error nor a finalizer can come between this and
-- what its caller does next.
local function push(waiter)
  if waiter.is_queued then return end
  waiter.is_queued, waiter.next = true, false
  if first then last.next = waiter else first = waiter end
  last = waiter
end

--- Ends the wait of a waiter, because the awaited event has happened. The host is notified once, even if this is called several times.
---@param waiter? opensandbox.Waiter|opensandbox.SharedWait nil: no code waits yet; code that is about to wait checks again if its wait is one of `expect`
function scheduler.wake(waiter)
  changes = changes + 1
  if not waiter then return end
  if waiter.is_shared then return waiter:wake() end
  if not waiter.parked or waiter.woken then return end
  if waiter.resume then push(waiter) end -- first: if there is no memory for this call, another wake can end the wait
  waiter.woken = true
  if waiter.position then timers:remove(waiter) end
  waiter:notify()
end

--- Ends the waits of all waiters in a registry, and those of `expect` that are about to begin.
---@param registry table<any, opensandbox.Waiter>
function scheduler.wake_all(registry)
  changes = changes + 1
  for _, waiter in each(registry) do scheduler.wake(waiter) end
end

--- Puts a waiter into the run queue. The next step resumes it.
function scheduler.enqueue(waiter)
  push(waiter)
  scheduler.notify()
end

--- Removes a waiter from its registry and from the timers.
---@return opensandbox.Wait? wait nil if it was not waiting
function scheduler.unpark(waiter)
  local wait = waiter.parked
  if not wait then return nil end
  waiter.parked = nil
  if not waiter.blocks then parked = parked - 1 end
  if waiter.position then timers:remove(waiter) end
  if wait.registry then wait.registry[wait.key] = nil end
  return wait
end

--- Makes a wait for an event that is reported once. The code checks from now on, before each wait, whether it has happened already, and
-- continues with another check whenever the wait ends.
---@param wait opensandbox.Wait
---@return opensandbox.Wait wait
function scheduler.expect(wait)
  wait.checked_at = changes
  return wait
end

-- Returns whether a wait must not begin, although its code found nothing. A finalizer can run at any moment, also between the check and the
-- wait. What it does, the steps that it runs, and the tasks that these resume, have woken nobody then.
local function is_late(waiter, wait)
  if wait.checked_at and wait.checked_at ~= changes then return true end
  return waiter.woken or (waiter.task and waiter.task.cancelling and not wait.shielded)
end

--- Suspends the running code until its waiter is woken.
---@param waiter opensandbox.Waiter
---@param wait opensandbox.Wait
function scheduler.park(waiter, wait)
  scheduler.unpark(waiter) -- where a finalizer of Lua 5.1 or 5.2 wanted to wait, the yield has raised an error
  waiter.woken = false
  waiter.parked = wait
  if not waiter.blocks then parked = parked + 1 end -- a blocking caller drives the scheduler itself
  if wait.seconds then timers:add(waiter, core.now() + wait.seconds) end
  if wait.registry then wait.registry[wait.key] = waiter end
  scheduler.notify()
  if not is_late(waiter, wait) then waiter:suspend() end
  scheduler.unpark(waiter)
  if wait.checked_at then wait.checked_at = changes end
end

-- Wakes the waiters whose transfer has changed and those whose time has passed. Returns their number.
local function wake_waiters()
  local woken = 0
  for transport in each(transports) do
    if step_failed then scheduler.wake_all(transport.waiters) end
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
  step_failed = false
  local now = core.now()
  local due = timers[1]
  while due and due.at <= now do
    scheduler.wake(due)
    if due.position then timers:remove(due) end -- memory ran out when it was woken before
    woken = woken + 1
    due = timers[1]
  end
  return woken
end

-- Resumes the waiters that are ready now. Waiters that become ready meanwhile are resumed after the next network poll.
local function run_ready()
  local until_here = last
  while first and until_here.is_queued do -- a task may block, and then calls `step` from here
    local waiter = first
    first = waiter.next or nil
    waiter.is_queued, waiter.next = false, false
    resuming = waiter
    waiter:resume()
    if waiter == until_here then return end
  end
end

-- Moves the data of all transports, waiting at most `seconds`.
local function poll_network(seconds)
  local busy, several
  for transport in each(transports) do
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
  if several and not (set and set:pollfd()) then seconds = math.min(seconds, POLL_INTERVAL) end
  if set then
    set:wait(seconds)
  else
    local any = busy or next(transports)
    if not any then error("opensandbox: cannot wait, because too many files are open", 0) end
    any.multi:step(seconds)
  end
  for transport in each(transports) do
    if is_busy(transport) then transport.multi:step(0) end
  end
end

local function run_step(seconds)
  poll_network(seconds)
  local woken = wake_waiters()
  run_ready()
  return woken
end

--- Moves the data of all transports and resumes the tasks that can continue.
---@param seconds? number how long to wait at most, default 0
---@return integer woken the number of waiters woken
function scheduler:step(seconds)
  local due = self:timeout()
  if not seconds or seconds < 0 then seconds = 0 end
  changes = changes + 1
  stepping = true
  local outer = resuming
  local ok, woken = pcall(run_step, due and math.min(due, seconds) or seconds)
  stepping = false
  if not ok then
    step_failed = true
    if woken == scheduler.NO_MEMORY and resuming ~= outer then push(resuming) end -- the next step tries again
  end
  resuming = outer
  self.on_change()
  if not ok then error(woken, 0) end -- memory has run out
  return woken
end

return scheduler

--- The scheduler: what waits, for which transfer or until when, and what goes on next. One for all clients of a Lua state.
--
-- A *waiter* stands for a coroutine that can wait: a task of ours, a coroutine of the host's, or a caller that blocks. How it is
-- suspended and roused is its own business (`suspend`, `rouse`); the scheduler decides when. Nothing here yields, and no code of the
-- user's runs but in `step`, where tasks that have become ready go on.
--
-- To a host's event loop it is what a client is, for all of them together: watch `pollfd`, wake up after `timeout`, call `step`.

local core = require "opensandbox.core"
local new_timers = require "opensandbox.loop.timers"

local scheduler = { now = core.now }

local POLLED_STEP = 0.005 -- seconds between looks at several clients, where they have no descriptors

local clients = setmetatable({}, { __mode = "k" })
local timers = new_timers()
local ready, first, last = {}, 1, 0 -- a queue of waiters of ours that can go on
local parked = 0
local poller

--- Called whenever there is more, less or something else to wait for. The host's adapter puts itself here.
function scheduler.on_change() end

local stepping = false

--- Tells the host that something changed. While a step runs, it is told at its end.
function scheduler.notify()
  if not stepping then scheduler.on_change() end
end

function scheduler.add_client(client)
  clients[client] = true
end

--- Closes all clients: the host is about to end.
function scheduler.close_clients()
  for client in pairs(clients) do client:close() end
end

-- A client is busy while transfers run, those in the background included.
local function is_busy(client)
  return client._multi:inflight() > 0
end

-- The set of all busy clients' descriptors.
local function descriptors()
  if poller and poller:inherited() then
    poller:close()
    poller = nil
  end
  if not poller then poller = core.poller() end
  for client in pairs(clients) do
    if is_busy(client) then
      local fd = client._multi:pollfd()
      if fd and (client._watched_by ~= poller or client._watched_fd ~= fd) then
        poller:watch(fd)
        client._watched_by, client._watched_fd = poller, fd
      end
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
  for client in pairs(clients) do
    local seconds = client._multi:timeout()
    if seconds and (not next_time or seconds < next_time) then next_time = seconds end
  end
  return next_time
end

scheduler.getfd = scheduler.pollfd

function scheduler:dirty() return self:timeout() == 0 end

--- Makes the descriptor readable after `seconds` too (default: when `step` is due), for hosts without timers. Nil where that cannot
--- be had.
function scheduler:alarm(seconds)
  return descriptors():alarm(seconds or self:timeout())
end

--- Whether a coroutine waits, or could go on.
function scheduler.has_waiting()
  return parked > 0 or first <= last
end

--- Whether a step could ever do anything: something moves on the network, is due, or is ready.
function scheduler.can_go_on()
  if first <= last or timers:first() then return true end
  for client in pairs(clients) do
    if is_busy(client) then return true end
  end
  return false
end

--- Lets a waiter go on: it is roused once, however often this is called.
function scheduler.wake(waiter)
  if not waiter.parked or waiter.woken then return end
  waiter.woken = true
  timers:remove(waiter)
  waiter:rouse()
end

--- Puts a waiter of ours into the queue; it is resumed by the next step.
function scheduler.enqueue(waiter)
  last = last + 1
  ready[last] = waiter
  scheduler.notify()
end

--- Takes a waiter out of all that it stood in. Gives what it waited for.
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
---@param wait table seconds (at most); registry and key (where the waiter stands meanwhile, for who has news for it)
function scheduler.park(waiter, wait)
  waiter.parked, waiter.woken = wait, false
  if wait.seconds then timers:add(waiter, core.now() + wait.seconds) end
  if wait.registry then wait.registry[wait.key] = waiter end
  if not waiter.blocks then parked = parked + 1 end -- who blocks drives the scheduler itself
  scheduler.notify()
  waiter:suspend()
  scheduler.unpark(waiter)
end

-- Wakes those whose transfer has news, and those whose time has come. Gives how many.
local function wake_up()
  local woken = 0
  for client in pairs(clients) do
    local multi = client._multi
    local id = multi:changed()
    while id do
      local waiter = client._waiting[id]
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

-- Resumes those that were ready when this began: who becomes ready meanwhile has its turn after the network's.
local function run_ready()
  local until_here = last
  while first <= last and first <= until_here do -- a task may block, and step in here
    local waiter = ready[first]
    ready[first] = nil
    first = first + 1
    waiter:resume()
  end
  if first > last then first, last = 1, 0 end
end

local function move(seconds)
  local one, several
  for client in pairs(clients) do
    if is_busy(client) then
      several = one ~= nil
      one = client
      if several then break end
    end
  end
  if one and not several then
    one._multi:step(seconds)
    return
  end
  local set = descriptors()
  if several and not set:pollfd() then seconds = math.min(seconds, POLLED_STEP) end
  set:wait(seconds)
  for client in pairs(clients) do
    if is_busy(client) then client._multi:step(0) end
  end
end

--- Moves what can be moved, waiting at most `seconds` (default 0), and lets the tasks go on that can. Gives how many were woken.
function scheduler:step(seconds)
  local due = self:timeout()
  if not seconds or seconds < 0 then seconds = 0 end
  stepping = true
  move(due and math.min(due, seconds) or seconds)
  local woken = wake_up()
  run_ready()
  stepping = false
  self.on_change()
  return woken
end

return scheduler

--- The adapter for OpenResty, and for nginx with its Lua module. Tasks are light threads, and so is the code of a request or a timer
--- that calls the library. Each of them waits on a semaphore of its own. One timer in each worker, the driver, steps the scheduler.
--
-- nginx cannot watch a descriptor of ours. A thread of the core watches it and writes a byte to a connection that the driver reads. If
-- such a connection cannot be made, the driver polls at growing intervals.

local ngx = rawget(_G, "ngx")
local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local semaphore = require "ngx.semaphore"

local adapter = { name = "ngx" }

local MIN_DELAY = 0.001            -- seconds between two steps: nginx's own resolution
local MAX_DELAY = 0.02             -- seconds between two steps of a driver that polls
local REAP_INTERVAL = 0.1          -- seconds
local MAX_WAIT = 60                -- seconds
local MAX_RESUMES_PER_STEP = 4     -- threads resumed per step, so that other requests of the worker are not delayed
local CONNECT_TIMEOUT = 1000       -- milliseconds
local MAX_SOCKET_TIMEOUT = 2 ^ 31 - 1 -- milliseconds

-- The phases in which a light thread can wait.
local can_wait = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true, ssl_cert = true, ssl_session_fetch = true,
}

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local suspended = {}                               -- set of waiters
local run_queue, first, last = {}, 1, 0            -- woken waiters that have not been resumed yet
local free_slots = MAX_RESUMES_PER_STEP            -- threads that may still be resumed in this step
local driver -- while one runs

-- Fields of a waiter beside the general ones: `semaphore`; `posted` (it was resumed, and its turn has not come); `dead`.
local Waiter = {}
Waiter.__index = Waiter

-- The driver sends the request that this thread has just started. If every thread stepped the scheduler, many requests at once would delay
-- the worker.
function Waiter:suspend()
  suspended[self] = true
  while not self.woken do
    self.posted = false
    self.semaphore:wait(MAX_WAIT)
  end
  suspended[self] = nil
end

local function resume(waiter)
  free_slots = free_slots - 1
  if waiter.semaphore:count() >= 0 then return end -- it is dead, or runs already
  waiter.posted = true
  waiter.semaphore:post(1)
end

function Waiter:notify()
  if not driver or free_slots > 0 then return resume(self) end
  last = last + 1
  run_queue[last] = self
end

local function resume_some()
  free_slots = MAX_RESUMES_PER_STEP
  while free_slots > 0 and first <= last do
    resume(run_queue[first])
    run_queue[first] = nil
    first = first + 1
  end
end

-- Returns the seconds until the driver has something to do, even if no data arrives.
local function due()
  return first <= last and 0 or math.min(scheduler:timeout() or REAP_INTERVAL, REAP_INTERVAL)
end

local function discard(waiter)
  suspended[waiter] = nil
  waiter.dead = true
  loop.abandon(waiter)
end

-- nginx gives no notice of aborted requests or killed threads. They are detected by their semaphore, on which no thread waits any more.
local function discard_dead()
  for waiter in each(suspended) do -- a resumed thread has a count of 0 until its turn comes
    if waiter.semaphore:count() >= (waiter.posted and 1 or 0) then discard(waiter) end
  end
end

local function has_work()
  return scheduler.has_waiters() or (scheduler.has_work() and not ngx.worker.exiting())
end

-- A driver that the core's thread notifies by a byte whenever the scheduler's descriptor is readable. An alarm makes the descriptor
-- readable when a time has passed.

local NotifierDriver = {}
NotifierDriver.__index = NotifierDriver

-- Returns nil if the connection cannot be made.
local function new_notifier_driver()
  local notifier = scheduler:pollfd() and core.notifier()
  if not notifier then return nil end
  local connection = ngx.socket.tcp()
  connection:settimeouts(CONNECT_TIMEOUT, CONNECT_TIMEOUT, MAX_SOCKET_TIMEOUT)
  if connection:connect("unix:" .. notifier:path()) and notifier:accept() and scheduler:alarm(0) then
    return setmetatable({ notifier = notifier, connection = connection }, NotifierDriver)
  end
  notifier:close()
  connection:close()
end

function NotifierDriver:changed()
  scheduler:alarm(due())
end

-- Returns nil when the core's thread is gone.
function NotifierDriver:wait()
  self:changed()
  return self.notifier:arm(scheduler:pollfd()) and self.connection:receiveany(64)
end

function NotifierDriver:progressed() end

function NotifierDriver:close()
  self.connection:close()
  self.notifier:close()
end

-- A driver that polls.

local PollingDriver = {}
PollingDriver.__index = PollingDriver

local function new_polling_driver()
  return setmetatable({ kick = semaphore.new(0), backoff = backoffs.new(MIN_DELAY, MAX_DELAY) }, PollingDriver)
end

function PollingDriver:changed()
  if self.kick:count() < 0 then self.kick:post(1) end
end

function PollingDriver:wait()
  local kicked = self.kick:wait(math.max(math.min(self.backoff:next(), due()), MIN_DELAY))
  if kicked then self.backoff:reset() end
  if kicked and first <= last then ngx.sleep(MIN_DELAY) end -- nginx's turn: a semaphore does not give it one
  return true
end

function PollingDriver:progressed()
  self.backoff:reset()
end

function PollingDriver:close() end

-- The driver until its timer runs.
local StartingDriver = { changed = function() end, close = function() end }

local function drive()
  driver = new_notifier_driver() or new_polling_driver()
  local last_reap = scheduler.now()
  while has_work() do
    if not driver:wait() then
      driver:close()
      driver = new_polling_driver()
    end
    resume_some()
    if scheduler:step(0) > 0 then driver:progressed() end
    if scheduler.now() - last_reap > REAP_INTERVAL then
      last_reap = scheduler.now()
      discard_dead()
    end
  end
end

local function drive_until_done()
  local ok, problem = pcall(drive)
  driver:close()
  driver = nil
  if not ok then adapter.report("opensandbox: " .. tostring(problem)) end
end

function adapter.changed()
  if driver then
    driver:changed()
  elseif scheduler.has_work() then
    driver = StartingDriver
    -- A finalizer may call this in a phase in which no timer can be made. The next call then makes one.
    local called, started = pcall(ngx.timer.at, 0, drive_until_done)
    if not (called and started) then driver = nil end
  end
end

-- A light thread belongs to a request: the request ends after the thread, and an aborted request ends it. A timer belongs to no request.
function adapter.spawn(body, detached)
  local can_thread = can_wait[ngx.get_phase()]
  local problem
  if detached or not can_thread then
    local called, started, why = pcall(ngx.timer.at, 0, function() body() end)
    if called and started then return end
    problem = why or started
  end
  if not can_thread then
    options.raise("spawn", ("nginx starts no task in the phase %q: %s"):format(ngx.get_phase(), problem))
  end
  local turn = semaphore.new(0) -- nginx starts threads at once
  ngx.thread.spawn(function()
    turn:wait(MAX_WAIT)
    body()
  end)
  turn:post(1)
end

function adapter.waiter(running)
  if not can_wait[ngx.get_phase()] then return nil end
  local waiter = waiters[running]
  -- nginx uses the coroutines of threads again, including those of killed threads.
  if waiter and suspended[waiter] then discard(waiter) end
  if not waiter or waiter.dead then
    waiter = setmetatable({ semaphore = semaphore.new(0) }, Waiter)
    waiters[running] = waiter
  end
  return waiter
end

function adapter.refusal()
  return ("this would block the nginx worker: nothing can wait in the phase %q; call it in rewrite, access, content or a timer")
    :format(ngx.get_phase())
end

function adapter.report(text)
  ngx.log(ngx.ERR, text)
end

return adapter

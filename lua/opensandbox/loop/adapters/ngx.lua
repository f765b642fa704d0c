--- OpenResty, and nginx with its Lua module. Tasks are light threads, and so is everything that calls us in a request or a timer; each
--- waits on a semaphore of its own. One timer in each worker, the driver, steps the scheduler while anything moves.
--
-- nginx cannot watch a descriptor of ours. A thread of the core does, and writes a byte to a connection that the driver reads. Where
-- that cannot be had, the driver looks again and again, at growing intervals.

local ngx = rawget(_G, "ngx")
local core = require "opensandbox.core"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local semaphore = require "ngx.semaphore"
local scheduler = require "opensandbox.loop.scheduler"

local adapter = { name = "ngx" }

local SHORTEST_PAUSE = 0.001 -- seconds between steps: nginx's own resolution
local LONGEST_PAUSE = 0.02   -- seconds
local GROWTH = 1.5
local LOOK_FOR_DEAD = 0.1    -- seconds
local LONGEST_WAIT = 60      -- seconds
local AT_ONCE = 4            -- threads that go on before nginx has another turn: what it serves besides must not wait for a crowd
local NEVER = 2 ^ 31 - 1     -- milliseconds

-- Where a light thread can wait.
local can_wait = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true, ssl_cert = true, ssl_session_fetch = true,
}

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local suspended = {}                               -- set of waiters
local crowd, first, last = {}, 1, 0                -- a queue of waiters that may go on
local places = AT_ONCE
local driver -- while one runs; changed() tells it that there is something else to wait for

local Waiter = {}
Waiter.__index = Waiter

-- The driver moves what this thread has just begun: a step in each thread would hold the worker up when a crowd arrives.
function Waiter:suspend()
  suspended[self] = true
  while not self.woken do
    self.posted = false
    self.semaphore:wait(LONGEST_WAIT)
  end
  suspended[self] = nil
end

local function let_go(waiter)
  places = places - 1
  if waiter.semaphore:count() >= 0 then return end -- it is dead, or runs already
  waiter.posted = true
  waiter.semaphore:post(1)
end

function Waiter:notify()
  if not driver or places > 0 then return let_go(self) end
  last = last + 1
  crowd[last] = self
end

local function let_some_go()
  places = AT_ONCE
  while places > 0 and first <= last do
    let_go(crowd[first])
    crowd[first] = nil
    first = first + 1
  end
end

-- Seconds until the driver has something to do, whatever the network does.
local function due()
  return first <= last and 0 or math.min(scheduler:timeout() or LOOK_FOR_DEAD, LOOK_FOR_DEAD)
end

local function bury(waiter)
  suspended[waiter] = nil
  waiter.dead = true
  loop.abandon(waiter)
end

-- A request that was aborted, or a thread that was killed, never goes on, and nobody tells us; but nobody waits on its semaphore then.
local function bury_the_dead()
  for waiter in pairs(suspended) do -- one that was let go has a count of 0 until its turn comes
    if waiter.semaphore:count() >= (waiter.posted and 1 or 0) then bury(waiter) end
  end
end

local function goes_on()
  return scheduler.has_waiters() or (scheduler.has_work() and not ngx.worker.exiting())
end

-- The driver that is told: by a byte, whenever the scheduler's descriptor is readable. An alarm makes it so when time is up.

local Told = {}
Told.__index = Told

-- Nil where that cannot be had.
local function told()
  local notifier = scheduler:pollfd() and core.notifier()
  if not notifier then return nil end
  local connection = ngx.socket.tcp()
  connection:settimeouts(1000, 1000, NEVER)
  if connection:connect("unix:" .. notifier:path()) and notifier:accept() and scheduler:alarm(0) then
    return setmetatable({ notifier = notifier, connection = connection }, Told)
  end
  notifier:close()
  connection:close()
end

function Told:changed()
  scheduler:alarm(due())
end

-- Nil when it is over with the thread.
function Told:wait()
  self:changed()
  return self.notifier:arm(scheduler:pollfd()) and self.connection:receiveany(64)
end

function Told:close()
  self.connection:close()
  self.notifier:close()
end

-- The driver that looks.

local Looking = {}
Looking.__index = Looking

local function looking()
  return setmetatable({ kick = semaphore.new(0), pause = SHORTEST_PAUSE }, Looking)
end

function Looking:changed()
  if self.kick:count() < 0 then self.kick:post(1) end
end

function Looking:wait()
  local kicked = self.kick:wait(math.max(math.min(self.pause, due()), SHORTEST_PAUSE))
  self.pause = kicked and SHORTEST_PAUSE or math.min(self.pause * GROWTH, LONGEST_PAUSE)
  if kicked and first <= last then ngx.sleep(SHORTEST_PAUSE) end -- nginx's turn: a semaphore does not give it one
  return true
end

function Looking:close() end

local function drive()
  driver = told() or looking()
  local looked = scheduler.now()
  while goes_on() do
    if not driver:wait() then
      driver:close()
      driver = looking()
    end
    let_some_go()
    if scheduler:step(0) > 0 then driver.pause = SHORTEST_PAUSE end
    if scheduler.now() - looked > LOOK_FOR_DEAD then
      looked = scheduler.now()
      bury_the_dead()
    end
  end
end

local Starting = { changed = function() end, close = function() end }

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
    driver = Starting
    -- A finalizer may call this where there can be no timer. The next call then makes one.
    local called, started = pcall(ngx.timer.at, 0, drive_until_done)
    if not (called and started) then driver = nil end
  end
end

-- A light thread belongs to a request, which does not end before it, and takes it along when it is aborted. A timer is on its own.
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
    turn:wait(LONGEST_WAIT)
    body()
  end)
  turn:post(1)
end

function adapter.waiter(running)
  if not can_wait[ngx.get_phase()] then return nil end
  local waiter = waiters[running]
  -- nginx uses the coroutines of threads again, those that it killed too.
  if waiter and suspended[waiter] then bury(waiter) end
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

--- OpenResty, and nginx with its Lua module. Tasks are light threads, and so is everything that calls us in a request or a timer; each
--- waits on a semaphore of its own. One timer in each worker steps the scheduler while anything moves.

local ngx = rawget(_G, "ngx")
local loop = require "opensandbox.loop"
local semaphore = require "ngx.semaphore"
local scheduler = require "opensandbox.scheduler"

local adapter = { name = "ngx" }

local SHORTEST_PAUSE = 0.001 -- seconds between steps: nginx's own resolution
local LONGEST_PAUSE = 0.02   -- seconds
local GROWTH = 1.5
local LOOK_FOR_DEAD = 0.1    -- seconds
local LONGEST_WAIT = 60      -- seconds

-- Where a light thread can wait.
local can_wait = { rewrite = true, server_rewrite = true, access = true, content = true, timer = true, ssl_cert = true }

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local suspended = {}                               -- set of waiters
local driver -- while one runs: the semaphore that ends its pause

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  suspended[self] = true
  scheduler:step(0) -- what this thread has just begun goes out at once
  while not self.woken do self.semaphore:wait(LONGEST_WAIT) end
  suspended[self] = nil
end

function Waiter:rouse()
  self.semaphore:post(1)
end

-- A request that was aborted, or a thread that was killed, never goes on, and nobody tells us; but nobody waits on its semaphore then.
local function bury_the_dead()
  for waiter in pairs(suspended) do
    if not waiter.woken and waiter.semaphore:count() >= 0 then
      suspended[waiter] = nil
      loop.abandon(waiter)
    end
  end
end

local function goes_on()
  return scheduler.has_waiting() or (scheduler.can_go_on() and not ngx.worker.exiting())
end

local function drive()
  local pause, looked = SHORTEST_PAUSE, scheduler.now()
  while goes_on() do
    local due = scheduler:timeout()
    if driver:wait(math.max(math.min(pause, due or pause), SHORTEST_PAUSE)) or scheduler:step(0) > 0 then
      pause = SHORTEST_PAUSE
    else
      pause = math.min(pause * GROWTH, LONGEST_PAUSE)
    end
    if scheduler.now() - looked > LOOK_FOR_DEAD then
      looked = scheduler.now()
      bury_the_dead()
    end
  end
end

local function drive_until_done()
  local ok, problem = pcall(drive)
  driver = nil
  if not ok then adapter.report("opensandbox: " .. tostring(problem)) end
end

function adapter.changed()
  if driver then
    if driver:count() < 0 then driver:post(1) end
  elseif scheduler.can_go_on() then
    driver = semaphore.new(0)
    -- A finalizer may call this where there can be no timer. The next call then makes one.
    local called, started = pcall(ngx.timer.at, 0, drive_until_done)
    if not (called and started) then driver = nil end
  end
end

function adapter.spawn(body)
  if can_wait[ngx.get_phase()] then
    ngx.thread.spawn(function()
      ngx.sleep(0) -- nginx starts threads at once
      body()
    end)
  else
    assert(ngx.timer.at(0, body))
  end
end

function adapter.waiter(running)
  if not can_wait[ngx.get_phase()] then return nil end
  if not waiters[running] then waiters[running] = setmetatable({ semaphore = semaphore.new(0) }, Waiter) end
  return waiters[running]
end

function adapter.refusal()
  return ("this would block the nginx worker: nothing can wait in the phase %q; call it in rewrite, access, content or a timer")
    :format(ngx.get_phase())
end

function adapter.report(text)
  ngx.log(ngx.ERR, text)
end

return adapter

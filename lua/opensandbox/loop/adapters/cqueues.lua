--- The adapter for cqueues. Tasks are coroutines of the running controller, and a coroutine of a controller that calls the library
--- waits in it. Each controller gets a coroutine of ours, its driver, which steps the scheduler while any coroutine waits for us.

local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local each = require "opensandbox.base.each"
local scheduler = require "opensandbox.loop.scheduler"
local standalone = require "opensandbox.loop.adapters.standalone"

local adapter = { name = "cqueues" }

local POLL_INTERVAL = 0.005 -- seconds between steps if there is no descriptor to watch
local LINGER = 0.05         -- seconds until a loop ends in which only background transfers are left

-- Nothing here refers to a controller strongly, because it could never be collected then.
local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local drivers = setmetatable({}, { __mode = "k" }) -- by controller

-- Background transfers, such as the rest of a response or a delete, must not keep the loop from ending.
local function has_work(driver)
  return driver.waiting > 0 or (cqueues.running():count() > 1 and scheduler.has_work())
end

local function drive(driver)
  while has_work(driver) do
    local watched = scheduler:pollfd() and scheduler or math.min(scheduler:timeout() or POLL_INTERVAL, POLL_INTERVAL)
    local ready = cqueues.poll(watched, driver.kick, driver.waiting == 0 and LINGER or nil)
    -- The drivers of two controllers kick each other with each step, so a kick alone only means: check again.
    if ready == watched or scheduler:dirty() then scheduler:step(0) end
  end
  drivers[cqueues.running()] = nil
end

local function driver_of(controller)
  local driver = drivers[controller]
  if not driver then
    driver = { waiting = 0, kick = condition.new() }
    drivers[controller] = driver
    controller:wrap(drive, driver)
  end
  return driver
end

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  local driver = driver_of(cqueues.running())
  driver.waiting = driver.waiting + 1
  while not self.woken do self.condition:wait() end
  driver.waiting = driver.waiting - 1
  if driver.waiting == 0 then driver.kick:signal() end
end

function Waiter:notify()
  self.condition:signal()
end

function adapter.spawn(body, detached, task)
  local controller = cqueues.running()
  if controller then controller:wrap(body) else standalone.spawn(body, detached, task) end
end

-- The controller cannot resume a coroutine that runs inside one of its own.
function adapter.waiter(running)
  if waiters[running] then return waiters[running] end
  local controller, resumed_by_it = cqueues.running()
  if not (controller and resumed_by_it and running == coroutine.running()) then return nil end
  waiters[running] = setmetatable({ condition = condition.new() }, Waiter)
  return waiters[running]
end

function adapter.changed()
  local controller = cqueues.running()
  if controller and scheduler.has_work() then driver_of(controller) end
  for _, driver in each(drivers) do driver.kick:signal() end
end

return adapter

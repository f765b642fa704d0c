--- cqueues: tasks are coroutines of the controller, and so are all that call us in one. Each controller gets a coroutine of ours, its
--- driver, that steps the scheduler while any of its coroutines wait for us.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local plain = require "opensandbox.loop.adapters.standalone"
local scheduler = require "opensandbox.loop.scheduler"

local adapter = { name = "cqueues" }

local POLLED_STEP = 0.005 -- seconds between steps where there is no descriptor to watch
local LOOK_AGAIN = 0.05   -- seconds: so much later does a loop end of which only what moves in the background is left

-- Nothing here refers to a controller, or it would never be collected.
local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local drivers = setmetatable({}, { __mode = "k" }) -- by controller

-- What moves in the background, the rest of a response or a delete, must not keep the loop from ending.
local function goes_on(driver)
  return driver.waiting > 0 or (cqueues.running():count() > 1 and scheduler.has_work())
end

local function drive(driver)
  while goes_on(driver) do
    local watched = scheduler:pollfd() and scheduler or math.min(scheduler:timeout() or POLLED_STEP, POLLED_STEP)
    local ready = cqueues.poll(watched, driver.kick, driver.waiting == 0 and LOOK_AGAIN or nil)
    -- The drivers of two controllers kick each other with each step, so a kick alone is only a reason to look again.
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

function adapter.spawn(body)
  local controller = cqueues.running()
  if controller then controller:wrap(body) else plain.spawn(body) end
end

-- A coroutine inside one of the controller's is not the controller's to resume.
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
  for _, driver in pairs(drivers) do driver.kick:signal() end
end

return adapter

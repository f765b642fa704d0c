--- cqueues: tasks are coroutines of the controller, and so are all that call us in one. Each controller gets a coroutine that steps the
--- scheduler while any of its coroutines wait for us.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local plain = require "opensandbox.loop.plain"
local protect = require "opensandbox.protect"
local scheduler = require "opensandbox.scheduler"

local adapter = { name = "cqueues" }

local POLLED_STEP = 0.005 -- seconds between steps where there is no descriptor to watch

local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine
local drivers = setmetatable({}, { __mode = "k" }) -- by controller

local function drive(controller, driver)
  while driver.waiting > 0 do
    local fd, timeout = scheduler:pollfd(), POLLED_STEP
    cqueues.poll(fd and scheduler or math.min(scheduler:timeout() or timeout, timeout), driver.kick)
    scheduler:step(0)
  end
  drivers[controller] = nil
end

local function driver_of(controller)
  local driver = drivers[controller]
  if not driver then
    driver = { waiting = 0, kick = condition.new() }
    drivers[controller] = driver
    controller:wrap(function() drive(controller, driver) end)
  end
  return driver
end

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  local driver = driver_of(self.controller)
  driver.waiting = driver.waiting + 1
  while not self.woken do self.condition:wait() end
  driver.waiting = driver.waiting - 1
  if driver.waiting == 0 then driver.kick:signal() end
end

function Waiter:rouse()
  self.condition:signal()
end

function adapter.spawn(body)
  local controller = cqueues.running()
  if controller then controller:wrap(body) else plain.spawn(body) end
end

function adapter.waiter(running)
  if waiters[running] then return waiters[running] end
  local controller, resumed_by_it = cqueues.running()
  -- Inside protect.pcall it is not the running coroutine that the controller resumed, but the one that it stands for.
  if not controller or not (resumed_by_it or protect.running() ~= coroutine.running()) then return nil end
  waiters[running] = setmetatable({ controller = controller, condition = condition.new() }, Waiter)
  return waiters[running]
end

function adapter.changed()
  for _, driver in pairs(drivers) do driver.kick:signal() end
end

return adapter

--- A host that the library does not know, and the user's adapter for it.
--
-- Its threads yield a function that returns whether they can continue. The host calls all of them every millisecond.

local opensandbox = require "opensandbox"
local scheduler = require "opensandbox.loop.scheduler"
local runner = require "spec.hosts.scenario_runner"

local threads = {}
local waiters = setmetatable({}, { __mode = "k" }) -- by coroutine

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  coroutine.yield(function() return self.woken end)
end

function Waiter:notify() end

local function start(fn)
  local thread = coroutine.create(fn)
  waiters[thread] = setmetatable({}, Waiter)
  threads[#threads + 1] = { coroutine = thread, can_go_on = function() return true end }
end

local function run()
  while threads[1] do
    for i = #threads, 1, -1 do
      local thread = threads[i]
      if thread.can_go_on() then
        local ok, can_go_on = coroutine.resume(thread.coroutine)
        if not ok then error(can_go_on, 0) end
        thread.can_go_on = can_go_on
        if coroutine.status(thread.coroutine) == "dead" then table.remove(threads, i) end
      end
    end
    scheduler:step(0.001)
  end
end

local changes = 0
local adapter = {
  name = "made-up",
  spawn = start,
  waiter = function(running) return waiters[running] end,
  changed = function() changes = changes + 1 end,
}

opensandbox.new(nil, nil, { loop = adapter }):close()
start(function()
  while not runner.over do
    runner.beat()
    local at = opensandbox.now() + runner.heartbeat
    coroutine.yield(function() return opensandbox.now() >= at end)
  end
end)
start(function() runner.run() end)
run()
runner.record("changes", changes)
runner.report()

--- A host that fails: it starts no task, or cannot be notified, as it is when memory runs out or in a wrong phase of nginx.

local loop = require "opensandbox.loop"
local opensandbox = require "opensandbox"
local scheduler = require "opensandbox.loop.scheduler"
local standalone = require "opensandbox.loop.adapters.standalone"

local startable = math.huge -- number of tasks that the host still starts
local host = { name = "spec" }

function host.spawn(body)
  if startable == 0 then error("the host starts no more", 0) end
  startable = startable - 1
  return standalone.spawn(body)
end

loop.use("spec", host)

describe("a host that starts only some tasks", function()
  after_each(function() startable = math.huge end)

  it("ends map, which does not begin the calls of those", function()
    startable = 2
    local cancelled = 0
    local ok, problem = pcall(opensandbox.map, { 1, 2, 3, 4 }, function()
      local slept, err = opensandbox.sleep(60)
      if not slept and err.kind == "cancelled" then cancelled = cancelled + 1 end
    end)
    assert.is_false(ok)
    assert.equal("the host starts no more", problem)
    assert.equal(0, cancelled) -- they had not begun
    assert.is_false(scheduler.has_waiters())
    assert.is_false(scheduler.has_work())
  end)

  it("makes spawn raise its reason, and keeps no task", function()
    startable = 0
    local function memory()
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    local function attempt()
      for _ = 1, 2000 do
        local ok, problem = pcall(opensandbox.spawn, print)
        assert(not ok and problem == "the host starts no more")
      end
    end
    attempt()
    local before = memory()
    attempt()
    assert.is_true(memory() - before < 100) -- kilobytes; 2,000 tasks take more than 300
  end)
end)

describe("a host that cannot be notified", function()
  it("leaves the wait as it is, until another call wakes the waiter", function()
    local attempts = 0
    local waiter = {
      blocks = true,
      notify = function()
        attempts = attempts + 1
        if attempts == 1 then error("not enough memory", 0) end
      end,
    }
    function waiter:suspend()
      assert.is_false(pcall(scheduler.wake, self))
      assert.is_false(self.woken)
      scheduler.wake(self)
      assert.is_true(self.woken)
      scheduler.wake(self)
    end
    scheduler.park(waiter, { seconds = 60 })
    assert.equal(2, attempts)
    assert.is_false(scheduler.has_work())
  end)

  it("lets a step resume again what it could not resume", function()
    local attempts = 0
    local waiter = {
      is_queued = false, next = false,
      resume = function()
        attempts = attempts + 1
        if attempts == 1 then error("not enough memory", 0) end
      end,
    }
    scheduler.enqueue(waiter)
    assert.error_matches(function() scheduler:step(0) end, "not enough memory")
    assert.equal(1, attempts)
    scheduler:step(0)
    assert.equal(2, attempts)
    assert.is_false(scheduler.has_work())
  end)
end)

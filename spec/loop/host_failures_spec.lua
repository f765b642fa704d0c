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
  standalone.spawn(body)
end

loop.use("spec", host)

describe("a host that starts only some tasks", function()
  after_each(function() startable = math.huge end)

  it("ends map, which does not begin the calls of those", function()
    startable = 2
    local begun = 0
    local ok, problem = pcall(opensandbox.map, { 1, 2, 3, 4 }, function() begun = begun + 1 end)
    assert.is_false(ok)
    assert.equal("the host starts no more", problem)
    assert.equal(0, begun)
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

describe("a host whose loop continues the coroutine at once", function()
  it("has every wait ended", function()
    local waiter = { notifications = 0 }
    function waiter:notify()
      self.notifications = self.notifications + 1
      self.continued_with = self.woken
    end
    function waiter:suspend() scheduler.wake(self) end
    scheduler.park(waiter, { seconds = 60 })
    assert.same({ 1, true }, { waiter.notifications, waiter.continued_with })
    assert.is_false(scheduler.has_work())
  end)
end)

-- A waiter of the run queue, whose code ends its own wait when it is suspended.
local function queued_waiter(resume)
  local waiter = { is_queued = false, next = false, woken = false, resume = resume }
  function waiter:suspend() scheduler.wake(self) end
  return waiter
end

describe("a waiter of the run queue", function()
  it("is in it when its host cannot be notified", function()
    local resumed = 0
    local waiter = queued_waiter(function() resumed = resumed + 1 end)
    function waiter:notify() error("not enough memory", 0) end -- luacheck: no unused args
    assert.error_matches(function() scheduler.park(waiter, { seconds = 60 }) end, "not enough memory")
    scheduler:step(0)
    assert.equal(1, resumed)
    scheduler.unpark(waiter)
    assert.is_false(scheduler.has_work())
  end)

  -- Resumes a waiter in steps until one raises no error. Returns the number of resumes.
  local function resumes_of(problem)
    local resumed = 0
    scheduler.enqueue(queued_waiter(function()
      resumed = resumed + 1
      if resumed == 1 then error(problem, 0) end
    end))
    assert.error_matches(function() scheduler:step(0) end, problem)
    scheduler:step(0)
    assert.is_false(scheduler.has_work())
    return resumed
  end

  it("is resumed again by the next step when memory ran out", function()
    assert.equal(2, resumes_of("not enough memory"))
  end)

  it("is not resumed again after another error, so that none can keep the others from running", function()
    assert.equal(1, resumes_of("the host's loop is closed"))
  end)
end)

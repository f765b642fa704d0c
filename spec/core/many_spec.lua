--- Many transfers at once: what one costs does not depend on how many others wait.

local core = require "opensandbox.core"
local driving = require "spec.support.transfers"
local fault_server = require "spec.support.fault_server"

local step_until, get = driving.step_until, driving.get

describe("with many transfers", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      return function(request, connection)
        if request.path == "/silence" then return connection:silence() end
        connection:respond(200, {}, "hello")
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  -- Starts transfers that wait for a response, and returns when all have sent their request.
  local function wait_for_nothing(count)
    local waiting = {}
    for i = 1, count do
      waiting[i] = get(multi, server.url .. "/silence", { timeout = 600, idle_timeout = 300 })
      multi:step(0)
    end
    for i = 1, count do step_until(multi, function() return waiting[i]:sent() end) end
    while multi:changed() do end
    return waiting
  end

  -- The least time that 200 steps take, of 10 tries.
  local function time_of_steps()
    local least = math.huge
    for _ = 1, 10 do
      local began = core.now()
      for _ = 1, 100 do
        multi:step(0)
        multi:timeout()
      end
      least = math.min(least, core.now() - began)
    end
    return least
  end

  it("a step costs the same, however many wait", function()
    if not multi:pollfd() then return pending("poll() itself takes longer for each descriptor") end
    local few = wait_for_nothing(10)
    local quick = time_of_steps()
    local many = wait_for_nothing(990)
    local slow = time_of_steps()
    assert.equal(1000, multi:inflight())
    assert.is_true(slow < 4 * quick + 0.0005, ("%.6f s with %d, %.6f s with %d"):format(quick, #few, slow, #few + #many))
  end)

  it("each completes, and the next ones use their connections", function()
    local count = 400
    local transfers, done = {}, 0
    for i = 1, count do transfers[i] = get(multi, server.url .. "/hello") end
    step_until(multi, function()
      while multi:changed() do end
      done = 0
      for i = 1, count do done = done + (transfers[i]:outcome() and 1 or 0) end
      return done == count
    end)
    for i = 1, count do
      assert.equal("complete", (transfers[i]:outcome()))
      assert.equal("hello", driving.drain(transfers[i]))
    end
    local accepted = server:connections().accepted
    for _ = 1, 20 do assert.equal("complete", (driving.finish(multi, get(multi, server.url .. "/hello")))) end
    assert.equal(accepted, server:connections().accepted)
  end)

  it("not all connections stay when they have ended", function()
    local before = server:connections().open
    local transfers = {}
    for i = 1, 400 do transfers[i] = get(multi, server.url .. "/hello") end
    for i = 1, 400 do driving.finish(multi, transfers[i]) end
    step_until(multi, function()
      multi:step(0.01)
      return server:connections().open - before < 200
    end)
  end)

  it("any of them can be closed, and the others go on", function()
    local waiting = wait_for_nothing(300)
    for i = 1, 300, 2 do waiting[i]:close() end
    assert.equal(150, multi:inflight())
    local hello = get(multi, server.url .. "/hello")
    assert.equal("complete", (driving.finish(multi, hello)))
    for i = 1, 300 do assert.equal(i % 2 == 1 and "closed" or nil, (waiting[i]:outcome())) end
    multi:close()
    for i = 1, 300 do assert.equal("closed", (waiting[i]:outcome())) end
  end)

  it("clocks run out in the order of their times", function()
    local due = {} -- by id: when the clock runs out at the earliest, and at the latest
    for i = 1, 200 do
      local timeout = 0.3 + (i * 37 % 200) * 0.001
      local before = core.now()
      local transfer = get(multi, server.url .. "/silence", { timeout = timeout })
      due[transfer:id()] = { before + timeout, core.now() + timeout, transfer }
    end
    local order = {}
    step_until(multi, function()
      local id = multi:changed()
      while id do
        order[#order + 1] = id
        id = multi:changed()
      end
      return #order == 200
    end)
    local latest = 0 -- of the earliest times so far
    for _, id in ipairs(order) do
      assert.equal("timeout", (due[id][3]:outcome()))
      assert.is_true(due[id][2] >= latest, "a clock ran out after a later one")
      latest = math.max(latest, due[id][1])
    end
  end)
end)

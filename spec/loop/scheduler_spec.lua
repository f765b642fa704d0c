--- The scheduler: one for all clients of a Lua state, a step at a time, and ten thousand tasks without a trace.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local scheduler = require "opensandbox.loop.scheduler"
local wait_until = require "spec.support.wait_until"

-- Plain Lua, though the helpers have loaded luv; and what the scheduler tells its host.
local changes = 0
local loop = require "opensandbox.loop"
loop.use("spec", { name = "counting", changed = function() changes = changes + 1 end })

local spawn, sleep, now = opensandbox.spawn, opensandbox.sleep, opensandbox.now

local MANY, FEWER = 10000, 1000
local IS_JIT = rawget(_G, "jit") ~= nil

local server

describe("a step", function()
  it("takes a time, and works after a wrong one", function()
    local client = opensandbox.new("http://127.0.0.1:1", "key")
    for _, seconds in ipairs { true, {}, "1x" } do
      assert.error_matches(function() client:step(seconds) end, "step: the time must be a number of seconds")
    end
    local slept = opensandbox.spawn(function() return opensandbox.sleep(0.01) end)
    while not slept:done() do client:step("50ms") end
    client:close()
  end)
end)

describe("the scheduler as an event loop sees it", function()
  local client

  setup(function()
    server = fault_server.start [[
      return function(request, connection)
        if request.path:find("silent", 1, true) then return connection:silence() end
        connection:after(20, function()
          connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"a","status":{"state":"Running"}}')
        end)
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "key") end)
  after_each(function() client:close() end)

  it("has nothing to do when nobody waits", function()
    assert.is_nil(scheduler:timeout())
    assert.is_false(scheduler.has_waiters())
    assert.is_false(scheduler.has_work())
    assert.equal(0, scheduler:step(0))
    assert.is_false(client:dirty())
  end)

  it("reports changes to its host after a step that failed for want of memory", function()
    local fails = true
    local transport = { waiters = {}, multi = {
      timeout = function() end, changed = function() end,
      inflight = function()
        if fails then error("not enough memory", 0) end
        return 0
      end,
    } }
    scheduler.add(transport)
    assert.same({ false, "not enough memory" }, { pcall(scheduler.step, scheduler, 0) })
    fails = false
    loop.name() -- selects the adapter
    local before = changes
    scheduler.notify()
    assert.equal(before + 1, changes)
  end)

  it("is due at once for a new task, and later for a sleeping one", function()
    local task = spawn(sleep, 0.1)
    assert.equal(0, scheduler:timeout())
    assert.is_true(client:dirty())
    assert.is_true(scheduler.has_work())
    scheduler:step(0)
    local due = scheduler:timeout()
    assert.is_true(due > 0.02 and due <= 0.1, tostring(due))
    assert.is_true(scheduler.has_waiters())
    local began = now()
    assert.equal(1, scheduler:step(10)) -- not longer than until then
    assert.is_true(now() - began < 1)
    while not task:done() do scheduler:step(0) end
    assert.is_nil(scheduler:timeout())
    assert.is_false(scheduler.has_waiters())
  end)

  it("drives tasks and requests by steps alone", function()
    local other = opensandbox.new(server.url, "key")
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = spawn(function()
        sleep(0.002 * i)
        return assert((i % 2 == 0 and client or other):get_sandbox("a")).id
      end)
    end
    local deadline = now() + 10
    while scheduler.has_work() do
      assert.is_true(now() < deadline)
      client:step(0.05)
    end
    for i = 1, 10 do
      assert.is_true(tasks[i]:done())
      assert.equal("a", tasks[i]:wait())
    end
    other:close()
  end)

  it("has one descriptor, readable when any of its clients can go on", function()
    local other = opensandbox.new(server.url, "key")
    local tasks = { spawn(client.get_sandbox, client, "a"), spawn(other.get_sandbox, other, "b") }
    scheduler:step(0)
    if not scheduler:pollfd() then -- a platform without one
      wait_until(function() return tasks[1]:done() and tasks[2]:done() end)
      other:close()
      return
    end
    local watching = core.poller()
    watching:watch(scheduler:pollfd())
    local deadline, steps = now() + 10, 0
    while not (tasks[1]:done() and tasks[2]:done()) do
      assert.is_true(now() < deadline)
      local due = scheduler:timeout()
      watching:wait(math.min(due or 5, 5))
      scheduler:step(0)
      steps = steps + 1
      scheduler:pollfd()
    end
    assert.is_true(steps < 1000, "the descriptor was always readable")
    watching:close()
    other:close()
  end)

  it("goes on without a descriptor while too many files are open", function()
    if not process.descriptors() then return pending("no /proc here") end
    local limited = { "sh", "-c", 'ulimit -n 40; exec "$@"', "sh", process.lua(), "-e" }
    limited[#limited + 1] = ([[
      local opensandbox = require "opensandbox"
      local scheduler = require "opensandbox.loop.scheduler"
      local first, second = opensandbox.new(%q, "k"), opensandbox.new(%q, "k")
      local spawn = opensandbox.spawn
      assert(first:get_sandbox "a" and second:get_sandbox "a")
      local held, file = {}, nil
      repeat
        file = io.open("/dev/null")
        held[#held + 1] = file
      until not file
      print(scheduler:pollfd())
      local tasks = { spawn(first.get_sandbox, first, "a"), spawn(second.get_sandbox, second, "a"), spawn(opensandbox.sleep, 0.05) }
      for i = 1, 2 do print(tasks[i]:wait(5).id) end
      tasks[3]:wait(5)
      first:close()
      for _, one in ipairs(held) do one:close() end
      print(type(scheduler:pollfd()))
      second:close()
    ]]):format(server.url, server.url)
    local code, lines, complaint = process.run({ env = process.module_paths(), argv = limited }, 20)
    assert.equal(0, code, complaint)
    assert.equal(("nil\na\na\n%s\n"):format(type(scheduler:pollfd())), lines)
  end)

  it("tells its host of changes, once for a step", function()
    spawn(function()
      for _ = 1, 3 do spawn(sleep, 0) end
      sleep(0)
    end)
    changes = 0
    scheduler:step(0)
    assert.equal(1, changes)
    spawn(sleep, 0)
    assert.equal(2, changes)
    while scheduler.has_work() do scheduler:step(0) end
  end)

  it("resumes each of those that are ready once, before it looks at the network again", function()
    local rounds, stop = {}, false
    for i = 1, 3 do
      spawn(function()
        while not stop do
          rounds[i] = (rounds[i] or 0) + 1
          sleep(0)
        end
      end)
    end
    assert.equal("a", assert(client:get_sandbox("a")).id, "tasks that are always ready starve the network")
    assert.is_true(math.abs(rounds[1] - rounds[3]) <= 1)
    stop = true
    while scheduler.has_work() do scheduler:step(0) end
  end)

  it("can be stepped inside a task", function()
    local ticks = 0
    local ticker = spawn(function()
      for _ = 1, 3 do
        ticks = ticks + 1
        sleep(0)
      end
    end)
    local task = spawn(function()
      while not ticker:done() do client:step(0) end
      return ticks
    end)
    assert.equal(3, task:wait { timeout = 5 })
  end)

  it("does not hold on to a client that nobody refers to any more", function()
    local held = setmetatable({}, { __mode = "k" })
    for _ = 1, 5 do
      local one = opensandbox.new(server.url, "key")
      held[one] = true
      assert(one:get_sandbox("a"))
      one:close()
    end
    for _ = 1, 3 do collectgarbage() end
    assert.is_nil(next(held))
  end)
end)

describe("ten thousand tasks", function()
  local function memory()
    if IS_JIT then rawget(_G, "jit").flush() end
    collectgarbage()
    collectgarbage()
    return collectgarbage("count")
  end

  local waits = {
    sleep = function() return sleep(1000) end,
    ["task:wait"] = function(i, other)
      return other:wait { timeout = i % 2 == 0 and 1000 or nil }
    end,
  }

  local function check(name, count)
    local other = spawn(sleep, 1000)
    -- Starts them, lets them all wait, cancels them, and waits until they have ended.
    local function round()
      local tasks, kinds = {}, 0
      for i = 1, count do
        tasks[i] = spawn(function()
          local ok, err = waits[name](i, other)
          if not ok and err.kind == "cancelled" then kinds = kinds + 1 end
          return ok, err
        end)
      end
      sleep(0)
      sleep(0)
      for i = 1, count do assert(tasks[i]:cancel()) end
      for i = 1, count do
        local _, err = tasks[i]:wait { timeout = 20 }
        assert(err.kind == "cancelled", tostring(err))
      end
      assert.equal(count, kinds)
    end
    round()
    local before, descriptors = memory(), process.descriptors()
    round()
    local after = memory()
    assert.is_true(after - before < 256, ("%.0f KiB more than before"):format(after - before))
    assert.equal(descriptors, process.descriptors())
    other:cancel()
    other:wait()
    assert.is_nil(scheduler:timeout())
    assert.is_false(scheduler.has_waiters())
  end

  for name in pairs(waits) do
    it("that wait in " .. name .. " are all cancelled, and leave nothing behind", function() check(name, MANY) end)

    it("that wait in " .. name .. ", or fewer, are so under a collector that never rests", function()
      local pause, multiplier = collectgarbage("setpause", 100), collectgarbage("setstepmul", 400)
      check(name, FEWER)
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
  end

  -- In a Lua of its own: on the way back from this collector the ordinary one takes minutes for what it did in a second.
  if _VERSION == "Lua 5.4" then
    it("leave nothing behind under the generational collector", function()
      local child = process.start { argv = { process.lua(), "-e", [[
        collectgarbage("generational")
        local opensandbox = require "opensandbox"
        local function round()
          local tasks = {}
          for i = 1, 10000 do tasks[i] = opensandbox.spawn(opensandbox.sleep, 1000) end
          opensandbox.sleep(0)
          for i = 1, 10000 do assert(tasks[i]:cancel()) end
          for i = 1, 10000 do assert(select(2, tasks[i]:wait()).kind == "cancelled") end
        end
        local function memory()
          collectgarbage()
          collectgarbage()
          return collectgarbage("count")
        end
        round()
        local before = memory()
        round()
        print(memory() - before)
      ]] }, env = process.module_paths() }
      local grown = child:read_line(20)
      child:stop()
      assert.equal("", child:stderr_text())
      assert.is_true(tonumber(grown) < 256, grown .. " KiB more than before")
    end)
  end
end)

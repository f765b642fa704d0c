--- A pool of sandboxes: ready before they are wanted, each used once, never more than allowed, and nothing left behind.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local spawn, sleep = opensandbox.spawn, opensandbox.sleep

local server, client, watcher

-- The ids of the sandboxes that there are.
local function there()
  local ids, count = {}, 0
  for _, info in ipairs(assert(watcher:list_sandboxes())) do
    ids[info.id] = true
    count = count + 1
  end
  return ids, count
end

local function nothing_left()
  wait_until(function() return select(2, there()) == 0 end, "a sandbox is left")
end

local function new_pool(changes)
  local opts = { image = "any" }
  for name, value in pairs(changes or {}) do opts[name] = value end
  return client:pool(opts)
end

local function fails(kind, code, value, err)
  assert.is_nil(value)
  assert.equal(kind, err.kind, tostring(err))
  assert.equal(code, err.code, tostring(err))
  return err
end

local function collect()
  for _ = 1, 4 do collectgarbage() end
end

describe("a pool", function()
  setup(function()
    server = process.devserver { grace = 0.1 }
    watcher = opensandbox.new(server.url, server.key)
  end)
  teardown(function()
    watcher:close()
    server:stop()
  end)
  before_each(function() client = opensandbox.new(server.url, server.key) end)
  after_each(function()
    client:close()
    nothing_left()
  end)

  it("keeps some ready, and gives the oldest of them at once", function()
    local creates = 0
    local one = opensandbox.new(server.url, server.key, { on_request = function(request)
      if request.method == "POST" and request.url:find("/sandboxes$") then creates = creates + 1 end
    end })
    local pool = one:pool { image = "any", min_idle = 2, max_size = 3, timeout = 120 }
    assert.is_true(pool:fill())
    assert.same({ idle = 2, busy = 0, creating = 0, failures = 0 }, pool:stats())
    assert.equal("opensandbox.Pool: 2 idle, 0 busy, 0 creating", tostring(pool))
    local ready = there()
    local sandbox = assert(pool:acquire())
    assert.is_true(ready[sandbox.id])
    assert.equal("here\n", assert(sandbox:run("echo here")).stdout)
    wait_until(function() return pool:stats().idle == 2 end, "it is not filled up again")
    assert.equal(3, creates)
    assert.same({ idle = 2, busy = 1, creating = 0, failures = 0 }, pool:stats())
    assert.is_true(pool:release(sandbox))
    wait_until(function() return pool:stats().busy == 0 end, "the released one does not go away")
    assert.is_nil(there()[sandbox.id])
    assert.is_true(pool:release(sandbox)) -- once more does no harm
    assert.is_true(pool:close())
    assert.is_true(pool:close())
    one:close()
  end)

  it("serves 50 tasks with 5 sandboxes at once, each with one of its own, in the order they came", function()
    local pool = new_pool { min_idle = 2, max_size = 5 }
    local used, order, most, tasks = {}, {}, 0, {}
    for i = 1, 50 do
      tasks[i] = spawn(function()
        return pool:with(function(sandbox, given)
          order[#order + 1] = i
          assert(not used[sandbox.id], "it was used before")
          used[sandbox.id] = true
          local result = assert(sandbox:run("echo " .. given))
          most = math.max(most, select(2, there()))
          return result.stdout, i
        end, "task " .. i)
      end)
    end
    for i = 1, 50 do
      local text, number = tasks[i]:wait()
      assert.equal(("task %d\n"):format(i), text)
      assert.equal(i, number)
    end
    assert.is_true(most <= 5, most .. " at once")
    for i, number in ipairs(order) do assert.is_true(math.abs(i - number) < 5, ("%d was served as number %d"):format(number, i)) end
    pool:close()
  end)

  it("kills the sandbox when the function raises, and raises the error again", function()
    local pool = new_pool()
    local thrown, id = { "a table" }, nil
    local function work(sandbox)
      id = sandbox.id
      assert(sandbox:run("true"))
      error(thrown, 0)
    end
    local ok, err = pcall(pool.with, pool, work)
    assert.is_false(ok)
    assert.equal(thrown, err)
    local first = id
    wait_until(function() return not there()[first] end, "it is left")
    local task = spawn(function()
      local fine, problem = opensandbox.pcall(pool.with, pool, work)
      return fine, problem
    end)
    local fine, problem = task:wait()
    assert.is_false(fine)
    assert.equal(thrown, problem)
    assert.same({ 1, nil, 3 }, { pool:with(function() return 1, nil, 3 end) })
    pool:close()
  end)

  it("kills the sandbox when the task that works with it is cancelled", function()
    local pool = new_pool { max_size = 1 }
    local task = spawn(function() return pool:with(function(sandbox) return sandbox:run("sleep 30") end) end)
    wait_until(function() return pool:stats().busy == 1 end)
    sleep(0.1)
    task:cancel()
    fails("cancelled", "cancelled", task:wait())
    assert.equal(0, assert(pool:with(function(sandbox) return sandbox:run("true") end)).exit_code)
    pool:close()
  end)

  it("says that it is exhausted when no place becomes free in time", function()
    local pool = new_pool { min_idle = 0, max_size = 1, acquire_timeout = 0.2 }
    local sandbox = assert(pool:acquire()) -- a create may take longer than that
    local began = core.now()
    local err = fails("timeout", "pool_exhausted", pool:acquire())
    assert.is_true(core.now() - began < 2)
    assert.equal("acquire_timeout", err.timeout_option)
    assert.equal("pool:acquire", err.op)
    assert.is_string(err.hint)
    fails("timeout", "pool_exhausted", pool:acquire { timeout = 0 })
    fails("timeout", "pool_exhausted", pool:with(error))
    local later = spawn(function() return pool:acquire { timeout = 10 } end)
    sleep(0.05)
    pool:release(sandbox)
    assert(later:wait())
    pool:close()
  end)

  it("passes over one who was cancelled while waiting", function()
    local pool = new_pool { min_idle = 0, max_size = 1 }
    local sandbox = assert(pool:acquire())
    local first = spawn(function() return pool:acquire() end)
    local second = spawn(function() return pool:acquire() end)
    sleep(0.05)
    first:cancel()
    fails("cancelled", "cancelled", first:wait())
    pool:release(sandbox)
    assert(second:wait())
    pool:close()
  end)

  it("loses no sandbox to one who is cancelled just when it is given", function()
    local pool = new_pool { min_idle = 2, max_size = 2 }
    assert(pool:fill())
    local function take()
      local tasks = {}
      for i = 1, 2 do
        tasks[i] = spawn(function() return pool:acquire() end)
      end
      sleep(0)
      for i = 1, 2 do tasks[i]:cancel() end
      for i = 1, 2 do tasks[i]:wait() end
    end
    take()
    collect() -- one that was given all the same is dropped
    wait_until(function() return pool:stats().busy == 0 end, "a place is lost")
    assert(pool:fill())
    pool:close()
  end)

  it("makes room when a sandbox is killed, closed, detached or dropped by its user", function()
    local pool = new_pool { min_idle = 0, max_size = 1 }
    local detached
    for _, act in ipairs {
      function(sandbox) assert(sandbox:kill()) end, function(sandbox) assert(sandbox:close()) end,
      function(sandbox) detached = sandbox:detach() end, function() end,
    } do
      local function use() act(assert(pool:acquire { timeout = 5 })) end
      use()
      collect()
      wait_until(function() return pool:stats().busy == 0 end, "the place is not free")
    end
    assert.is_true(pool:release(detached)) -- it is not the pool's any more
    assert.equal(0, assert(detached:run("true")).exit_code)
    local waiting = assert(pool:acquire())
    local task = spawn(function() return pool:acquire() end)
    sleep(0.05)
    waiting:kill()
    assert(task:wait())
    assert(detached:kill())
    pool:close()
  end)

  it("replaces an idle one that is dead, and gives what it hands out its whole life again", function()
    local pool = new_pool { min_idle = 2, max_size = 4, timeout = 100 }
    assert(pool:fill())
    local dead = there()
    for id in pairs(dead) do assert(watcher:delete_sandbox(id)) end
    local sandbox = assert(pool:acquire())
    assert.is_nil(dead[sandbox.id])
    assert.equal(0, assert(sandbox:run("true")).exit_code)
    assert(pool:fill())
    local ready = there()
    for id in pairs(ready) do assert(watcher:renew_sandbox(id, 20)) end
    sandbox = assert(pool:acquire())
    assert.is_true(ready[sandbox.id])
    local left = assert(sandbox:info()).expires_at - core.wall_clock()
    assert.is_true(left > 90 and left < 101, "it has " .. left .. " s left")
    pool:close()
  end)

  it("does not hand out one that is near its end", function()
    local pool = new_pool { min_idle = 1, max_size = 2, timeout = 60, min_remaining_lifetime = 59.7 }
    assert(pool:fill())
    local old = there()
    sleep(0.4)
    local sandbox = assert(pool:acquire())
    assert.is_nil(old[sandbox.id])
    wait_until(function() return not there()[next(old)] end, "the old one is still there")
    pool:close()
    local forever = new_pool { timeout = false }
    assert(forever:fill())
    sandbox = assert(forever:acquire())
    assert.is_nil(assert(sandbox:info()).expires_at)
    forever:close()
    sandbox:kill()
  end)

  it("warms each sandbox up once, and gives it to nobody when that fails", function()
    local warmed = {}
    local pool = new_pool { min_idle = 2, max_size = 3, warm_up = function(sandbox)
      assert(sandbox.files:write("/work/ready", "yes"))
      warmed[#warmed + 1] = sandbox.id
    end }
    assert(pool:fill())
    assert.equal(2, #warmed)
    assert.equal("yes", pool:with(function(sandbox) return sandbox.files:read("/work/ready") end))
    pool:close()
    for _, case in ipairs {
      { function() error("not warm", 0) end, "warm_up failed: not warm" },
      { function() return nil, "cold" end, "warm_up failed: cold" },
      { function(sandbox) sandbox:kill() end, "warm_up failed: it has closed" },
      { function(sandbox) return sandbox.files:read("/no/such/file") end, "no/such/file" },
    } do
      pool = new_pool { min_idle = 1, max_size = 2, warm_up = case[1] }
      local ok, err = pool:fill()
      assert.is_nil(ok)
      assert.truthy(tostring(err):find(case[2], 1, true), tostring(err))
      ok, err = pool:acquire()
      assert.is_nil(ok)
      assert.truthy(tostring(err):find(case[2], 1, true), tostring(err))
      assert.is_true(pool:stats().failures >= 2)
      pool:close()
      nothing_left()
    end
  end)

  it("that is closed ends its idle sandboxes and those that are being made, and refuses all who want one", function()
    local pool = new_pool { min_idle = 2, max_size = 2 }
    assert(pool:fill())
    local busy = assert(pool:acquire())
    local other = assert(pool:acquire())
    local waiting = spawn(function() return pool:acquire() end)
    local filling = spawn(function() return pool:fill() end)
    sleep(0.02)
    pool:release(other) -- somebody's create is under way, perhaps
    pool:close()
    local err = fails("closed", "closed", waiting:wait())
    assert.equal("pool:acquire", err.op)
    filling:wait()
    fails("closed", "closed", pool:acquire())
    fails("closed", "closed", pool:fill())
    assert.same({ idle = 0, busy = 0, creating = 0, failures = 0 },
      { idle = pool:stats().idle, busy = 0, creating = pool:stats().creating, failures = pool:stats().failures })
    assert.equal(0, assert(busy:run("true")).exit_code) -- what was handed out goes on
    pool:release(busy)
    nothing_left()
    new_pool({ min_idle = 4, max_size = 4 }):close() -- before anything has begun
    local begun = new_pool { min_idle = 4, max_size = 4 }
    sleep(0.01)
    begun:close()
    nothing_left()
  end)

  it("is closed with its client", function()
    local pool = new_pool { min_idle = 2, max_size = 3 }
    assert(pool:fill())
    assert(pool:acquire())
    local waiting = spawn(function()
      local all = {}
      for i = 1, 3 do
        local sandbox, err = pool:acquire()
        if not sandbox then return nil, err end
        all[i] = sandbox
      end
      return all
    end)
    sleep(0.01)
    client:close()
    local _, err = waiting:wait()
    assert.equal("closed", err.kind, tostring(err))
    fails("closed", "closed", pool:acquire())
    nothing_left()
  end)

  it("is closed with its client while it makes sandboxes", function()
    for _, seconds in ipairs { 0, 0.01, 0.05 } do
      local one = opensandbox.new(server.url, server.key)
      local pool = one:pool { image = "any", min_idle = 4 }
      sleep(seconds)
      one:close()
      assert.equal(0, pool:stats().creating)
      nothing_left()
    end
  end)

  it("loses no place and no sandbox under a collector that is always at work", function()
    local pause, multiplier = collectgarbage("setpause", 100), collectgarbage("setstepmul", 400)
    finally(function()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
    local pool = new_pool { min_idle = 1, max_size = 3 }
    local function use(n)
      local sandbox = assert(pool:acquire())
      if n % 3 > 0 then pool:release(sandbox) end
    end
    local _, failures = opensandbox.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, function(n)
      use(n)
      collect() -- what was dropped is noticed when it is collected
      return true
    end)
    assert.is_nil(failures, failures and tostring(select(2, next(failures))))
    collect()
    wait_until(function() return pool:stats().busy == 0 end, "a place is lost")
    pool:close()
  end)

  it("that nobody holds is collected, with what it had ready and what was being made", function()
    local weak = setmetatable({}, { __mode = "k" })
    local function drop(fill)
      local pool = new_pool { min_idle = 3, max_size = 3 }
      weak[pool] = true
      if fill then assert(pool:fill()) else sleep(0.01) end
    end
    for _, fill in ipairs { true, false } do
      drop(fill)
      wait_until(function()
        collect()
        return next(weak) == nil
      end, "the pool is still there")
      nothing_left()
    end
  end)

  it("raises for options that cannot be meant, at the caller's line", function()
    for _, case in ipairs {
      { {}, "'image'" }, { { image = "x", min_idle = 3, max_size = 2 }, "option 'min_idle' (3)" },
      { { image = "x", max_size = 0, min_idle = 0 }, "'max_size'" },
      { { image = "x", size = 2 }, "unknown option 'size'" }, { { image = "x", wait = false }, "unknown option 'wait'" },
      { { image = "x", warm_up = 1 }, "'warm_up'" }, { { image = "x", entrypoint = {} }, "'entrypoint'" },
      { { image = "x", timeout = 60, min_remaining_lifetime = 60 }, "'min_remaining_lifetime'" },
      { { image = "x", acquire_timeout = -1 }, "'acquire_timeout'" },
    } do
      local ok, problem = pcall(function() return client:pool(case[1]) end)
      assert.is_false(ok)
      assert.truthy(problem:find(case[2], 1, true), problem)
      assert.truthy(problem:find("sandbox_pool_spec%.lua:%d+: pool: "), problem)
    end
    assert.has_error(function() client:pool() end)
    local pool = new_pool { min_idle = 0 }
    local stranger = assert(client:create { image = "any" })
    assert.has_error(function() pool:release(stranger) end)
    assert.has_error(function() pool:release() end)
    assert.has_error(function() pool:acquire { timout = 1 } end)
    assert.has_error(function() pool:with("work") end)
    assert.equal(0, assert(stranger:run("true")).exit_code)
    pool:close()
  end)
end)

describe("a pool whose server makes no sandboxes", function()
  local faulty, one

  setup(function()
    -- Creates fail, but with the key "heals" only the first three. Sandboxes are ready at once.
    faulty = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local made, tries = 0, 0
      return function(request, connection)
        local path = request.path:gsub("%?.*", "")
        if request.method == "POST" and path == "/v1/sandboxes" then
          local heals = request.headers["open-sandbox-api-key"] == "heals"
          if heals then tries = tries + 1 end
          if not heals or tries <= 3 then
            return connection:respond(500, JSON, json.encode { code = "NO_IMAGE", message = "there is no such image" })
          end
          made = made + 1
          return connection:respond(202, JSON, json.encode { id = "s" .. made, status = { state = "Running" } })
        elseif path:find("/endpoints/") then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd" })
        end
        connection:respond(request.method == "DELETE" and 204 or 200, JSON, request.method == "DELETE" and "" or "{}")
      end
    ]]
  end)
  teardown(function() faulty:stop() end)
  before_each(function() one = opensandbox.new(faulty.url, "broken") end)
  after_each(function() one:close() end)

  local function creates(key)
    local times = {}
    for _, request in ipairs(faulty:requests()) do
      if request.method == "POST" and request.path == "/v1/sandboxes" and request.headers["open-sandbox-api-key"] == key then
        times[#times + 1] = request.time
      end
    end
    return times
  end

  it("tells who waits why, and who fills it", function()
    local pool = one:pool { image = "x", min_idle = 2, max_size = 3 }
    local err = fails("http", "NO_IMAGE", pool:fill())
    assert.truthy(tostring(err):find("no such image", 1, true))
    fails("http", "NO_IMAGE", pool:acquire())
    fails("http", "NO_IMAGE", pool:with(error))
    local tasks = {}
    for i = 1, 10 do
      tasks[i] = spawn(function() return pool:acquire() end)
    end
    for i = 1, 10 do fails("http", "NO_IMAGE", tasks[i]:wait()) end
    local stats = pool:stats()
    assert.is_true(stats.failures > 10)
    assert.equal(0, stats.busy)
    assert.equal(0, stats.idle)
    pool:close()
  end)

  it("is asked less and less often, and fills up by itself when it works again", function()
    local healing = opensandbox.new(faulty.url, "heals")
    local pool = healing:pool { image = "x", min_idle = 1, max_size = 3 }
    wait_until(function() return pool:stats().idle == 1 end, "it does not come back")
    assert.equal(0, pool:stats().failures)
    local times = creates("heals")
    assert.equal(4, #times)
    for i, rest in ipairs { 0.5, 1, 2 } do
      local gap = times[i + 1] - times[i]
      assert.is_true(gap > rest * 0.9 and gap < rest * 1.5 + 0.5, ("try %d came after %g s"):format(i + 1, gap))
    end
    pool:close()
    healing:close()
  end)

  it("fills and closes within the time that is given", function()
    -- Creates work once, and nothing else is answered.
    local mute = fault_server.start [[
      return function(request, connection)
        if state.made or request.method ~= "POST" then return connection:silence() end
        state.made = true
        connection:respond(202, { ["Content-Type"] = "application/json" }, '{"id":"s1","status":{"state":"Running"}}')
      end
    ]]
    local silent = opensandbox.new(mute.url, "")
    local pool = silent:pool { image = "x", min_idle = 2 }
    local began = core.now()
    local err = fails("timeout", "not_filled", pool:fill { timeout = 0.2 })
    assert.same({ "timeout", "pool:fill" }, { err.timeout_option, err.op })
    err = fails("timeout", "not_closed", pool:close { timeout = 0.2 })
    assert.same({ "timeout", "pool:close" }, { err.timeout_option, err.op })
    assert.is_true(core.now() - began < 2)
    silent:close()
    mute:stop()
  end)

  it("that was dropped asks no more", function()
    local lost = opensandbox.new(faulty.url, "lost")
    local weak = setmetatable({}, { __mode = "k" })
    local function drop()
      local pool = lost:pool { image = "x" }
      weak[pool] = true
      fails("http", "NO_IMAGE", pool:fill())
    end
    drop()
    collect()
    assert.is_nil(next(weak))
    local before = #creates("lost")
    sleep(1.2)
    assert.equal(before, #creates("lost"))
    lost:close()
  end)
end)

--- Pools that share a store: what one has made ready the other takes, limits count for all, and a store that fails is named.

local core = require "opensandbox.core"
local objects = require "opensandbox.lifecycle.objects"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local redis_client = require "spec.support.redis_client"
local redis_server = require "spec.support.redis_server"
local uv_loop = require "spec.support.uv_loop"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local spawn, sleep = opensandbox.spawn, opensandbox.sleep
local pool_stores = opensandbox.pool_stores

local server, watcher, clients

-- The ids of the sandboxes that exist.
local function existing()
  local ids, count = {}, 0
  for _, info in ipairs(assert(watcher:list_sandboxes())) do
    ids[info.id] = true
    count = count + 1
  end
  return ids, count
end

local function nothing_left()
  wait_until(function() return select(2, existing()) == 0 end, "a sandbox is left")
end

-- A pool of a client of its own, as another process would have it.
local function new_pool(store, changes)
  local client = opensandbox.new(server.url, server.key, { create_timeout = 3 })
  clients[#clients + 1] = client
  local opts = { image = "any", store = store, min_idle = 0, lease = 2 }
  for name, value in pairs(changes or {}) do opts[name] = value end
  return client:pool(opts), client
end

local function fails(kind, code, value, err)
  assert.is_nil(value)
  assert.same({ kind, code }, { err.kind, err.code }, tostring(err))
  return err
end

-- Deletes what stays idle, also what becomes idle meanwhile because its request was served otherwise.
local function drain(pool)
  wait_until(function()
    pool:resize { min_idle = 0 }
    local stats = pool:stats()
    return stats and stats.idle + stats.busy + stats.creating == 0
  end, "a place is lost")
  nothing_left()
end

local function with_server()
  setup(function()
    server = process.devserver { grace = 0.1 }
    watcher = opensandbox.new(server.url, server.key)
  end)
  teardown(function()
    watcher:close()
    server:stop()
  end)
  before_each(function() clients = {} end)
  after_each(function()
    for _, client in ipairs(clients) do client:close() end
    for id in pairs(existing()) do watcher:delete_sandbox(id) end -- what a failed test has left
  end)
end

describe("Pools that share a store", function()
  with_server()

  it("take each other's idle sandboxes, which outlive the pool that created them", function()
    local store = pool_stores.memory()
    local first, first_client = new_pool(store, { min_idle = 2 })
    assert(first:fill())
    local ready = existing()
    first:close()
    first_client:close()
    assert.same(ready, existing())
    local second = new_pool(store, { min_idle = 2 })
    local sandbox = assert(second:acquire())
    assert.is_true(ready[sandbox.id])
    assert.equal("here\n", assert(sandbox:run "echo here").stdout)
    assert.is_nil(assert(sandbox:info()).metadata[objects.POOL_LABEL])
    second:release(sandbox)
    wait_until(function() return not existing()[sandbox.id] end, "the released one stays")
    drain(second)
  end)

  it("have never more than max_size sandboxes together, and serve who waits when the other releases", function()
    local store = pool_stores.memory()
    local first, second = new_pool(store, { max_size = 2 }), new_pool(store, { max_size = 2 })
    local one, two = assert(first:acquire()), assert(first:acquire())
    fails("timeout", "pool_exhausted", second:acquire { timeout = 0.2 })
    local waiting = spawn(function() return second:acquire { timeout = 10 } end)
    sleep(0.1)
    first:release(one)
    local third = assert(waiting:wait())
    assert.same({ idle = 0, busy = 2, creating = 0, failures = 0 }, (assert(first:stats())))
    first:release(one) -- once more frees nothing
    fails("timeout", "pool_exhausted", second:acquire { timeout = 0.2 })
    assert.equal(2, select(2, existing()))
    first:release(two)
    second:release(third)
    nothing_left()
  end)

  it("fill the reserve once, and not each of them", function()
    local store, pools, creates = pool_stores.memory(), {}, 0
    local function count() creates = creates + 1 end
    for i = 1, 4 do pools[i] = new_pool(store, { min_idle = 3, warm_up = count }) end
    for i = 1, 4 do assert(pools[i]:fill()) end
    assert.equal(3, creates)
    drain(pools[1])
  end)

  it("keep a sandbox that is held longer than the lease, while its process lives", function()
    local store = pool_stores.memory()
    local other = new_pool(store, { lease = 1 })
    local function acquire()
      local pool = new_pool(store, { lease = 1 })
      local sandbox = assert(pool:acquire())
      return sandbox, pool
    end
    local held, closed = acquire()
    closed:close()
    local weak = setmetatable({}, { __mode = "k" })
    local alone = acquire() -- nobody holds its pool
    weak[alone] = true
    collectgarbage()
    sleep(2.5)
    assert.equal(2, assert(other:stats()).busy)
    for _, sandbox in ipairs { held, alone } do
      assert.equal(0, assert(sandbox:run "true").exit_code)
      sandbox:kill()
    end
    wait_until(function() return other:stats().busy == 0 end, "a place is lost")
  end)

  it("are collected when nobody holds them or a sandbox of theirs, and leave the idle ones to the others", function()
    local store, weak = pool_stores.memory(), setmetatable({}, { __mode = "k" })
    local function drop()
      local pool = new_pool(store, { min_idle = 1 })
      weak[pool] = true
      assert(pool:fill())
    end
    drop()
    wait_until(function()
      collectgarbage()
      return next(weak) == nil
    end, "the pool is still there")
    local ready = existing()
    local other = new_pool(store, { min_idle = 1 })
    local sandbox = assert(other:acquire())
    assert.is_true(ready[sandbox.id])
    other:release(sandbox)
    drain(other)
  end)

  it("let a sandbox go that its user detaches", function()
    local store = pool_stores.memory()
    local pool = new_pool(store, { max_size = 1 })
    local sandbox = assert(pool:acquire()):detach()
    assert.equal(0, assert(pool:stats()).busy)
    assert.is_true(pool:release(sandbox))
    assert.equal(0, assert(sandbox:run "true").exit_code)
    sandbox:kill()
  end)

  it("delete the sandbox of a process that died while it created it", function()
    local store = pool_stores.memory()
    local pool = new_pool(store, { lease = 1, max_size = 2 })
    assert(pool:stats()) -- opens the store
    local request = { step = "acquire", token = "dead1", owner = "dead", create = true, lease = 1, create_timeout = 2,
      url = watcher.url }
    assert.is_true(store:transact(request).create)
    request.token = "dead2" -- this one has not reached the server
    assert.is_true(store:transact(request).create)
    local info = assert(watcher:create_sandbox { image = "any", metadata = { [objects.POOL_LABEL] = "dead1" } })
    fails("timeout", "pool_exhausted", pool:acquire { timeout = 0 })
    wait_until(function() return not existing()[info.id] end, "it stays")
    local sandbox = assert(pool:acquire { timeout = 10 })
    pool:release(sandbox)
    wait_until(function()
      local stats = pool:stats()
      return stats.busy + stats.creating == 0
    end, "a place is lost")
  end)

  it("lose nothing when responses of the store are lost", function()
    local inner, steps = pool_stores.memory(), 0
    local store = { name = "lossy", transact = function(_, request)
      steps = steps + 1
      local response = inner:transact(request)
      if steps % 7 == 0 then return nil, { code = "store_unreachable", message = "the response was lost" } end
      return response
    end }
    local pools, used = {}, {}
    for i = 1, 2 do pools[i] = new_pool(store, { lease = 1, max_size = 4, min_idle = 1 }) end
    local count = 0
    opensandbox.map({ 1, 2, 3, 4 }, function(n)
      local pool = pools[n % 2 + 1]
      for _ = 1, 6 do
        local sandbox, err = pool:acquire { timeout = 5 }
        if sandbox then
          assert.is_nil(used[sandbox.id])
          used[sandbox.id], count = true, count + 1
          pool:release(sandbox)
        elseif err.kind ~= "timeout" then
          fails("transport", "store_unreachable", nil, err)
        end
      end
    end)
    assert.is_true(count > 5)
    drain(pools[1])
  end)

  it("name a store that fails, in every way in which it can", function()
    for _, case in ipairs {
      { function() return nil, "no disk" end, "protocol", "store_failed", "no disk" },
      { function() error("no memory", 0) end, "protocol", "store_failed", "no memory" },
      { function() return "text" end, "protocol", "store_failed", "not a table" },
      { function() return { unknown = true } end, "protocol", "store_failed", "loses" },
      { function() return { idle = 1, busy = "2" } end, "protocol", "store_failed", "'busy'" },
      { function() return nil, { code = "store_unreachable", message = "no route" } end, "transport", "store_unreachable",
        "no route" },
      { function() return { foreign = "a song" } end, "protocol", "store_foreign", "a song" },
    } do
      local pool = new_pool({ name = "shelf 7", transact = case[1] })
      for _, call in ipairs { "acquire", "fill", "stats" } do
        local err = fails(case[2], case[3], pool[call](pool))
        assert.equal("pool:" .. call, err.op)
        assert.truthy(tostring(err):find("shelf 7", 1, true), tostring(err))
        assert.truthy(tostring(err):find(case[4], 1, true), tostring(err))
      end
      fails(case[2], case[3], pool:resize { max_size = 4 })
      pool:close()
    end
  end)

  it("report a store that never answers, in time, and go on when it does", function()
    local inner, silent = pool_stores.memory(), true
    local store = { name = "slow", transact = function(_, request)
      while silent do sleep(0.02) end
      return inner:transact(request)
    end }
    local pool = new_pool(store, { store_timeout = 0.3 })
    local began = core.now()
    local err = fails("timeout", "store_timeout", pool:acquire())
    assert.is_true(core.now() - began < 5)
    assert.truthy(tostring(err):find("slow", 1, true))
    fails("timeout", "store_timeout", pool:acquire { timeout = 0 })
    silent = false
    pool:release(assert(pool:acquire()))
    nothing_left()
  end)

  it("report a handle that they cannot use, and take the next one", function()
    local store = pool_stores.memory()
    local pool = new_pool(store, { lease = 1 })
    assert(pool:stats())
    local function put(token, value)
      local request = { step = "acquire", token = token, owner = "x", create = true, lease = 9, create_timeout = 9,
        url = watcher.url }
      assert(store:transact(request))
      request.step, request.value, request.lifetime = "put", value, 9
      assert(store:transact(request))
    end
    for i, value in ipairs {
      { id = 5 }, { id = "a", url = "http://other/v1" }, { id = "../x", url = watcher.url, endpoints = 3 },
    } do
      put("t" .. i, value)
      fails("protocol", "store_foreign", pool:acquire())
    end
    pool:release(assert(pool:acquire()))
    nothing_left()
  end)

  it("return an error from fill when they are closed while it counts", function()
    local kept, on_update
    local pool = new_pool(pool_stores.custom { name = "a variable", now = core.now, update = function(change)
      if on_update then on_update() end
      kept = change(kept) or kept
      return true
    end })
    assert.is_true(pool:fill())
    function on_update()
      on_update = nil
      pool:close()
    end
    fails("closed", "closed", pool:fill())
    assert.is_nil(on_update)
  end)

  it("raise for options that cannot be meant", function()
    for _, case in ipairs {
      { { store = {} }, "'store'" }, { { store = "redis" }, "'store'" }, { { lease = 0.5 }, "'lease'" },
      { { max_creates_per_second = 0 }, "'max_creates_per_second'" },
      { { max_creates_per_second = "5" }, "'max_creates_per_second'" }, { { check = 1 }, "'check'" },
    } do
      local ok, problem = pcall(new_pool, nil, case[1])
      assert.is_false(ok)
      assert.truthy(tostring(problem):find(case[2], 1, true), tostring(problem))
    end
    local pool = new_pool()
    for _, opts in ipairs { { max_size = 0 }, { min_idle = 20 }, { size = 1 }, { max_creates_per_second = -1 } } do
      assert.is_false(pcall(pool.resize, pool, opts))
    end
    for _, opts in ipairs { {}, { name = "a" }, { name = "a{b}", connect = print }, { name = "", connect = print } } do
      assert.is_false(pcall(pool_stores.redis, opts))
    end
    assert.is_false(pcall(pool_stores.shared_dict))
    assert.is_false(pcall(pool_stores.custom, { name = "x" }))
  end)
end)

describe("A pool", function()
  with_server()

  it("checks an idle sandbox as its user wants before it hands it out", function()
    local checked, refuse = {}, {}
    local pool = new_pool(nil, { min_idle = 2, check = function(sandbox)
      checked[#checked + 1] = sandbox.id
      local how = table.remove(refuse, 1)
      if how == "raise" then error("too old", 0) end
      return how == nil and assert(sandbox:run "true").exit_code == 0 or nil, how and "too old"
    end })
    assert(pool:fill())
    local ready = existing()
    local sandbox = assert(pool:acquire())
    assert.is_true(ready[sandbox.id])
    assert.same({ sandbox.id }, checked)
    pool:release(sandbox)
    assert(pool:fill())
    refuse = { "return", "raise" }
    sandbox = assert(pool:acquire())
    assert.is_nil(checked[2] == sandbox.id or checked[3] == sandbox.id or nil)
    wait_until(function() return not existing()[checked[2]] and not existing()[checked[3]] end, "a refused one stays")
    pool:close()
  end)

  it("creates no more sandboxes in a second than it may", function()
    local times = {}
    local pool = new_pool(nil, { min_idle = 2, max_size = 4, max_creates_per_second = 5, warm_up = function()
      times[#times + 1] = core.now()
    end })
    local began = core.now()
    local tasks = {}
    for i = 1, 4 do tasks[i] = spawn(function() return pool:acquire() end) end
    for i = 1, 4 do assert(tasks[i]:wait()) end
    assert.is_true(core.now() - began > 0.55, "4 creates took " .. core.now() - began)
    assert.equal(4, #times)
    pool:close()
  end)

  it("is resized: a greater size serves who waits, a smaller one deletes idle sandboxes", function()
    for _, store in ipairs { false, pool_stores.memory() } do
      local pool = new_pool(store or nil, { min_idle = 0, max_size = 1 })
      local one = assert(pool:acquire())
      local waiting = spawn(function() return pool:acquire() end)
      sleep(0.05)
      assert.is_true(pool:resize { max_size = 6, min_idle = 3 })
      local two = assert(waiting:wait())
      assert(pool:fill())
      assert.equal(3, pool:stats().idle)
      assert.is_true(pool:resize { max_size = 3, min_idle = 1 })
      wait_until(function() return pool:stats().busy == 2 end, "idle ones stay")
      assert.equal(1, pool:stats().idle)
      assert.equal(3, select(2, existing()))
      local three = assert(pool:acquire())
      fails("timeout", "pool_exhausted", pool:acquire { timeout = 0 })
      for _, sandbox in ipairs { one, two, three } do pool:release(sandbox) end
      drain(pool)
      pool:close()
      fails("closed", "closed", pool:resize { max_size = 3 })
      nothing_left()
    end
  end)
end)

describe("Pools that share a Redis", function()
  if not redis_server.installed() then return pending("Redis is not installed: " .. redis_server.PACKAGES) end
  with_server()

  local redis, guard

  before_each(function()
    redis = redis_server.start()
    guard = uv_loop.catch_sigpipe() -- luasocket ignores it, until the helpers catch it
  end)
  after_each(function()
    uv_loop.close(guard)
    redis:stop()
  end)

  local function store(changes)
    local opts = { name = "builds", timeout = 0.5, connect = function() return redis_client.connect(redis.port) end }
    for name, value in pairs(changes or {}) do opts[name] = value end
    return pool_stores.redis(opts)
  end

  local function works(pool)
    local sandbox = assert(pool:acquire())
    assert.equal(0, assert(sandbox:run "true").exit_code)
    pool:release(sandbox)
  end

  it("work together, with keys of one hash tag", function()
    local first, second = new_pool(store(), { min_idle = 1, max_size = 2 }), new_pool(store(), { min_idle = 1, max_size = 2 })
    assert(first:fill())
    local ready = existing()
    local sandbox = assert(second:acquire())
    assert.is_true(ready[sandbox.id])
    assert(first:fill())
    assert.same({ idle = 1, busy = 1, creating = 0, failures = 0 }, (assert(first:stats())))
    second:release(sandbox)
    works(first)
    local client = assert(redis_client.connect(redis.port))
    local keys = client:call("KEYS", "*")
    assert.is_true(#keys > 2)
    for _, key in ipairs(keys) do assert.truthy(key:find("^opensandbox:{builds}:%l+$"), key) end
    client:close()
    drain(first)
  end)

  it("work with lua-redis", function()
    local found, lua_redis = pcall(require, "redis")
    if not found then return pending "lua-redis is not installed for this Lua" end
    works(new_pool(store { connect = function() return lua_redis.connect("127.0.0.1", redis.port) end }))
    redis:kill "sigstop"
    local stopped = new_pool(store { connect = function() return lua_redis.connect("127.0.0.1", redis.port) end })
    fails("timeout", "store_timeout", stopped:acquire())
    redis:kill "sigcont"
    works(stopped)
    nothing_left()
    local client = lua_redis.connect("127.0.0.1", redis.port)
    client:set("opensandbox:{song}:meta", "la la")
    fails("protocol", "store_foreign", new_pool(store {
      name = "song", connect = function() return lua_redis.connect("127.0.0.1", redis.port) end,
    }):acquire())
  end)

  it("use the sandboxes that they have while Redis is gone, and free their places when it is back", function()
    local pool = new_pool(store(), { max_size = 2 })
    local one, two = assert(pool:acquire()), assert(pool:acquire())
    local port = redis.port
    redis:stop()
    local err = fails("transport", "store_unreachable", pool:acquire())
    assert.is_true(err.retryable)
    assert.truthy(tostring(err):find('pool "builds"', 1, true), tostring(err))
    assert.equal(0, assert(one:run "true").exit_code)
    pool:release(one)
    wait_until(function() return not existing()[one.id] end, "it stays")
    fails("transport", "store_unreachable", pool:stats())
    redis = redis_server.start(port) -- empty
    wait_until(function()
      local stats = pool:stats()
      return stats and stats.busy == 1
    end, "the sandbox in use was not counted again")
    assert.equal(0, assert(two:run "true").exit_code)
    works(pool)
    pool:release(two)
    nothing_left()
    wait_until(function() return pool:stats().busy == 0 end, "a place is lost")
  end)

  it("name a Redis that does not answer, and lose nothing by that", function()
    local pool = new_pool(store(), { max_size = 1 })
    local sandbox = assert(pool:acquire())
    redis:kill "sigstop"
    local began = core.now()
    fails("timeout", "store_timeout", pool:acquire())
    assert.is_true(core.now() - began < 5)
    assert.equal(0, assert(sandbox:run "true").exit_code)
    pool:release(sandbox)
    redis:kill "sigcont"
    works(pool)
    nothing_left()
  end)

  it("leave alone what is not theirs, and name it", function()
    local client = assert(redis_client.connect(redis.port))
    local pool = new_pool(store())
    works(pool)
    local other = opensandbox.new("http://127.0.0.1:1", "key")
    local err = fails("protocol", "store_foreign", other:pool({ image = "any", store = store(), min_idle = 0 }):acquire())
    assert.truthy(tostring(err):find(watcher.url, 1, true))
    other:close()
    for name, command in pairs {
      ["opensandbox:{a}:meta"] = { "SET", "la la" }, ["opensandbox:{b}:meta"] = { "RPUSH", "x" },
      ["opensandbox:{c}:places"] = { "SET", "x" }, ["opensandbox:{d}:all"] = { "ZADD", 1, "x" },
    } do
      client:call(command[1], name, command[2], command[3])
      local before = client:call("DUMP", name)
      fails("protocol", "store_foreign", new_pool(store { name = name:match("{(.)}") }):acquire())
      assert.equal(before, client:call("DUMP", name))
    end
    client:call("CONFIG", "SET", "requirepass", "secret")
    err = fails("protocol", "store_failed", new_pool(store { name = "e" }):acquire())
    assert.truthy(tostring(err):lower():find("auth", 1, true), tostring(err))
    client:close()
  end)

  it("refuse the response of an earlier request", function()
    local late
    local pool = new_pool(store { connect = function()
      local client = assert(redis_client.connect(redis.port))
      return { eval = function(_, ...)
        local reply = client:eval(...)
        late, reply = reply, late or reply
        return reply
      end, close = function() client:close() end }
    end })
    fails("protocol", "store_failed", pool:acquire())
  end)
end)

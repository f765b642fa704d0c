--- The stores of shared pools: each place is held by one process at a time, and every store follows the same rules.

local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local new_random = require "spec.support.random"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local redis_client = require "spec.support.redis_client"
local redis_server = require "spec.support.redis_server"
local rules = require "opensandbox.pool.rules"
local uv = require "luv"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local URL = "http://server/v1"
local pool_stores = opensandbox.pool_stores

-- A dictionary with the methods of ngx.shared. `values` may be changed behind its back.
local function fake_dictionary()
  local dict = { values = {} }
  function dict:get(key) return self.values[key] end
  function dict:add(key, value)
    if self.values[key] ~= nil then return false, "exists" end
    self.values[key] = value
    return true
  end
  function dict:safe_set(key, value)
    self.values[key] = value
    return true
  end
  function dict:delete(key) self.values[key] = nil end
  return dict
end

local server

local STORES = {
  memory = function() return pool_stores.memory() end,
  custom = function()
    local kept
    return pool_stores.custom { name = "a variable", now = core.now, update = function(change)
      kept = change(kept) or kept
      return true
    end }
  end,
  ["ngx.shared"] = function() return pool_stores.shared_dict(fake_dictionary()) end,
}

local redis_pools = 0

if redis_server.installed() then
  STORES.Redis = function()
    redis_pools = redis_pools + 1
    return pool_stores.redis {
      name = "contract " .. redis_pools, connect = function() return redis_client.connect(server.port) end,
    }
  end
else
  pending("Redis is not installed: " .. redis_server.PACKAGES)
end

-- Sends a step, with what every request contains.
local function sender(store)
  return function(step, fields)
    local request = { step = step, url = URL, owner = "a", lease = 60, create_timeout = 100, coming = 0, reaped = 0 }
    for name, value in pairs(fields or {}) do request[name] = value end
    return assert(store:transact(request))
  end
end

local function open(store, min_idle, max_size, rate)
  local send = sender(store)
  send("open", { token = "first", min_idle = min_idle, max_size = max_size, rate = rate })
  return send
end

local function counts(response)
  return { response.idle, response.busy, response.creating }
end

describe("The stores of pools", function()
  setup(function()
    if redis_server.installed() then server = redis_server.start() end
  end)
  teardown(function()
    if server then server:stop() end
  end)

  for name, make in pairs(STORES) do
    describe(name, function()
      local store
      before_each(function() store = make() end)

      it("allows max_size places over all owners, and counts them by their state", function()
        local send = open(store, 0, 2)
        assert.is_true(send("acquire", { token = "t1", create = true }).create)
        assert.is_true(send("acquire", { token = "t2", create = true, owner = "b" }).create)
        assert.is_true(send("acquire", { token = "t3", create = true }).full)
        assert.same({ 0, 0, 2 }, counts(send "count"))
        send("assign", { token = "t1", value = { id = "s1" } })
        send("put", { token = "t2", value = { id = "s2" }, lifetime = 50 })
        assert.same({ 1, 1, 0 }, counts(send "count"))
        send("remove", { tokens = { "t1" } })
        send("remove", { tokens = { "t1" } }) -- once more frees nothing
        assert.same({ 1, 0, 0 }, counts(send "count"))
        assert.is_nil(send("acquire", { token = "t4", create = false }).create)
      end)

      it("hands an idle place to one owner, under a new token, the one that expires first before others", function()
        local send = open(store, 0, 5)
        for i = 1, 3 do send("acquire", { token = "t" .. i, create = true }) end
        for i, seconds in ipairs { 30, 10, 20 } do
          send("put", { token = "t" .. i, value = { id = "s" .. seconds }, lifetime = seconds })
        end
        local taken = send("acquire", { token = "x1", create = true, owner = "b" })
        assert.same({ "s10", "t2" }, { taken.value.id, taken.from })
        assert.is_true(taken.left > 9 and taken.left <= 10)
        assert.same("s10", send("acquire", { token = "x1", owner = "b" }).value.id) -- its first response was lost
        assert.same({ 2, 1, 0 }, counts(send "count"))
        send("remove", { tokens = { "t2" } }) -- a late step of the former holder finds nothing
        assert.same({ "t2" }, send("put", { token = "t2", value = { id = "s10" } }).lost)
        assert.same({ "t2" }, send("renew", { tokens = { "t2", "x1" } }).lost)
        assert.same({ 2, 1, 0 }, counts(send "count"))
        assert.equal("s20", send("acquire", { token = "x2" }).value.id)
        assert.equal("s30", send("acquire", { token = "x3" }).value.id)
        assert.is_nil(send("acquire", { token = "x4" }).value)
      end)

      it("keeps the token of a create whose response was lost", function()
        local send = open(store, 1, 1)
        assert.is_true(send("acquire", { token = "t1", create = true }).create)
        assert.is_true(send("acquire", { token = "t1", create = true }).create)
        send("remove", { tokens = { "t1" } })
        assert.is_true(send("fill", { token = "t2" }).create)
        assert.is_true(send("fill", { token = "t2" }).create)
        assert.same({ 0, 0, 1 }, counts(send "count"))
      end)

      it("lets one owner fill the reserve at a time, until that has ended or its lease is over", function()
        local send = open(store, 2, 9)
        assert.is_true(send("fill", { token = "t1", lease = 0.2 }).create)
        local refused = send("fill", { token = "t2", owner = "b" })
        assert.is_true(refused.wait > 0 and refused.wait <= 0.2)
        assert.is_true(send("fill", { token = "t3", lease = 0.2 }).create)
        assert.is_true(send("fill", { token = "t4" }).filled)
        send("put", { token = "t1", value = { id = "s1" } })
        assert.is_nil(send("fill", { token = "t5", owner = "b" }).create)
        send("remove", { tokens = { "t3" } })
        assert.is_true(send("fill", { token = "t6", owner = "b", lease = 0.2 }).create)
        uv.sleep(300)
        assert.is_true(send("fill", { token = "t7", owner = "a" }).filled) -- until the dead one's place is cleaned up
        assert.is_true(send("reap", { token = "r1" }).reaped)
        assert.is_true(send("fill", { token = "t8", owner = "a" }).create)
      end)

      it("takes what a dead owner held only after its lease, by one, and knows what it was creating", function()
        local send = open(store, 0, 9)
        send("acquire", { token = "t1", create = true, lease = 0.3 })
        send("acquire", { token = "t2", create = true, lease = 0.3 })
        send("assign", { token = "t2", value = { id = "s2" }, lease = 0.5 })
        send("acquire", { token = "t3", create = true, lease = 0.3 })
        assert.is_nil(send("reap", { token = "r0", owner = "b" }).reaped)
        uv.sleep(200)
        assert.is_nil(send("renew", { tokens = { "t3" } }).lost)
        uv.sleep(150)
        local orphan = send("reap", { token = "r1", owner = "b" })
        assert.same({ true, "t1" }, { orphan.reaped, orphan.label })
        assert.is_nil(orphan.value)
        assert.is_true(orphan.left > 90 and orphan.left < 100)
        assert.equal("t1", send("reap", { token = "r1", owner = "b" }).label) -- its first response was lost
        assert.is_nil(send("reap", { token = "r2", owner = "c" }).reaped)
        uv.sleep(250)
        local used = send("reap", { token = "r3", owner = "b" })
        assert.same({ true, "s2" }, { used.reaped, used.value.id })
        assert.same({ "t2" }, send("renew", { tokens = { "t2" } }).lost)
        assert.same({ 0, 1, 2 }, counts(send "count"))
        send("remove", { tokens = { "r1", "r3" } })
        assert.same({ 0, 0, 1 }, counts(send "count"))
      end)

      it("neither hands out nor keeps an idle place that has expired", function()
        local send = open(store, 0, 9)
        send("acquire", { token = "t1", create = true })
        send("put", { token = "t1", value = { id = "s1" }, lifetime = 0.1 })
        uv.sleep(150)
        assert.is_nil(send("acquire", { token = "x1" }).value)
        assert.equal("s1", send("reap", { token = "r1" }).value.id)
        send("acquire", { token = "t2", create = true })
        send("put", { token = "t2", value = { id = "s2" } }) -- never expires
        assert.is_nil(send("reap", { token = "r2" }).reaped)
      end)

      it("spreads creates over time, those of all owners together", function()
        local send = open(store, 2, 9, 5)
        assert.is_true(send("acquire", { token = "t1", create = true }).create)
        local later = send("acquire", { token = "t2", create = true, owner = "b" })
        assert.is_true(later.wait > 0 and later.wait <= 0.2)
        assert.is_true(send("fill", { token = "t3", owner = "b" }).wait > 0)
        uv.sleep(220)
        assert.is_true(send("fill", { token = "t3", owner = "b" }).create)
      end)

      it("has the limits of the last resize, until a program has new ones", function()
        local send = open(store, 0, 4)
        for i = 1, 3 do send("acquire", { token = "t" .. i, create = true }) end
        for i = 1, 3 do send("put", { token = "t" .. i, value = { id = "s" .. i }, lifetime = 50 + i }) end
        send("resize", { min_idle = 1, max_size = 2 })
        open(store, 0, 4)
        local now = send "count"
        assert.same({ 1, 2 }, { now.min_idle, now.max_size })
        assert.is_nil(send("reap", { token = "r0" }).reaped)
        assert.equal("s1", send("reap", { token = "r1", trim = true }).value.id)
        assert.equal("s2", send("reap", { token = "r2", trim = true }).value.id)
        send("remove", { tokens = { "r1", "r2" } })
        assert.is_nil(send("reap", { token = "r3", trim = true }).reaped)
        now = open(store, 3, 6) "count"
        assert.same({ 3, 6 }, { now.min_idle, now.max_size })
      end)

      it("reports a place for a reserve that was made smaller, also when its first response was lost", function()
        local send = open(store, 2, 4)
        send("fill", { token = "t1" })
        send("fill", { token = "t2" })
        assert.falsy(send("put", { token = "t1", value = { id = "s1" } }).surplus)
        send("resize", { min_idle = 1, max_size = 4 })
        assert.is_true(send("put", { token = "t2", value = { id = "s2" } }).surplus)
        assert.is_true(send("put", { token = "t2", value = { id = "s2" } }).surplus)
      end)

      it("reports that it was emptied, and takes the places of the holders back", function()
        local send = sender(store)
        assert.is_true(send("acquire", { token = "t1", create = true }).unknown)
        local epoch = open(store, 0, 2)("count").epoch
        assert.equal("first", epoch)
        assert.same({ "t1" }, send("renew", { tokens = { "t1" } }).lost)
        assert.is_nil(send("renew", { tokens = { "t1", "t2" }, values = { t1 = { id = "s1" }, t2 = false } }).lost)
        assert.same({ 0, 1, 1 }, counts(send "count"))
        assert.is_true(send("acquire", { token = "t3", create = true }).full)
      end)

      it("names a pool of another server, and changes nothing of it", function()
        local send = open(store, 0, 2)
        local refused = assert(store:transact { step = "open", url = "http://other/v1", token = "x", min_idle = 0, max_size = 9 })
        assert.equal("a pool of the server " .. URL, refused.foreign)
        assert.equal(2, send("count").max_size)
      end)
    end)
  end

  it("give the same responses to the same steps", function()
    local stores, senders = {}, {}
    for name, make in pairs(STORES) do
      stores[name] = make()
      senders[name] = open(stores[name], 3, 8)
    end
    local random = new_random(7)
    local tokens, lifetime = {}, 1000
    local function some_token() return #tokens > 0 and tokens[random(#tokens)] or "none" end
    local makers = {
      function(token) return "acquire", { token = token, create = random(2) == 1, owner = "o" .. random(3) } end,
      function(token) return "fill", { token = token, owner = "o" .. random(3), coming = random(3) - 1 } end,
      function(token) return "reap", { token = token, trim = random(2) == 1 } end,
      function()
        lifetime = lifetime + 1
        return "put", { token = some_token(), value = { id = "s" .. lifetime }, lifetime = lifetime }
      end,
      function() return "assign", { token = some_token(), value = { id = "assigned" } } end,
      function() return "remove", { tokens = { some_token(), some_token() } } end,
      function() return "renew", { tokens = { some_token() } } end,
      function()
        local least = random(4)
        return "resize", { min_idle = least, max_size = least + random(6) }
      end,
    }
    for i = 1, 400 do
      local step, fields = makers[random(#makers)]("t" .. i)
      if fields.token == "t" .. i then tokens[#tokens + 1] = fields.token end
      local expected
      for _, send in pairs(senders) do
        local response = send(step, fields)
        response.left, response.wait = nil, response.wait and true or nil -- times
        local text = { step, response.value and response.value.id or "", response.from or "",
          response.lost and response.lost[1] or "" }
        for _, field in ipairs {
          "create", "full", "filled", "wait", "reaped", "idle", "busy", "creating", "min_idle", "max_size",
        } do
          text[#text + 1] = tostring(response[field])
        end
        text = table.concat(text, " ")
        expected = expected or text
        assert.equal(expected, text)
      end
    end
  end)
end)

describe("The store in ngx.shared", function()
  local dict, store

  before_each(function()
    dict = fake_dictionary()
    store = pool_stores.shared_dict(dict, { name = "locked" })
  end)

  local function open_it()
    return store:transact { step = "open", url = URL, token = "t", min_idle = 0, max_size = 1 }
  end

  it("removes the lock of a worker that has died, and no other", function()
    if not rawget(_G, "jit") then return end -- nginx's Lua is LuaJIT
    local child = process.start { argv = { "true" } }
    child:wait()
    dict.values["opensandbox:locked:lock"] = ("%d/1/5.0"):format(child.pid)
    child:stop()
    assert.equal(1, assert(open_it()).max_size)
    assert.is_nil(dict.values["opensandbox:locked:lock"])
  end)

  it("waits for the lock of a living worker, but not for ever", function()
    dict.values["opensandbox:locked:lock"] = ("%d/1/5.0"):format(uv.os_getpid())
    local task = opensandbox.spawn(open_it)
    opensandbox.sleep(0.05)
    dict:delete("opensandbox:locked:lock")
    assert.equal(1, assert(task:wait()).max_size)
    dict.values["opensandbox:locked:lock"] = ("%d/1/5.0"):format(uv.os_getpid())
    local response, err = open_it()
    assert.is_nil(response)
    assert.equal("store_timeout", err.code)
  end)

  it("writes nothing when it was stopped so long that another has the lock, and nothing over a value of others", function()
    local get = dict.get
    function dict:get(key)
      if key == "opensandbox:locked" then self.values["opensandbox:locked:lock"] = "7/7/7.0" end
      return get(self, key)
    end
    local response, err = open_it()
    assert.same({ nil, "store_timeout" }, { response, err.code })
    assert.equal("7/7/7.0", dict.values["opensandbox:locked:lock"])
    assert.is_nil(dict.values["opensandbox:locked"])
    dict = fake_dictionary()
    store = pool_stores.shared_dict(dict, { name = "locked" })
    dict.values["opensandbox:locked"] = 5
    assert.is_string(assert(open_it()).foreign)
    assert.equal(5, dict.values["opensandbox:locked"])
    dict.values["opensandbox:locked:lock"] = true
    response, err = open_it()
    assert.same({ nil, "store_foreign" }, { response, err.code })
  end)

  it("reports a dictionary that is full", function()
    function dict:safe_set() return nil, "no memory" end
    local response, err = open_it()
    assert.same({ nil, "store_failed" }, { response, err.code })
    assert.truthy(err.message:find("no memory", 1, true))
    assert.is_nil(dict.values["opensandbox:locked:lock"])
  end)
end)

describe("The rules of pools", function()
  it("use no global variable, as Redis demands", function()
    -- rules.apply runs them in an environment that has nothing else.
    assert.truthy(rules.apply({}, { step = "open", url = URL, token = "t", min_idle = 0, max_size = 1 }, 0).epoch)
  end)

  it("refuse a text that is no pool, and leave it as it is", function()
    for _, text in ipairs {
      "", "no JSON", "no JSON\n", "[]", "5\n", '{"a":1}\n', '{"format":"opensandbox-pool-1"}\nt busy 5\n', "{}\nt busy x {}\n",
    } do
      local changed, response = rules.apply_text(text, { step = "open", url = URL, token = "t", min_idle = 0, max_size = 1 }, 0)
      assert.is_nil(changed)
      assert.is_string(response.foreign, text)
    end
    local one = rules.apply_text(nil, { step = "open", url = URL, token = "t", min_idle = 0, max_size = 1 }, 0)
    local changed, response = rules.apply_text(one .. "t busy 5 {}\n", { step = "reap", token = "u", url = URL, reaped = 0 }, 9)
    assert.is_nil(changed)
    assert.is_string(response.foreign)
    changed = rules.apply_text(nil, { step = "open", url = URL, token = "t", min_idle = 0, max_size = 1 }, 0)
    assert.equal(URL, json.decode(changed:match("^[^\n]*")).url)
  end)
end)

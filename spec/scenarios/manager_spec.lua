--- Many sandboxes under one eye, as the official end-to-end suites try it: tests/go manager and concurrent_e2e; tests/python
--- test_sandbox_manager_e2e 01 and 02, and test_sandbox_pool_e2e (without Redis); tests/javascript test_sandbox_e2e 01g and
--- test_sandbox_manager_e2e 01 to 03.

local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"

local fixture, client

setup(function()
  fixture = Fixture.new()
  client = fixture.client
end)
teardown(function() fixture:close() end)

local function ids(list)
  local found = {}
  for _, info in ipairs(list) do found[info.id] = true end
  return found
end

describe("a list of sandboxes", function()
  local one, two, three

  setup(function()
    one = fixture:create { metadata = { suite = "manager", team = "t1", env = "prod" } }
    two = fixture:create { metadata = { suite = "manager", team = "t1", env = "dev" } }
    three = fixture:create { metadata = { suite = "manager", env = "prod" } }
    assert(three:pause())
  end)
  teardown(function()
    for _, sandbox in ipairs { one, two, three } do assert(sandbox:kill()) end
  end)

  local function found(filter)
    local list = ids(assert(client:list_sandboxes(filter)))
    return { list[one.id] or false, list[two.id] or false, list[three.id] or false }
  end

  it("has them all, with what is known of each", function()
    assert.same({ true, true, true }, found())
    for _, info in ipairs(assert(client:list_sandboxes())) do
      assert.truthy(info.id ~= "" and info.state ~= "")
    end
    local info = assert(client:get_sandbox(one.id))
    assert.same({ one.id, "Running" }, { info.id, info.state })
  end)

  it("by states has those in any of them", function()
    assert.same({ true, true, true }, found { states = { "Running", "Paused" } })
    assert.same({ false, false, true }, found { states = { "Paused" } })
    assert.same({ true, true, false }, found { states = { "Running" } })
  end)

  it("by metadata has those that fit in all of them", function()
    assert.same({ true, true, false }, found { metadata = { suite = "manager", team = "t1" } })
    assert.same({ true, false, false }, found { metadata = { team = "t1", env = "prod" } })
    assert.same({ true, false, true }, found { metadata = { suite = "manager", env = "prod" } })
    assert.same({ false, false, false }, found { metadata = { team = "t1", env = "no-such-env" } })
  end)

  it("by both has those that fit in both", function()
    assert.same({ false, false, true }, found { metadata = { env = "prod" }, states = { "Paused" } })
  end)

  it("comes whole, in pages of any size, or as one page", function()
    assert.same({ true, true, true }, found { page_size = 1 })
    local first = assert(client:list_sandboxes { metadata = { suite = "manager" }, page = 1, page_size = 2 })
    local second = assert(client:list_sandboxes { metadata = { suite = "manager" }, page = 2, page_size = 2 })
    assert.same({ 2, 1 }, { #first, #second })
  end)

  it("is gone over as sandboxes", function()
    local seen = {}
    for sandbox, info in client:sandboxes { metadata = { suite = "manager" } } do
      assert.equal(sandbox.id, info.id)
      seen[#seen + 1] = sandbox.id
    end
    assert.same({ three.id, two.id, one.id }, seen)
  end)
end)

describe("metadata", function()
  it("are changed, added to and removed by a patch, and lists follow", function()
    local sandbox = fixture:create { metadata = { stage = "one", old = "yes" } }
    local info = assert(sandbox:patch_metadata { stage = "two", added = "new", old = false })
    assert.same({ stage = "two", added = "new" }, info.metadata)
    assert.same({ stage = "two", added = "new" }, assert(sandbox:info()).metadata)
    assert.is_true(ids(assert(client:list_sandboxes { metadata = { added = "new" } }))[sandbox.id])
    assert.is_nil(ids(assert(client:list_sandboxes { metadata = { old = "yes" } }))[sandbox.id])
    assert(sandbox:kill())
  end)

  it("that are no labels are refused by the server, at the create and at the patch", function()
    for _, metadata in ipairs { { key = "-" }, { key = "a b" }, { ["-key"] = "x" }, { ["opensandbox.io/x"] = "x" },
      { key = ("x"):rep(64) } } do
      local sandbox, err = client:create(Fixture.create_options { metadata = metadata })
      assert.is_nil(sandbox)
      assert.equal(400, err.status)
      local info
      info, err = fixture.sandbox:patch_metadata(metadata)
      assert.is_nil(info)
      assert.equal(400, err.status)
    end
  end)
end)

describe("a sandbox known by its id alone", function()
  it("is paused, resumed, renewed and killed", function()
    local id = fixture:create():detach().id
    assert(client:pause_sandbox(id))
    assert.equal("Paused", assert(client:get_sandbox(id)).state)
    assert(client:resume_sandbox(id))
    assert.equal("Running", assert(client:get_sandbox(id)).state)
    assert.is_true(assert(client:renew_sandbox(id, 300)) > 0)
    assert(client:delete_sandbox(id))
    local _, err = client:get_sandbox(id)
    assert.equal(404, err.status)
  end)

  it("that is not valid, or of none, is refused", function()
    for _, id in ipairs { "", "." } do
      assert.has_error(function() client:get_sandbox(id) end)
      assert.has_error(function() client:pause_sandbox(id) end)
    end
    for _, method in ipairs { "get_sandbox", "pause_sandbox", "resume_sandbox" } do
      local value, err = client[method](client, "no such/id?")
      assert.is_nil(value)
      assert.equal(404, err.status)
    end
  end)
end)

describe("five sandboxes at once", function()
  it("are all made, each says its own word, and all are ended", function()
    local results, errors = opensandbox.map({ 1, 2, 3, 4, 5 }, function(number)
      local sandbox = assert(client:create(Fixture.create_options { metadata = { batch = "five" } }))
      return assert(sandbox:run("echo sandbox-" .. number)).stdout
    end)
    assert.is_nil(errors)
    assert.same({ "sandbox-1\n", "sandbox-2\n", "sandbox-3\n", "sandbox-4\n", "sandbox-5\n" }, results)
    collectgarbage()
    assert(client:kill_all { metadata = { batch = "five" } })
    assert.same({}, assert(client:list_sandboxes { metadata = { batch = "five" } }))
  end)
end)

describe("a pool", function()
  local function listed()
    return #assert(client:list_sandboxes { metadata = { of = "pool" } })
  end

  local function pool(options)
    local all = Fixture.create_options { metadata = { of = "pool" } }
    for name, value in pairs(options) do all[name] = value end
    return client:pool(all)
  end

  it("is warm when it was filled: its sandboxes are handed out at once, and it is filled again", function()
    local warmed = 0
    local warm = pool { min_idle = 2, max_size = 4, warm_up = function(sandbox)
      warmed = warmed + 1
      return sandbox.files:write("/work/warm.txt", "warm")
    end }
    assert(warm:fill())
    assert.same({ 2, 0 }, { warm:stats().idle, warm:stats().busy })
    assert.equal(2, listed())
    local sandbox = assert(warm:acquire())
    assert.equal("warm", assert(sandbox.files:read("/work/warm.txt")))
    assert.equal("pool-ok\n", assert(sandbox:run("echo pool-ok")).stdout)
    assert(warm:fill())
    assert.same({ 2, 1 }, { warm:stats().idle, warm:stats().busy })
    assert.equal(3, warmed)
    assert(warm:release(sandbox))
    assert(warm:close())
    assert.equal(0, listed())
  end)

  it("passes over an idle sandbox that died, and gives another", function()
    local stale = pool { min_idle = 1, max_size = 3 }
    assert(stale:fill())
    local dead = assert(client:list_sandboxes { metadata = { of = "pool" } })[1].id
    assert(client:delete_sandbox(dead))
    local sandbox = assert(stale:acquire())
    assert.not_equal(dead, sandbox.id)
    assert.equal("alive\n", assert(sandbox:run("echo alive")).stdout)
    assert(stale:close())
    assert(sandbox:kill())
  end)

  it("gives each of many at once one of their own, and never more than there may be", function()
    local busy = pool { min_idle = 0, max_size = 3 }
    local most, seen = 0, {}
    local results, errors = opensandbox.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(number)
      return busy:with(function(sandbox)
        assert.is_nil(seen[sandbox.id])
        seen[sandbox.id] = true
        most = math.max(most, busy:stats().busy)
        return assert(sandbox:run("echo " .. number)).stdout
      end)
    end)
    assert.is_nil(errors)
    assert.equal("8\n", results[8])
    assert.is_true(most <= 3)
    assert(busy:close())
  end)

  it("of which all places are taken says so when its time is over", function()
    local full = pool { min_idle = 0, max_size = 1 }
    local sandbox = assert(full:acquire())
    local none, err = full:acquire { timeout = 0.2 }
    assert.is_nil(none)
    assert.same({ "timeout", "pool_exhausted" }, { err.kind, err.code })
    assert(full:release(sandbox))
    local next_one = assert(full:acquire())
    assert.not_equal(sandbox.id, next_one.id)
    assert(full:close())
    assert(next_one:kill())
  end)

  it("that cannot make any says why", function()
    local broken = pool { image = "nope/missing", min_idle = 1, max_size = 1 }
    local sandbox, err = broken:acquire()
    assert.is_nil(sandbox)
    assert.same({ 500, "DOCKER::SANDBOX_IMAGE_PULL_FAILED" }, { err.status, err.code })
    assert(broken:close())
  end)

  it("that is closed gives none, and closing it again does nothing", function()
    local ended = pool { min_idle = 1 }
    assert(ended:close())
    assert(ended:close())
    local sandbox, err = ended:acquire()
    assert.is_nil(sandbox)
    assert.equal("closed", err.kind)
    assert.equal(0, listed())
  end)
end)

--- What happens to a sandbox between its creation and its end: it is paused, labelled, copied, measured.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local fixtures = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

for _, isolation in ipairs { "auto", "none" } do
  describe("a sandbox, with isolation " .. isolation .. ",", function()
    local server, client, sandbox

    setup(function()
      server = process.devserver { grace = 0.1, isolation = isolation }
      client = opensandbox.new(server.url, server.key)
    end)
    teardown(function()
      client:close()
      server:stop()
    end)
    before_each(function() sandbox = assert(client:create { image = "any" }) end)
    after_each(function() assert(sandbox:kill()) end)

    it("stands still while it is paused, and goes on where it was", function()
      local count = opensandbox.spawn(function()
        return sandbox:run("for i in 1 2 3 4 5 6 7 8; do echo $i; echo $i > tmp/count; sleep 0.05; done")
      end)
      while not sandbox.files:exists("/tmp/count") do opensandbox.sleep(0.01) end
      assert(sandbox:pause())
      assert.equal("Paused", sandbox:info().state)

      local _, err = sandbox:pause()
      assert.equal(409, err.status)
      assert.is_false(count:done())
      assert.is_nil((count:wait(0.6)))  -- longer than it would have needed
      assert.is_false(count:done())

      assert(sandbox:resume())
      assert.equal("Running", sandbox:info().state)
      local result = assert(count:wait())
      assert.same({ 0, "1\n2\n3\n4\n5\n6\n7\n8\n" }, { result.exit_code, result.stdout })
      _, err = sandbox:resume()
      assert.equal("DOCKER::SANDBOX_NOT_PAUSED", err.code)
    end)

    it("answers what it was asked while it was paused, once it goes on", function()
      assert(sandbox:pause())
      local asked = opensandbox.spawn(function() return client:run_command(client:discover_execd(sandbox.id), "echo back") end)
      assert.is_nil((asked:wait(0.2)))
      assert(sandbox:resume())
      assert.equal("back\n", assert(asked:wait()).stdout)
    end)

    it("can be killed while it is paused", function()
      local waiting = opensandbox.spawn(function() return sandbox:run("sleep 100") end)
      opensandbox.sleep(0.1)
      assert(sandbox:pause())
      local began = core.now()
      assert(sandbox:kill())
      assert.is_true(core.now() - began < 2)
      local _, err = waiting:wait()
      assert.same({ "state", "sandbox_gone", "stream" }, { err.kind, err.code, err.cause.kind })
    end)

    it("refuses commands at once, with what to do, when one connects to it while it is paused", function()
      assert(sandbox:pause())
      local _, err = client:connect(sandbox.id)
      assert.same({ "state", "sandbox_paused" }, { err.kind, err.code })
      assert.equal("Resume it first: client:resume_sandbox(id), or sandbox:resume()", err.hint)
    end)

    it("lives on in a snapshot, after its own end", function()
      assert(sandbox.files:write("/work/kept.txt", "kept", { mode = "0640" }))
      assert(sandbox:run("ln -s kept.txt work/link"))
      local snapshot = assert(sandbox:snapshot("first"))
      assert.same({ "Ready", "first", sandbox.id }, { snapshot.state, snapshot.name, snapshot.sandbox_id })
      assert(sandbox.files:write("/work/kept.txt", "changed"))
      assert(sandbox:kill())

      local again = assert(client:create { snapshot_id = snapshot.id })
      assert.equal("kept", assert(again.files:read("/work/kept.txt")))
      assert.equal("0640", assert(again.files:stat("/work/kept.txt")).mode)
      assert.equal("symlink", assert(again.files:stat("/work/link")).type)
      assert.equal(snapshot.id, assert(again:info()).snapshot_id)
      assert(again:kill())

      assert.equal(1, #assert(client:list_snapshots { name = "first" }))
      assert.same({}, assert(client:list_snapshots { name = "second" }))
      assert.same({}, assert(client:list_snapshots { sandbox_id = "another" }))
      assert.equal(1, #assert(client:list_snapshots { sandbox_id = sandbox.id, states = { "Ready" } }))
      assert(client:delete_snapshot(snapshot.id))
      assert(client:delete_snapshot(snapshot.id))
      local _, err = client:create { snapshot_id = snapshot.id }
      assert.equal("SNAPSHOT::NOT_FOUND", err.code)
    end)

    it("makes no snapshot for a wrong option", function()
      local ok, problem = pcall(sandbox.snapshot, sandbox, "unwanted", { timout = 1 })
      assert.is_false(ok)
      assert.truthy(problem:find("sandbox:snapshot: unknown option 'timout' (did you mean 'timeout'?)", 1, true), problem)
      assert.same({}, assert(client:list_snapshots { sandbox_id = sandbox.id }))
    end)

    it("carries metadata that can be changed", function()
      assert(sandbox:patch_metadata { ["example.com/team"] = "core", stage = "one" })
      local info = assert(sandbox:patch_metadata { stage = false })
      assert.same({ ["example.com/team"] = "core" }, info.metadata)
      assert.equal(sandbox.id, assert(client:list_sandboxes { metadata = info.metadata })[1].id)
    end)

    it("has files that can be moved, changed and made", function()
      assert(sandbox.files:mkdir("/work/a/b", { mode = "0700" }))
      assert.equal("0700", assert(sandbox.files:stat("/work/a/b")).mode)
      assert(sandbox.files:write("/work/x", "one two one"))
      assert.equal(2, assert(sandbox.files:replace("/work/x", "one", "1")))
      assert.equal(0, assert(sandbox.files:replace("/work/x", "three", "3")))
      assert(sandbox.files:chmod("/work/x", "rw-------"))
      assert(sandbox.files:move("/work/x", "/work/a/b/new/x"))
      assert.equal("1 two 1", assert(sandbox.files:read("/work/a/b/new/x")))
      assert.equal("0600", assert(sandbox.files:stat("/work/a/b/new/x")).mode)
      local _, err = sandbox.files:move("/work/none", "/work/y")
      assert.same({ "FILE_NOT_FOUND", "files:move" }, { err.code, err.op })
      assert.equal("directory_not_empty", (select(2, sandbox.files:rmdir("/work/a/b/new"))).code)
      assert(sandbox.files:remove("/work/a/b/new/x"))
      assert(sandbox.files:rmdir("/work/a/b/new"))
      assert.is_false(sandbox.files:exists("/work/a/b/new"))
    end)
  end)
end

describe("metrics", function()
  local fixture, client, sandbox

  setup(function()
    fixture = fixtures.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("are those of this moment, or come as a stream until it is closed", function()
    local function check(metrics)
      assert.is_true(metrics.cpu_count >= 1 and metrics.cpu_used_percent >= 0 and metrics.cpu_used_percent <= 100)
      assert.is_true(metrics.memory_total > metrics.memory_used and metrics.memory_used > 0)
      assert.is_true(math.abs(metrics.time - core.wall_clock()) < 10)
    end
    check(assert(sandbox:metrics()))
    local watch = assert(client:watch_metrics(assert(client:discover_execd(sandbox.id))))
    check(watch:events()())
    watch:close()
    local _, err = watch:next()
    assert.equal("closed", err.kind)
    assert.has_error(function() watch:events()() end)
  end)
end)

describe("many sandboxes", function()
  it("can be gone over and ended by what they have in common", function()
    local server = process.devserver()
    local client = opensandbox.new(server.url, server.key)
    local ids = {}
    for i = 1, 5 do
      ids[i] = assert(client:create { image = "any", metadata = { batch = i < 5 and "one" or "two" } }):detach().id
    end
    local found = {}
    for sandbox, info in client:sandboxes { metadata = { batch = "one" } } do
      assert.equal(sandbox.id, info.id)
      assert.equal("hello\n", assert(sandbox:run("echo hello")).stdout)
      found[#found + 1] = sandbox.id
    end
    assert.same({ ids[4], ids[3], ids[2], ids[1] }, found)
    assert.equal(4, assert(client:kill_all { metadata = { batch = "one" } }))
    assert.equal(0, assert(client:kill_all { metadata = { batch = "one" } }))
    assert.has_error(function() client:kill_all() end)
    assert.equal(ids[5], assert(client:list_sandboxes())[1].id)
    assert.equal(1, assert(client:kill_all {}))
    client:close()
    server:stop()
    local dead = opensandbox.new(server.url, server.key, { retry = false })
    local _, err = dead:kill_all {}
    assert.equal("transport", err.kind)
    assert.is_false((pcall(dead.sandboxes, dead)))
    dead:close()
  end)
end)

describe("ending many sandboxes", function()
  it("has one time limit", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.method == "DELETE" then return connection:silence() end
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"items":[{"id":"a"},{"id":"b"}]}')
      end
    ]]
    local client = opensandbox.new(server.url, "")
    local began = core.now()
    local count, err = client:kill_all { timeout = 0.3 }
    assert.is_nil(count)
    assert.is_true(core.now() - began < 2)
    assert.same({ "timeout", "timeout", "kill_all" }, { err.kind, err.timeout_option, err.op })
    assert.truthy(err.message:find("timeout of 0.3 s", 1, true), err.message)
    client:close()
    server:stop()
  end)

  it("begins no delete after its time limit, and is named by the error when it is cancelled", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.method == "DELETE" then return connection:after(100, function() connection:respond(204, {}, "") end) end
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"items":[{"id":"a"},{"id":"b"},{"id":"c"}]}')
      end
    ]]
    local deletes, limit = 0, core.now() + 0.4
    local client = opensandbox.new(server.url, "", { on_request = function(request)
      if request.method ~= "DELETE" then return end
      deletes = deletes + 1
      while core.now() < limit do end -- luacheck: ignore 542
    end })
    local count, err = client:kill_all { timeout = 0.3 }
    assert.is_nil(count)
    assert.same({ "timeout", "kill_all" }, { err.kind, err.op })
    assert.equal(1, deletes)
    local task = opensandbox.spawn(client.kill_all, client, {})
    while deletes < 4 do opensandbox.sleep(0.01) end
    task:cancel()
    count, err = task:wait(10)
    assert.is_nil(count)
    assert.same({ "cancelled", "kill_all" }, { err.kind, err.op })
    client:close()
    server:stop()
  end)
end)

describe("a server", function()
  it("tells its version and whether it is well, below whatever path its API lies", function()
    local server = process.devserver()
    for _, path in ipairs { "", "/v1", "/v1/" } do
      local client = opensandbox.new(server.url .. path, server.key)
      assert.is_true(client:health())
      assert.matches("^%d+%.%d+", (assert(client:get_version())))
      client:close()
    end
    server:stop()
  end)
end)

describe("a call of the lifecycle API", function()
  local T = { timeout = 0.2 }
  local CAPACITY = { buffer_min = 0, buffer_max = 1, pool_min = 0, pool_max = 1 }
  local calls = {
    get_sandbox = { "a", T }, list_sandboxes = { T }, delete_sandbox = { "a", T }, renew_sandbox = { "a", 60, T },
    pause_sandbox = { "a", T }, resume_sandbox = { "a", T }, patch_metadata = { "a", { b = "c" }, T },
    get_endpoint = { "a", 80, T },
    discover_execd = { "a", T }, discover_egress = { "a", T }, wait_ready = { "a", T }, health = { T }, get_version = { T },
    record_create_event = { { success = true, duration = 1 }, T },
    create_snapshot = { "a", T }, get_snapshot = { "a", T },
    list_snapshots = { T }, delete_snapshot = { "a", T }, wait_snapshot = { "a", T }, get_diagnostic_logs = { "a", "all", T },
    get_diagnostic_events = { "a", "all", T },
    list_pools = { T }, get_pool = { "a", T }, update_pool = { "a", CAPACITY, T }, delete_pool = { "a", T },
    create_pool = { { name = "a", template = {}, capacity = CAPACITY, timeout = T.timeout } },
  }
  local server, client

  setup(function()
    server = fault_server.start [[ return function(_, connection) connection:silence() end ]]
    client = opensandbox.new(server.url, "")
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  for method, arguments in pairs(calls) do
    it(("ends after its timeout, and names that option: %s"):format(method), function()
      local began = core.now()
      local value, err = client[method](client, (table.unpack or unpack)(arguments)) -- luacheck: std max
      assert.is_nil(value)
      assert.is_true(core.now() - began < 2)
      assert.same({ "timeout", "timeout", method }, { err.kind, err.timeout_option, err.op })
      assert.truthy(err.message:find("timeout of 0.2 s", 1, true), err.message)
    end)
  end
end)

describe("an option that an older server would pass over", function()
  local function create_on(answer)
    local server = fault_server.start(([[
      local answer = ANSWER
      return function(request, connection)
        state[request.path] = (state[request.path] or 0) + 1
        local body = request.path == "/version" and answer or '{"id":"a","status":{"state":"Running"}}'
        local status = body == "" and 404 or 200
        if status == 404 then body = '{"detail":"Not Found"}' end
        connection:respond(status, { ["Content-Type"] = "application/json" }, body)
      end
    ]]):gsub("ANSWER", function() return ("%q"):format(answer) end))
    local client = opensandbox.new(server.url, "", { retry = false })
    local made, err
    for _ = 1, 2 do made, err = client:create_sandbox { image = "x", lifecycle = { pre_start = { command = { "true" } } } } end
    assert(client:create_sandbox { image = "x", resource_requests = { cpu = "1" } })
    local asked = server:state()
    client:close()
    server:stop()
    return made, err, asked
  end

  it("is an error that says so, and the server's version is asked for once", function()
    for _, answer in ipairs { "", '{"version":"0.2.2"}' } do
      local made, err, asked = create_on(answer)
      assert.is_nil(made)
      assert.same({ "state", "unsupported", "create_sandbox" }, { err.kind, err.code, err.op })
      assert.is_truthy(err.message:find("'lifecycle'", 1, true) and err.message:find("0.2.3", 1, true))
      assert.same({ ["/version"] = 1, ["/v1/sandboxes"] = 1 }, asked)
    end
  end)

  it("is sent to a server that has it, or that does not tell its release", function()
    for _, answer in ipairs { '{"version":"0.2.3"}', '{"version":"1.2.0"}', '{"version":"0.1.0.dev0"}' } do
      local made, _, asked = create_on(answer)
      assert.equal("a", made.id)
      assert.same({ ["/version"] = 1, ["/v1/sandboxes"] = 3 }, asked)
    end
  end)
end)

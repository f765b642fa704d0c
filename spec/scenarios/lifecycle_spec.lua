--- The life of a sandbox, as the official end-to-end suites try it: tests/go sandbox_e2e, e2e and error_handling; tests/python
--- test_sandbox_e2e 01, the first 01b, 05, 06 and 07; tests/javascript test_sandbox_e2e 01, the first 01b, 05, 06, and
--- test_wait_until_ready_diagnostics. Snapshots: the C# and Java suites.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"

local DAY = 24 * 3600

local fixture, client, sandbox

setup(function()
  fixture = Fixture.new { metadata = { tag = "e2e-test" }, timeout = 120, entrypoint = { "tail", "-f", "/dev/null" } }
  client, sandbox = fixture.client, fixture.sandbox
end)
teardown(function() fixture:close() end)

describe("a sandbox that was created", function()
  it("is well: it runs, its execd answers, and its info is what was asked for", function()
    assert(client:ping(fixture:execd()))
    local info = assert(sandbox:info())
    assert.equal(sandbox.id, info.id)
    assert.equal("Running", info.state)
    assert.equal("python:3.12", info.image)
    assert.same({ "tail", "-f", "/dev/null" }, info.entrypoint)
    assert.same({ tag = "e2e-test" }, info.metadata)
    assert.is_true(info.expires_at > info.created_at)
    assert.is_true(math.abs(info.expires_at - info.created_at - 120) < 2)
  end)

  it("has an endpoint for execd, and for any port", function()
    local execd = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
    assert.truthy(execd.url:find("44772$"))
    assert.not_equal("", assert(sandbox:endpoint(8080)).host)
  end)

  it("says what its machine has, in sensible numbers", function()
    local metrics = assert(sandbox:metrics())
    assert.is_true(metrics.cpu_count > 0)
    assert.is_true(metrics.cpu_used_percent >= 0 and metrics.cpu_used_percent <= 100)
    assert.is_true(metrics.memory_total > 0)
    assert.is_true(metrics.memory_used > 0 and metrics.memory_used <= metrics.memory_total)
    local age = core.wall_clock() - metrics.time
    assert.is_true(age > -60 and age < 60)
  end)

  it("lives longer when it is renewed: what the server then says is what it answered", function()
    local one = fixture:create { timeout = 120 }
    local before = assert(one:info()).expires_at
    local renewed = assert(one:renew(900))
    assert.is_true(renewed > before)
    assert.is_true(math.abs(renewed - core.wall_clock() - 900) < 10)
    assert.is_true(math.abs(assert(one:info()).expires_at - renewed) < 0.01)
    assert(one:kill())
  end)

  it("can be connected to by its id, and is the same", function()
    local other = fixture:another_client()
    local connected = assert(other:connect(sandbox.id))
    assert.equal(sandbox.id, connected.id)
    local result = assert(connected:run("echo connect-ok"))
    assert.same({ "connect-ok\n", 0 }, { result.stdout, result.exit_code })
    assert(connected:close())
    assert.equal("Running", assert(sandbox:info()).state)
  end)

  it("is driven to its end route by route", function()
    local id = assert(client:create_sandbox(Fixture.create_options { timeout = 60 })).id
    local info = assert(client:wait_ready(id))
    assert.equal("Running", info.state)
    local execd = assert(client:discover_execd(id))
    assert(client:ping(execd))
    assert.equal("hello from e2e\n", assert(client:run_command(execd, "echo hello from e2e")).stdout)
    assert.is_true(assert(client:get_metrics(execd)).cpu_count > 0)
    assert(client:delete_sandbox(id))
    local gone, err = client:get_sandbox(id)
    assert.is_nil(gone)
    assert.equal(404, err.status)
  end)

  it("is gone after it was killed, and killing it again is no error", function()
    local one = fixture:create()
    assert(one:kill())
    local _, err = client:get_sandbox(one.id)
    assert.equal(404, err.status)
    assert(client:delete_sandbox(one.id))
  end)
end)

describe("a sandbox for manual cleanup", function()
  it("never expires", function()
    local one = fixture:create { timeout = false }
    assert.is_nil(assert(one:info()).expires_at)
    assert.equal(0, assert(one:run("true")).exit_code)
    assert(one:kill())
  end)
end)

describe("a paused sandbox", function()
  it("says so, goes on when it is resumed, and has kept its processes and files", function()
    local one = fixture:create()
    assert(one.files:write("/work/kept.txt", "kept"))
    local command = assert(one:start("sleep 300"))
    assert(one:pause())
    assert.equal("Paused", assert(one:info()).state)
    assert(one:resume())
    assert.equal("Running", assert(one:info()).state)
    assert(client:ping(assert(client:discover_execd(one.id))))
    assert.equal("kept", assert(one.files:read("/work/kept.txt")))
    assert.is_true(assert(command:status()).running)
    assert.equal("resumed\n", assert(one:run("echo resumed")).stdout)
    assert(one:kill())
  end)
end)

describe("a snapshot", function()
  it("is made, is ready, is listed, begins another sandbox with its files, and is deleted", function()
    assert(sandbox.files:write("/work/snapshot.txt", "from before"))
    local info = assert(sandbox:snapshot("e2e-snapshot"))
    assert.same({ "Ready", "e2e-snapshot", sandbox.id }, { info.state, info.name, info.sandbox_id })
    local listed = assert(client:list_snapshots { sandbox_id = sandbox.id })
    assert.same({ info.id }, { listed[1].id, listed[2] })
    local one = assert(client:create { snapshot_id = info.id })
    assert.equal("from before", assert(one.files:read("/work/snapshot.txt")))
    assert(one:kill())
    assert(client:delete_snapshot(info.id))
    local _, err = client:get_snapshot(info.id)
    assert.equal(404, err.status)
  end)
end)

describe("an id that nobody has", function()
  local UNKNOWN = "00000000-0000-0000-0000-000000000000"

  for name, call in pairs {
    ["is not found"] = function() return client:get_sandbox(UNKNOWN) end,
    ["cannot be connected to"] = function() return client:connect(UNKNOWN) end,
    ["has no endpoint"] = function() return client:get_endpoint(UNKNOWN, 44772) end,
    ["cannot be renewed"] = function() return client:renew_sandbox(UNKNOWN, 60) end,
    ["cannot be paused"] = function() return client:pause_sandbox(UNKNOWN) end,
    ["cannot be resumed"] = function() return client:resume_sandbox(UNKNOWN) end,
    ["has no metadata to change"] = function() return client:patch_metadata(UNKNOWN, { a = "b" }) end,
    ["has no snapshot"] = function() return client:create_snapshot(UNKNOWN) end,
  } do
    it(name .. ": an error with status 404 and the server's code", function()
      local value, err = call()
      assert.is_nil(value)
      assert.is_true(opensandbox.is_error(err))
      assert.equal(404, err.status)
      local answer = err.kind == "state" and err.cause or err -- connect says what a 404 means
      assert.truthy(answer.code:find("NOT_FOUND", 1, true), answer.code)
    end)
  end
end)

describe("the id of a request", function()
  it("that the caller chose is in the error", function()
    local tagged = fixture:another_client { headers = { ["X-Request-ID"] = "e2e-request-0001" } }
    local _, err = tagged:get_sandbox("missing")
    assert.same({ 404, "e2e-request-0001" }, { err.status, err.request_id })
    assert.truthy(tostring(err):find("e2e-request-0001", 1, true))
  end)

  it("that the server chose is there, too", function()
    local _, err = client:get_sandbox("missing")
    assert.truthy(err.request_id and #err.request_id > 0)
  end)
end)

describe("a sandbox that does not become ready", function()
  it("is an error that says how long was waited, what the state is, what the last try said and what to do", function()
    local server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      return function(request, connection)
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd" })
        elseif request.path == "/execd/ping" then
          return connection:respond(503, JSON, '{"code":"NOT_YET","message":"execd is not there yet"}')
        end
        connection:respond(request.method == "POST" and 202 or 200, JSON, '{"id":"ID","status":{"state":"Running"}}')
      end
    ]]
    local own = opensandbox.new(server.url, "", { retry = false })
    local one, err = own:create { image = "x", ready_timeout = 0.3 }
    assert.is_nil(one)
    assert.same({ "timeout", "not_ready", "ready_timeout" }, { err.kind, err.code, err.timeout_option })
    for _, part in ipairs { "ready_timeout of 0.3 s ran out", "the state is Running", "execd is not there yet" } do
      assert.truthy(err.message:find(part, 1, true), err.message)
    end
    assert.truthy(err.hint:find("use_server_proxy", 1, true))
    local deleted = false
    for _, request in ipairs(server:requests()) do deleted = deleted or request.method == "DELETE" end
    assert.is_true(deleted)
    own:close()
    server:stop()
  end)
end)

describe("a time to live", function()
  it("that is longer than the server allows is refused with its reason", function()
    local one, err = client:create(Fixture.create_options { timeout = 2 * DAY })
    assert.is_nil(one)
    assert.equal(400, err.status)
    assert.truthy(err.message:find("maximum", 1, true))
  end)
end)

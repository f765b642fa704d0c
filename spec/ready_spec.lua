--- The user's own check of readiness, what pings do to lifetimes, and the diagnostics of a sandbox.

local Fixture = require "spec.support.fixture"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local fixture, client

setup(function()
  fixture = Fixture.new()
  client = fixture.client
end)
teardown(function() fixture:close() end)

local function create(opts)
  return client:create(Fixture.create_options(opts))
end

describe("the option ready", function()
  it("is asked until it returns a true value, and can use the sandbox", function()
    local calls = 0
    local sandbox = assert(create { ready = function(sandbox)
      calls = calls + 1
      return assert(sandbox:run("echo x >> ./tmp/asked; wc -l < ./tmp/asked")).stdout:find("3") ~= nil
    end })
    assert.equal(3, calls)
    assert.equal("x\nx\nx\n", assert(sandbox.files:read("/tmp/asked")))
    sandbox:kill()
  end)

  it("fails with the last thing that was wrong, and leaves no sandbox behind", function()
    local id
    local sandbox, err = create { ready_timeout = "500ms", ready = function(sandbox)
      id = sandbox.id
      return sandbox.files:read("/no/such/file")
    end }
    assert.is_nil(sandbox)
    assert.same({ "timeout", "not_ready", "ready_timeout", "create", id },
      { err.kind, err.code, err.timeout_option, err.op, err.sandbox_id })
    assert.same({ "files:read", 404 }, { err.cause.op, err.cause.status })
    assert.truthy(err.message:find("the state is Running, and the last attempt failed: ", 1, true), err.message)
    assert.is_nil(err.hint:find("cannot be reached", 1, true), err.hint)
    assert.equal(404, (select(2, client:get_sandbox(id))).status)

    local _
    _, err = create { ready_timeout = 0.3, ready = function() return false, "still loading" end }
    assert.truthy(err.message:find("the function ready returned false, still loading", 1, true), err.message)
  end)

  it("passes its error on, and leaves no sandbox behind", function()
    local id
    local ok, message = pcall(create, { ready = function(sandbox)
      id = sandbox.id
      error("broken check", 0)
    end })
    assert.same({ false, "broken check" }, { ok, message })
    assert.equal(404, (select(2, client:get_sandbox(id))).status)
  end)

  it("ends at once when the sandbox has ended", function()
    local sandbox, err = create { ready_timeout = 60, ready = function(sandbox)
      assert(client:delete_sandbox(sandbox.id))
      return false
    end }
    assert.is_nil(sandbox)
    assert.same({ "state", "sandbox_gone" }, { err.kind, err.code }, tostring(err))
  end)

  it("is for connect and for pools, too", function()
    local asked = 0
    local function ready()
      asked = asked + 1
      return asked % 2 == 0
    end
    local again = assert(client:connect(fixture.sandbox.id, { ready = ready }))
    assert.equal(2, asked)
    assert.equal("x\n", assert(again:run("echo x")).stdout)
    local ok, message = pcall(client.connect, client, fixture.sandbox.id, { ready = function() error("broken check", 0) end })
    assert.same({ false, "broken check" }, { ok, message })
    assert(client:get_sandbox(fixture.sandbox.id))
    local pool = client:pool(Fixture.create_options { ready = ready, min_idle = 0, max_size = 1 })
    assert(pool:acquire())
    assert.equal(4, asked)
    assert(pool:close())
  end)

  it("needs the wait, and is a function", function()
    for _, wrong in ipairs { { wait = false, ready = function() end }, { ready = true } } do
      assert.has_error(function() create(wrong) end)
      assert.has_error(function() client:connect(fixture.sandbox.id, wrong) end)
    end
  end)
end)

describe("a ping", function()
  it("asks not to renew the lifetime of the sandbox, and a command does not ask that", function()
    local server = fault_server.start [[
      return function(request, connection)
        local JSON = { ["Content-Type"] = "application/json" }
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/sandbox" })
        elseif request.path == "/sandbox/ping" then
          return connection:respond(200, {}, "")
        end
        connection:respond(200, JSON, '{"id":"s","status":{"state":"Running"},"running":true}')
      end
    ]]
    local own = opensandbox.new(server.url, nil, { retry = false })
    local sandbox = assert(own:connect("s"))
    sandbox:command("c"):status()
    local seen = {}
    for _, request in ipairs(server:requests()) do
      seen[request.path] = request.headers["opensandbox-access-renew"] or "renews"
    end
    assert.same({ "skip", "renews" }, { seen["/sandbox/ping"], seen["/sandbox/command/status/c"] })
    own:close()
    server:stop()
  end)
end)

describe("diagnostics", function()
  it("are on the object, of all scopes or of one", function()
    local logs, events = assert(fixture.sandbox:logs()), assert(fixture.sandbox:events("runtime", { timeout = "20s" }))
    assert.same({ "logs", "all", "events", "runtime" }, { logs.kind, logs.scope, events.kind, events.scope })
    assert.equal("string", type(logs.content))
    local _, err = fixture.sandbox:logs("no-such-scope")
    assert.same({ "sandbox:logs", 400 }, { err.op, err.status })
    _, err = fixture.sandbox:events("no-such-scope")
    assert.equal("sandbox:events", err.op)
  end)
end)

--- When a sandbox stops answering, the server is asked why: the error says that it is gone or paused, and what to do.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a sandbox", function()
  local server, client, other

  setup(function()
    server = process.devserver { grace = 0.1 }
    client = opensandbox.new(server.url, server.key, { idle_timeout = 1 })
    other = opensandbox.new(server.url, server.key)
  end)
  teardown(function()
    client:close()
    other:close()
    server:stop()
  end)

  local function create() return assert(client:create { image = "any" }) end

  -- The error of a call during which the server does something to the sandbox, and how long the call took.
  local function interrupted(sandbox, act, call)
    opensandbox.spawn(function()
      opensandbox.sleep(0.3)
      assert(act(other, sandbox.id))
    end)
    local began = core.now()
    local result, err = call(sandbox)
    assert.is_nil(result)
    return err, core.now() - began
  end

  local calls = {
    ["sandbox:run"] = function(sandbox) return sandbox:run("echo so far; sleep 20", { timeout = 60 }) end,
    ["sandbox:wait_for_file"] = function(sandbox) return sandbox:wait_for_file("/never") end,
    ["session:run"] = function(sandbox) return assert(sandbox:session()):run("sleep 20") end,
    ["command:wait"] = function(sandbox) return assert(sandbox:start("sleep 20")):wait() end,
  }

  for op, call in pairs(calls) do
    it("that is deleted during " .. op .. " is an error that says so at once", function()
      local err, taken = interrupted(create(), other.delete_sandbox, call)
      assert.same({ "state", "sandbox_gone", op }, { err.kind, err.code, err.op })
      assert.truthy(err.hint:find("keep_alive", 1, true), err.hint)
      assert.equal("DOCKER::SANDBOX_NOT_FOUND", select(2, other:get_sandbox(err.sandbox_id)).code)
      assert.is_true(taken < 5, ("it took %.2f s"):format(taken))
    end)
  end

  it("that is deleted keeps what had arrived of a run", function()
    local err = interrupted(create(), other.delete_sandbox, calls["sandbox:run"])
    assert.equal("so far\n", err.result.stdout)
    assert.is_string(err.command_id)
    assert.is_truthy(err.cause)
  end)

  it("that is paused is an error that says so after idle_timeout, and goes on afterwards", function()
    local sandbox = create()
    local err, taken = interrupted(sandbox, other.pause_sandbox, calls["sandbox:run"])
    assert.same({ "state", "sandbox_paused", "sandbox:run" }, { err.kind, err.code, err.op })
    assert.truthy(err.hint:find("sandbox:resume()", 1, true), err.hint)
    assert.is_true(taken < 5, ("it took %.2f s"):format(taken))
    assert(sandbox:resume())
    assert.equal("back\n", assert(sandbox:run("echo back")).stdout)
    sandbox:kill()
  end)

  it("that has expired is an error that says so, for every call", function()
    local sandbox = create()
    local session = assert(sandbox:session())
    assert(other:delete_sandbox(sandbox.id))
    for op, call in pairs {
      ["sandbox:run"] = function() return sandbox:run("true") end,
      ["files:read"] = function() return sandbox.files:read("/a") end,
      ["files:write"] = function() return sandbox.files:write("/a", "x") end,
      ["session:run"] = function() return session:run("true") end,
      ["sandbox:wait_for_port"] = function() return sandbox:wait_for_port(80) end,
    } do
      local result, err = call()
      assert.is_nil(result)
      assert.same({ "state", "sandbox_gone", op }, { err.kind, err.code, err.op })
    end
    assert.is_true(session:close())
    assert.is_true(sandbox:kill())
    local _, err = assert(other:connect(sandbox.id, { wait = false })):run("true")
    assert.same({ "state", "sandbox_gone", "sandbox:run" }, { err.kind, err.code, err.op })
  end)

  it("that runs keeps the error that it had", function()
    local sandbox = create()
    local _, err = sandbox.files:read("/no/such/file")
    assert.same({ "http", "FILE_NOT_FOUND" }, { err.kind, err.code })
    local session = assert(sandbox:session())
    _, err = session:run("sleep 20", { idle_timeout = 0.2 })
    assert.same({ "timeout", "idle_timeout" }, { err.kind, err.timeout_option })
    sandbox:kill()
  end)
end)

describe("the question why a sandbox does not answer", function()
  local server, client

  setup(function()
    -- The id says what its endpoint answers. The sandbox is Running; those named deleted and resumed change after the first question.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local answers = {
        gateway = { 502, {}, "" }, ingress = { 404, {}, "OpenSandbox Ingress: sandbox x not found" },
        proxy = { 502, JSON, '{"code":"GENERAL::UNKNOWN_ERROR","message":"no connection"}' },
        execd = { 503, JSON, '{"code":"SERVICE_UNAVAILABLE","message":"no"}' }, route = { 404, {}, "404 page not found" },
        missing = { 404, JSON, '{"code":"FILE_NOT_FOUND","message":"no"}' }, mute = { 502, {}, "" },
        deleted = { 502, {}, "" }, resumed = { 502, {}, "" },
      }
      return function(request, connection)
        local id = request.path:match("^/execd/(%w+)")
        if id then return connection:respond((table.unpack or unpack)(answers[id])) end
        id = request.path:match("^/v1/sandboxes/(%w+)")
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd/" .. id })
        end
        state["asked " .. id] = (state["asked " .. id] or 0) + 1
        if id == "mute" then return connection:silence() end
        local is_first = state["asked " .. id] == 1
        connection:after(50, function()
          if id == "deleted" and not is_first then
            return connection:respond(404, JSON, '{"code":"DOCKER::SANDBOX_NOT_FOUND","message":"Sandbox deleted not found."}')
          end
          local name = id == "resumed" and is_first and "Paused" or "Running"
          connection:respond(200, JSON, json.encode { id = id, status = { state = name } })
        end)
      end
    ]]
    client = opensandbox.new(server.url, "", { retry = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  it("is asked when a gateway answers, and not when execd does", function()
    for id, is_asked in pairs { gateway = true, ingress = true, proxy = true, execd = false, route = false, missing = false } do
      local sandbox = assert(client:connect(id, { wait = false }))
      local _, err = sandbox.files:read("/a")
      assert.equal("http", err.kind, id)
      assert.equal(is_asked and 1 or nil, server:state()["asked " .. id], id)
      _, err = sandbox.files:read("/a")
      assert.equal("http", err.kind, id)
      assert.equal(is_asked and 2 or nil, server:state()["asked " .. id], id)
    end
  end)

  it("is asked again after an answer that may have changed meanwhile, and not after one that cannot", function()
    local deleted = assert(client:connect("deleted", { wait = false }))
    local codes = {}
    for i = 1, 4 do codes[i] = select(2, deleted.files:read("/a")).code end
    assert.same({ "HTTP_502", "sandbox_gone", "sandbox_gone", "sandbox_gone" }, codes)
    assert.equal(2, server:state()["asked deleted"])

    local resumed = assert(client:connect("resumed", { wait = false }))
    for i = 1, 2 do codes[i] = select(2, resumed.files:read("/a")).code end
    assert.same({ "sandbox_paused", "HTTP_502" }, { codes[1], codes[2] })
  end)

  it("waits no longer than the call may, and at least a little", function()
    local impatient = opensandbox.new(server.url, "", { retry = false, timeout = 0.1 })
    local sandbox = assert(impatient:connect("mute", { wait = false }))
    local began = core.now()
    local _, err = sandbox.files:stat "/a"
    local took = core.now() - began
    assert.equal(502, err.status, tostring(err))
    assert.is_true(took > 0.1 and took < 1.1, ("%.2f s"):format(took))
    impatient:close()
  end)

  it("is not asked about an endpoint that is a URL", function()
    local before = #server:requests()
    local _, err = client:get_metrics(server.url .. "/execd/gateway")
    assert.equal(502, err.status)
    assert.equal(before + 1, #server:requests())
  end)
end)

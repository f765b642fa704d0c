--- Waiting for a server in a sandbox to answer, and for a command to write a line.

local Fixture = require "spec.support.fixture"
local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local function fails(kind, code, ok, err)
  assert.is_nil(ok)
  assert.equal(kind, err.kind, tostring(err))
  assert.equal(code, err.code, tostring(err))
  return err
end

describe("wait_for_url", function()
  -- The endpoint of port N is this server with the path /N. "/NNN" answers with that status; "/later" with 200 from the fourth time on.
  local SERVER = [[
    local JSON = { ["Content-Type"] = "application/json" }
    local seen = {}
    return function(request, connection)
      local id, port = request.path:match("^/v1/sandboxes/([^/]+)/endpoints/(%d+)")
      if id == "absent" then return connection:respond(404, JSON, '{"code":"SANDBOX_NOT_FOUND","message":"not found"}') end
      if id then
        return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/" .. port })
      end
      id = request.path:match("^/v1/sandboxes/([^/]+)$")
      if id == "gone" then return connection:respond(404, JSON, '{"code":"SANDBOX_NOT_FOUND","message":"not found"}') end
      if id then return connection:respond(200, JSON, '{"id":"s","status":{"state":"Running"}}') end
      local path = request.path:match("^/%d+(/.*)$")
      seen[path] = (seen[path] or 0) + 1
      if path == "/later" then return connection:respond(seen[path] > 3 and 200 or 503, {}, "x") end
      if path == "/silent" and seen[path] == 1 then return connection:silence() end
      if path == "/reset" and seen[path] < 3 then return connection:reset() end
      if path == "/garbage" and seen[path] < 3 then return connection:send("no HTTP\r\n\r\n") end
      if path == "/endless" then
        connection:start(200, { ["Content-Type"] = "text/plain" })
        return connection:after(10, function() connection:send(("x"):rep(100000)) end)
      end
      local status = tonumber(path:match("^/(%d+)")) or 200
      connection:respond(status, { Location = "/elsewhere" }, status == 204 and "" or "body") -- 204 has no body
    end
  ]]
  local server, client, sandbox

  setup(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "the-key", { retry = false })
    sandbox = assert(client:connect("s", { wait = false }))
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  it("waits for an answer from 200 to 399, and for no other", function()
    assert.equal(200, assert(sandbox:wait_for_url(8080)))
    assert.equal(204, assert(sandbox:wait_for_url(8080, "/204")))
    assert.equal(302, assert(sandbox:wait_for_url(8080, "/302")))
    assert.equal(200, assert(sandbox:wait_for_url(8080, "/later", { timeout = 20, interval = 0.05 })))
    local err = fails("timeout", "not_answered", sandbox:wait_for_url(8080, "/404?a=b", { timeout = "400ms" }))
    assert.same({ "sandbox:wait_for_url", "timeout", "s" }, { err.op, err.timeout_option, err.sandbox_id })
    assert.truthy(err.message:find("timeout of 0.4 s ran out; the last answer was HTTP 404", 1, true), err.message)
  end)

  it("waits for the given status only", function()
    assert.equal(404, assert(sandbox:wait_for_url(8080, "/404", { status = 404 })))
    fails("timeout", "not_answered", sandbox:wait_for_url(8080, "/200", { status = 204, timeout = 0.3 }))
  end)

  it("goes on after requests that hang, break or are answered by garbage", function()
    local began = core.now()
    assert.equal(200, assert(sandbox:wait_for_url(8080, "/silent", { timeout = 6 })))
    assert.is_true(core.now() - began < 5)
    assert.equal(200, assert(sandbox:wait_for_url(8080, "/reset", { timeout = 20 })))
    assert.equal(200, assert(sandbox:wait_for_url(8080, "/garbage", { timeout = 20 })))
    assert.equal(200, assert(sandbox:wait_for_url(8080, "/endless", { timeout = 20 })))
  end)

  it("sends no key, and asks not to renew the lifetime", function()
    assert(sandbox:wait_for_url(9000, "/headers?x=1"))
    for _, request in ipairs(server:requests()) do
      if request.path:find("^/9000/headers") then
        assert.same({ "skip", nil }, { request.headers["opensandbox-access-renew"], request.headers["open-sandbox-api-key"] })
      end
    end
  end)

  it("ends at once when the sandbox is gone, before and after the lookup of the endpoint", function()
    for _, id in ipairs { "gone", "absent" } do
      local gone = assert(client:connect(id, { wait = false }))
      local began = core.now()
      local err = fails("state", "sandbox_gone", gone:wait_for_url(8080, "/503", { timeout = 60 }))
      assert.same({ "sandbox:wait_for_url", id }, { err.op, err.sandbox_id })
      assert.is_true(core.now() - began < 10)
    end
  end)

  it("raises for wrong arguments", function()
    for _, wrong in ipairs { { 0 }, { "80" }, { 80, "no slash" }, { 80, "/a b" }, { 80, "/a\r\nX: y" }, { 80, "/#x" }, { 80, 5 },
      { 80, "/", { status = "200" } }, { 80, "/", { timeouts = 5 } } } do
      local ok, message = pcall(sandbox.wait_for_url, sandbox, wrong[1], wrong[2], wrong[3])
      assert.is_false(ok)
      assert.truthy(message:find("sandbox:wait_for_url: ", 1, true), message)
    end
  end)
end)

describe("wait_for_log", function()
  local fixture, sandbox

  setup(function()
    fixture = Fixture.new()
    sandbox = fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("waits for a line that matches, from either stream, complete or not", function()
    local command = assert(sandbox:start("echo starting; sleep 0.3; echo 'listening on port 8123' >&2; sleep 0.2; "
      .. "printf 'name? '; sleep 30"))
    assert.equal("listening on port 8123", assert(sandbox:wait_for_log(command, "port (%d+)")))
    assert.equal("name? ", assert(sandbox:wait_for_log(command.id, "^name%? $")))
    assert.equal("name? ", assert(sandbox:wait_for_log(command, "e? ", { plain = true, timeout = "20s" })))
    local _, cursor = command:logs()
    local err = fails("timeout", "not_logged", sandbox:wait_for_log(command, "starting", { cursor = cursor, timeout = 0.4 }))
    assert.same({ "sandbox:wait_for_log", "timeout", sandbox.id }, { err.op, err.timeout_option, err.sandbox_id })
    assert.truthy(err.message:find("timeout of 0.4 s ran out", 1, true), err.message)
    assert(command:kill())
  end)

  it("ends when the command ends first", function()
    local command = assert(sandbox:start("echo failed; exit 4"))
    local err = fails("state", "command_ended", sandbox:wait_for_log(command, "listening"))
    assert.truthy(err.message:find("exit code 4", 1, true), err.message)
    assert.equal(command.id, err.command_id)
  end)

  it("names itself in the error of a request", function()
    local _, err = sandbox:wait_for_log("no-such-command", "listening")
    assert.same({ "http", "sandbox:wait_for_log" }, { err.kind, err.op })
  end)

  it("does not need long for lines without an end, and finds what is in them", function()
    local command = assert(sandbox:start("head -c 3000000 /dev/zero | tr '\\0' a; printf needle; "
      .. "head -c 100000 /dev/zero | tr '\\0' b; sleep 30"))
    local began = core.now()
    local line = assert(sandbox:wait_for_log(command, "needle", { timeout = 60 }))
    assert.truthy(line:find("needle", 1, true))
    assert.is_true(#line <= 8192)
    assert.is_true(core.now() - began < 30)
    assert(command:kill())
  end)

  it("limits the following of a command, too", function()
    local command = assert(sandbox:start("echo one; sleep 30"))
    local events = command:events { timeout = "400ms" }
    assert.equal("one\n", assert(events:next()).text)
    local began = core.now()
    local err = fails("timeout", "follow_timeout", events:next())
    assert.same({ "command:events", "timeout" }, { err.op, err.timeout_option })
    assert.is_true(core.now() - began < 5)
    assert(command:kill())
  end)

  it("raises for wrong arguments", function()
    local command = sandbox:command("c")
    for _, wrong in ipairs { { nil, "x" }, { {}, "x" }, { command, "" }, { command, "%" }, { command, "[a" }, { command, 5 },
      { command, "x", { plain = 1 } } } do
      local ok, message = pcall(sandbox.wait_for_log, sandbox, wrong[1], wrong[2], wrong[3])
      assert.is_false(ok)
      assert.truthy(message:find("^[^\n]*sandbox:wait_for_log: "), message)
    end
  end)
end)

--- Shell sessions: what lasts from one run to the next, how a run ends, and what becomes of the session.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a shell session of a sandbox", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("keeps its directory and its exported variables from one run to the next", function()
    local session = assert(sandbox:session { cwd = "/work" })
    assert.equal("opensandbox.Session: " .. session.id, tostring(session))
    local result = assert(session:run("export GREETING='hello there'; mkdir sub; cd sub; echo out; echo err >&2; echo"))
    assert.same({ 0, "out\nerr\n", "" }, { result.exit_code, result.stdout, result.stderr })
    assert.is_nil(result.id)
    local texts = {}
    result = assert(session:run({ "sh", "-c", "echo \"$GREETING\"; pwd; exit 7" }, {
      on_stdout = function(text) texts[#texts + 1] = text end }))
    assert.equal(7, result.exit_code)
    assert.matches("^hello there\n.*/work/sub\n$", result.stdout)
    assert.equal(result.stdout, table.concat(texts))
    assert.is_true(session:close())
  end)

  it("ends a run whose timeout has passed, and says that it was the timeout", function()
    local session = assert(sandbox:session())
    local result = assert(session:run("echo before; exec sleep 30", { timeout = 0.3 }))
    assert.same({ -1, "killed", true, "before\n" }, { result.exit_code, result.signal, result.timed_out, result.stdout })
    assert.equal("after\n", assert(session:run("echo after")).stdout)
    assert.is_true(session:close())
  end)

  it("is deleted by close, once, and an attached one is not", function()
    local session = assert(sandbox:session())
    local attached = assert(sandbox:session { id = session.id })
    assert.equal("1\n", assert(attached:run("echo 1")).stdout)
    assert.is_true(attached:close())
    assert.equal("2\n", assert(session:run("echo 2")).stdout)
    assert.is_true(session:close())
    assert.is_true(session:close())
    local result, err = session:run("true")
    assert.is_nil(result)
    assert.same({ "closed", "session:run", sandbox.id }, { err.kind, err.op, err.sandbox_id })
    result, err = sandbox:session({ id = session.id }):run("true")
    assert.is_nil(result)
    assert.same({ "http", 500, "session:run" }, { err.kind, err.status, err.op })
    assert.matches("context not found", err.message)
  end)

  it("stays when it is detached", function()
    local session = assert(sandbox:session())
    assert.equal(session, session:detach())
    assert.is_true(session:close())
    assert.equal("x\n", assert(sandbox:session({ id = session.id }):run("echo x")).stdout)
    assert.is_true(client:delete_session(assert(client:discover_execd(sandbox.id)), session.id))
  end)

  it("kills what runs when the task that waits is cancelled, and lives on", function()
    local session = assert(sandbox:session())
    local seen = ""
    local task = opensandbox.spawn(function()
      return session:run("echo $$; exec sleep 60", { on_stdout = function(text) seen = seen .. text end })
    end)
    wait_until(function() return seen ~= "" end)
    assert.is_true(task:cancel())
    assert.equal("cancelled", select(2, task:wait(5)).kind)
    wait_until(function() return assert(session:run("kill -0 " .. seen)).exit_code ~= 0 end, "the run goes on")
    assert.is_true(session:close())
  end)

  it("is deleted at the end of its scope, where Lua has that", function()
    local chunk = (rawget(_G, "loadstring") or load)([[
      local sandbox = ...
      local session <close> = assert(sandbox:session())
      return session.id, session:run("echo here").stdout
    ]])
    if not chunk then return pending("this Lua has no <close>") end
    local id, text = chunk(sandbox)
    assert.equal("here\n", text)
    assert.equal(500, select(2, sandbox:session({ id = id }):run("true")).status)
  end)

  it("needs no closing when its sandbox was killed", function()
    local other = assert(client:create { image = "any" })
    local session = assert(other:session())
    assert.is_true(other:kill())
    assert.is_true(session:close())
    assert.equal("closed", select(2, session:run("true")).kind)
  end)
end)

-- Events by hand.
local SERVER = [[
  local ID = "6fe55a0e-d70a-413f-92fd-fac84d87f0da"
  local function begin(connection, text)
    connection:start(200, { ["Content-Type"] = "text/event-stream" })
    connection:event { type = "init", text = ID, timestamp = 1 }
    if text then connection:event { type = "stdout", text = text, timestamp = 2 } end
    return connection
  end
  local runs = {}
  function runs.hangs(connection) begin(connection, "so far") end
  function runs.silent(connection) begin(connection, "so far") end
  function runs.mute(connection) connection:silence() end
  function runs.cut(connection) begin(connection, "so far"):finish() end
  function runs.reset(connection) begin(connection, "so far"):after(20, connection.reset) end
  function runs.empty(connection) begin(connection):finish() end
  function runs.untyped(connection)
    begin(connection, "so far"):chunk('{"code":"RUNTIME_ERROR","message":"bufio.Scanner: token too long"}'):finish()
  end
  function runs.busy(connection)
    begin(connection):chunk('{"code":"RUNTIME_ERROR","message":"error running in session. session is busy"}'):finish()
  end
  function runs.twice(connection)
    begin(connection):event { type = "execution_complete", timestamp = 5 }
    connection:event { type = "stdout", text = "too late" }
    connection:finish()
  end
  return {
    on_request = function(request, connection)
      local JSON = { ["Content-Type"] = "application/json" }
      if request.path:find("/endpoints/") then
        return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/at", headers = {} })
      elseif request.method == "DELETE" then
        if state.broken then return connection:respond(500, JSON, '{"code":"RUNTIME_ERROR","message":"no"}') end
        return connection:respond(200, {}, "")
      elseif request.method == "GET" then -- why a run failed
        return connection:respond(200, JSON, '{"id":"sb","status":{"state":"Running"}}')
      elseif request.path:find("/session$") then
        return connection:respond(200, JSON, json.encode { session_id = ID })
      end
      runs[json.decode(request.body).command](connection)
    end,
    on_close = function(connection, who)
      if who:find("^client") then state.left = (state.left or 0) + 1 end
    end,
  }
]]

describe("a run in a session", function()
  local server, client, sandbox, session
  local ID = "6fe55a0e-d70a-413f-92fd-fac84d87f0da"

  before_each(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "key", { retry = false })
    sandbox = assert(client:connect("sb", { wait = false }))
    session = assert(sandbox:session())
  end)
  after_each(function()
    client:close()
    server:stop()
  end)

  local function deletions()
    local found = {}
    for _, request in ipairs(server:requests()) do
      if request.method == "DELETE" then found[#found + 1] = request.path end
    end
    return found
  end

  local function fails(command, opts)
    local result, err = session:run(command, opts)
    assert.is_nil(result)
    assert.equal("session:run", err.op)
    assert.is_nil(err.command_id)
    return err
  end

  it("that hangs behind its timeout, for a child holds its output, is given up soon after", function()
    local began = core.now()
    local err = fails("hangs", { timeout = 0.2 })
    local taken = core.now() - began
    assert.is_true(taken > 2 and taken < 6, taken)
    assert.same({ "timeout", "timeout", "so far\n" }, { err.kind, err.timeout_option, err.result.stdout })
    assert.matches("timeout of 0.2 s ran out, and 2 s later the command's output was still open", err.message)
    assert.matches("Redirect the output", err.hint)
    wait_until(function() return server:state().left == 1 end, "the connection stays open")
    assert.same({}, deletions())
  end)

  it("that goes silent is given up by the idle clock", function()
    local err = fails("silent", { idle_timeout = 0.2 })
    assert.same({ "timeout", "idle_timeout", "so far\n" }, { err.kind, err.timeout_option, err.result.stdout })
    err = fails("mute", { idle_timeout = 0.2 })
    assert.same({ "timeout", "idle_timeout" }, { err.kind, err.timeout_option })
    assert.same({}, deletions())
  end)

  it("whose stream is cut is an error that carries what arrived", function()
    for _, command in ipairs { "cut", "reset" } do
      local err = fails(command)
      assert.same({ "stream", "cut", "so far\n" }, { err.kind, err.code, err.result.stdout })
      assert.is_nil(err.result.exit_code)
    end
    assert.matches("the event stream ended before the command did$", fails("empty").message)
  end)

  it("that execd gives up is an error", function()
    local err = fails("untyped")
    assert.same({ "state", "RUNTIME_ERROR", "so far\n" }, { err.kind, err.code, err.result.stdout })
    err = fails("busy")
    assert.same({ "state", "busy", true }, { err.kind, err.code, err.retryable })
  end)

  it("has ended with its terminal event", function()
    local result = assert(session:run("twice"))
    assert.same({ 0, "", 0.004 }, { result.exit_code, result.stdout, result.duration })
  end)

  it("checks its arguments before anything is sent", function()
    for _, case in ipairs {
      { "session:run: unknown option 'stderr'", session.run, session, "true", { stderr = true } },
      { "session:run: the command must be a string", session.run, session },
      { "sandbox:session: unknown option 'cwdd' %(did you mean 'cwd'%?%)", sandbox.session, sandbox, { cwdd = "/" } },
      { "sandbox:session: option 'cwd' is for a new session", sandbox.session, sandbox, { cwd = "/", id = "x" } },
      { "sandbox:session: option 'id' must not be", sandbox.session, sandbox, { id = ".." } },
    } do
      local ok, problem = pcall(case[2], case[3], case[4], case[5])
      assert.is_false(ok)
      assert.matches("session_spec.lua:%d+: " .. case[1], problem)
    end
  end)

  it("leaves nothing behind: a session that nobody closed is deleted when it is collected, without waiting", function()
    session = nil
    collectgarbage()
    collectgarbage()
    wait_until(function() return #deletions() == 1 end)
    assert.equal("/at/session/" .. ID, deletions()[1])
  end)

  it("leaves nothing behind: closing the client deletes the sessions that nobody closed", function()
    client:close()
    assert.same({ "/at/session/" .. ID }, deletions())
    session = nil
    collectgarbage()
    collectgarbage()
    assert.equal(1, #deletions())
  end)

  it("can be closed again where the deletion failed", function()
    local broken = fault_server.start([[state.broken = true]] .. SERVER)
    local other = opensandbox.new(broken.url, "key", { retry = false })
    local own = assert(assert(other:connect("sb", { wait = false })):session())
    for _ = 1, 2 do
      local ok, err = own:close()
      assert.is_nil(ok)
      assert.same({ "session:close", 500 }, { err.op, err.status })
    end
    own:detach()
    assert.is_true(own:close())
    other:close()
    broken:stop()
  end)
end)

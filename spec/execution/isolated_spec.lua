--- Isolated sessions: runs, runs in the background, files, and execds that have none of it.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"
local wait_until = require "spec.support.wait_until"
local temporary = require "spec.support.temporary"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("an isolated session of a sandbox", function()
  local client, sandbox, execd, fixture

  setup(function()
    fixture = Fixture.new { extensions = { ["bootstrap.execd.isolation"] = "enable" } }
    client, sandbox = fixture.client, fixture.sandbox
    execd = assert(client:discover_execd(sandbox.id))
  end)
  teardown(function() fixture:close() end)

  local function open(options)
    options = options or {}
    options.workspace = options.workspace or { path = "/workspace", mode = "rw" }
    return assert(sandbox:isolated(options))
  end

  it("can be had where the capabilities say so", function()
    local capabilities = assert(client:get_isolation_capabilities(execd))
    assert.is_true(capabilities.available)
    assert.is_false(capabilities.raw.commit_supported)
  end)

  it("keeps its directory and its variables, and gives output and exit codes", function()
    local session = open()
    assert.equal("opensandbox.Isolated: " .. session.id, tostring(session))
    local texts = {}
    local result = assert(session:run("a=1; mkdir -p sub; cd sub; echo out; echo err >&2; echo", {
      on_stdout = function(text) texts[#texts + 1] = text end }))
    assert.same({ 0, "out\nerr\n", "" }, { result.exit_code, result.stdout, result.stderr })
    assert.equal("out\nerr\n", table.concat(texts))
    assert.is_nil(result.id)
    result = assert(session:run("echo $a; pwd; (exit 3)"))
    assert.equal(3, result.exit_code)
    assert.equal("ExitError", result.error.name)
    assert.matches("^1\n.*/workspace/sub\n$", result.stdout)
    result = assert(session:run("echo $own $a; a=2", { env = { own = "mine" } }))
    assert.equal("mine 1\n", result.stdout)
    assert.equal("1\n", assert(session:run("echo $a")).stdout)
    assert.is_true(session:close())
  end)

  it("interrupts a run when its time is over or the task is cancelled, and goes on", function()
    local session = open()
    local result = assert(session:run("echo before; sleep 60", { timeout = 0.4 }))
    assert.same({ true, "before\n" }, { result.timed_out, result.stdout })
    assert.is_true(result.exit_code ~= 0)
    local began = false
    local task = opensandbox.spawn(function()
      return session:run("echo go; sleep 60", { on_stdout = function() began = true end })
    end)
    wait_until(function() return began end)
    assert.is_true(task:cancel())
    assert.equal("cancelled", select(2, task:wait(5)).kind)
    assert.equal("after\n", assert(session:run("echo after", { timeout = 10 })).stdout)
    assert.is_true(session:close())
  end)

  it("ends with an exit, and says so then and later", function()
    local session = open()
    for _ = 1, 2 do
      local result, err = session:run("echo so far; exit 4")
      assert.is_nil(result)
      assert.same({ "state", "session_ended", "isolated:run" }, { err.kind, err.code, err.op })
      assert.matches("make another session", err.hint)
    end
    assert.is_true(session:close())
  end)

  it("runs in the background, with status, log, events and end", function()
    local session = open()
    local run = assert(session:start("echo one; sleep 0.2; echo $two >&2; exit 3", { env = { two = "2" } }))
    assert.is_true(assert(run:status()).running)
    assert.equal(session.id, run:status().session_id)
    local texts, last = {}, nil
    local events = run:events()
    local event = events:next()
    while event do
      last = event
      if event.type == "output" then texts[#texts + 1] = event.text end
      event = events:next()
    end
    assert.equal("one\n2\n", table.concat(texts))
    assert.same({ "exit", 3 }, { last.type, last.exit_code })
    local ended = assert(run:wait())
    assert.same({ run.id, 3 }, { ended.id, ended.exit_code })
    assert.is_true(ended.duration >= 0.15 and ended.duration < 10)
    local text, cursor = run:logs(4)
    assert.same({ "2\n", 6 }, { text, cursor })
    assert.equal("opensandbox.IsolatedRun: " .. run.id, tostring(run))
    local err = select(2, assert(session:start("sleep 60")):wait { timeout = 0.1 })
    assert.same({ "timeout", "isolated_run:wait" }, { err.kind, err.op })
    assert.matches("the run has not ended", err.message)
    assert.is_true(session:close())
    assert.equal("closed", select(2, run:status()).kind)
  end)

  it("has files of its own", function()
    local session = open()
    assert.is_true(session.files:write("/workspace/a.txt", "alpha\n"))
    assert.equal("alpha\n", assert(session:run("cat a.txt")).stdout)
    assert.equal("alpha\n", assert(session.files:read("/workspace/a.txt")))
    assert.is_true(session:close())
    local text, err = session.files:read("/workspace/a.txt")
    assert.is_nil(text)
    assert.same({ "closed", "files:read" }, { err.kind, err.op })
  end)

  it("has whole directories, too, and verifies what it is sent", function()
    local session = open()
    local scratch = temporary.path()
    assert(session.files:write("/workspace/tree/one.txt", "one"))
    assert(session.files:write("/workspace/tree/below/two.txt", "two", { verify = true }))
    assert(session:run("cd /; kept=yes"))
    assert(session.files:download_dir("/workspace/tree", scratch))
    assert(session.files:upload_dir(scratch, "/workspace/again"))
    assert.equal("two", assert(session.files:read("/workspace/again/below/two.txt")))
    assert.equal("yes\n", assert(session:run("echo $kept")).stdout)
    temporary.remove(scratch)
    assert.is_true(session:close())
  end)

  it("is told of, listed, attached to and ended", function()
    local session = open { idle_timeout = 600.5, profile = "balanced", env_passthrough = { mode = "deny", keys = { "SECRET" } } }
    local info = assert(session:info())
    assert.same({ session.id, "active", "balanced", 601 }, { info.id, info.status, info.profile, info.idle_timeout })
    assert.same({ path = "/workspace", mode = "rw" }, info.workspace)
    assert.is_true(math.abs(info.created_at - session.created_at) < 1)
    local found
    for _, one in ipairs(assert(client:list_isolated_sessions(execd))) do found = found or one.id == session.id end
    assert.is_true(found)
    local attached = assert(sandbox:isolated { id = session.id })
    assert.equal("hi\n", assert(attached:run("echo hi")).stdout)
    assert.is_true(attached:close())
    assert.equal("active", assert(session:info()).status)
    assert.is_true(session:close())
    assert.is_true(session:close())
    info = { client:get_isolated_session(execd, session.id) }
    assert.equal("SESSION_NOT_FOUND", info[2].code)
    assert.is_true(client:delete_isolated_session(execd, session.id))
  end)
end)

-- What is sent, and execds of other days: the first part of the path is the version.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local STREAM = { ["Content-Type"] = "text/event-stream" }
  local function answer(connection, status, body) connection:respond(status, JSON, json.encode(body)) end
  local function unknown(connection)
    connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
  end
  local runs = {}
  function runs.silent(connection)
    connection:start(200, STREAM):event { type = "stdout", text = "so far", timestamp = 1 }
  end
  function runs.cut(connection) runs.silent(connection); connection:finish() end
  function runs.nothing(connection) connection:start(200, STREAM):finish() end
  function runs.page(connection) connection:respond(200, { ["Content-Type"] = "text/html" }, "<html></html>") end
  function runs.broken(connection)
    runs.silent(connection)
    connection:event { type = "error", text = "x", error = { ename = "RuntimeError", evalue = "write stdin: broken pipe" } }
    connection:finish()
  end
  return {
    on_request = function(request, connection)
      local version, path = request.path:match("^/([^/]+)/v1/isolated(.*)$")
      path = path:gsub("?.*", "")
      if version == "old" then return unknown(connection) end
      local body = request.body ~= "" and json.decode(request.body) or {}
      if path == "/session" then
        if version == "bare" then
          return answer(connection, 503, { code = "SERVICE_UNAVAILABLE", message = "isolation unavailable" })
        end
        state.body = body
        return answer(connection, 201, { session_id = "s1", created_at = "2026-11-24T10:00:00.5Z" })
      elseif path == "/sessions" then
        if version == "first" then return unknown(connection) end
        return answer(connection, 200, { sessions = json.array {} })
      elseif path:find("/runs/") then
        -- Repeats a byte that was read before.
        return connection:respond(200, { ["Execd-Isolated-Tail-Cursor"] = "6" }, "cdef")
      elseif path:find("/run$") and body.background and version == "new" then
        return answer(connection, 202, { session_id = "s1", run_id = "r1" })
      end
      if runs[body.code] then return runs[body.code](connection) end
      runs.silent(connection)
    end,
    on_close = function(connection, who)
      if who:find("^client") then state.left = (state.left or 0) + 1 end
    end,
  }
]]

describe("an isolated session's route", function()
  local server, client

  before_each(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "key", { retry = false })
  end)
  after_each(function()
    client:close()
    server:stop()
  end)

  local function at(version) return { url = server.url .. "/" .. version, headers = {}, sandbox_id = "sb" } end

  local function count() return #server:requests() end

  it("gets the options of a session in its own names, and what is left out not at all", function()
    local info = assert(client:create_isolated_session(at "new", { workspace = "/w" }))
    assert.same({ "s1", 0.5 }, { info.id, info.created_at % 1 })
    assert.same({ workspace = { path = "/w" } }, server:state().body)
    assert(client:create_isolated_session(at "new", {
      workspace = { path = "/w" }, mode = "overlay", profile = "strict", extra_writable = { "/x" }, share_net = false,
      binds = { { source = "/a", dest = "/b", readonly = true }, { source = "/c" } },
      env_passthrough = { mode = "allow", keys = { "K" } }, uid = 1000, gid = 1001, uid_mode = "userns", idle_timeout = 1.2,
    }))
    assert.same({
      workspace = { path = "/w", mode = "overlay" }, profile = "strict", extra_writable = { "/x" }, share_net = false,
      binds = { { source = "/a", dest = "/b", readonly = true }, { source = "/c" } },
      env_passthrough = { mode = "allow", keys = { "K" } }, uid = 1000, gid = 1001, uid_mode = "userns", idle_timeout_seconds = 2,
    }, server:state().body)
  end)

  it("is not asked with what it would refuse", function()
    local before = count()
    for _, case in ipairs {
      { {}, "option 'workspace' must be a string" },
      { { workspace = "/w", mode = "rwx" }, "the mode of the workspace must be \"rw\", \"overlay\", \"ro\", not \"rwx\"" },
      { { workspace = { path = "/w", mode = "rw" }, mode = "ro" }, "option 'mode' and the mode of option 'workspace' differ" },
      { { workspace = "/w", profile = "lax" }, "option 'profile' must be" },
      { { workspace = "/w", binds = { { dest = "/x" } } }, "the source of bind 1 must be a string" },
      { { workspace = "/w", binds = { source = "/x" } }, "option 'binds' must be a list" },
      { { workspace = "/w", env_passthrough = { keys = { "K" } } }, "option 'env_passthrough' needs a mode" },
      { { workspace = "/w", idle_timout = 3 }, "unknown option 'idle_timout' (did you mean 'idle_timeout'?)" },
    } do
      local ok, problem = pcall(client.create_isolated_session, client, at "new", case[1])
      assert.is_false(ok)
      assert.is_truthy(problem:find("create_isolated_session: " .. case[2], 1, true), problem)
      assert.is_truthy(problem:find("isolated_spec.lua:", 1, true), problem)
    end
    assert.equal(before, count())
  end)

  it("that an old execd does not have is an error that says so, and asked for once", function()
    local old = at "old"
    for index = 1, 2 do
      local info, err = client:create_isolated_session(old, { workspace = "/w" })
      assert.is_nil(info)
      assert.same({ "state", "unsupported", "create_isolated_session", "sb" }, { err.kind, err.code, err.op, err.sandbox_id })
      assert.matches("execd 1.0.20 or newer", err.message)
      assert.equal(1, count(), index)
    end
    assert.equal("unsupported", select(2, client:run_isolated(old, "s1", "true")).code)
    assert.equal(1, count())
  end)

  it("without the rights for it says how the sandbox has to be created", function()
    local info, err = client:create_isolated_session(at "bare", { workspace = "/w" })
    assert.is_nil(info)
    assert.same({ "http", 503, "SERVICE_UNAVAILABLE" }, { err.kind, err.status, err.code })
    assert.matches("bootstrap.execd.isolation", err.hint, 1, true)
  end)

  it("of the first execd with isolation would pass over binds: nothing is made then", function()
    local first = at "first"
    for _ = 1, 2 do
      local info, err = client:create_isolated_session(first, { workspace = "/w", binds = { { source = "/a" } } })
      assert.is_nil(info)
      assert.same({ "unsupported", "create_isolated_session" }, { err.code, err.op })
      assert.matches("binds and uid_mode: they need execd 1.0.21", err.message)
      assert.equal(1, count())
    end
    assert(client:create_isolated_session(first, { workspace = "/w" }))
  end)

  it("of an execd that knows no background streams: it is left, once", function()
    local first = at "first"
    for _ = 1, 2 do
      local run, err = client:start_isolated(first, "s1", "true")
      assert.is_nil(run)
      assert.same({ "unsupported", "start_isolated" }, { err.code, err.op })
      assert.matches("execd 1.0.22", err.message)
      wait_until(function() return server:state().left == 1 end, "the connection stays open")
      assert.equal(1, count())
    end
  end)

  it("of a log may repeat bytes: they count once", function()
    assert.same({ id = "r1", session_id = "s1" }, assert(client:start_isolated(at "new", "s1", "true")))
    local text, cursor = client:get_isolated_run_logs(at "new", "s1", "r1", 3)
    assert.same({ "def", 6 }, { text, cursor })
  end)

  it("of a run that says nothing is given up soon after its time", function()
    local began = core.now()
    local result, err = client:run_isolated(at "new", "s1", "silent", { timeout = 0.5 })
    local taken = core.now() - began
    assert.is_nil(result)
    assert.is_true(taken > 2.9 and taken < 8, taken)
    assert.same({ "timeout", "timeout", "so far\n" }, { err.kind, err.timeout_option, err.result.stdout })
    assert.matches("timeout of 1 s ran out, and 2 s later the code still ran", err.message)
    assert.matches("delete the session", err.hint)
    wait_until(function() return server:state().left == 1 end, "the connection stays open")
  end)

  it("of a run has no idle clock of its own, for there are no pings", function()
    client:close()
    client = opensandbox.new(server.url, "key", { retry = false, idle_timeout = 0.1 })
    local err = select(2, client:run_isolated(at "new", "s1", "silent", { timeout = 0.5 }))
    assert.equal("timeout", err.timeout_option)
    err = select(2, client:run_isolated(at "new", "s1", "silent", { idle_timeout = 0.1 }))
    assert.same({ "timeout", "idle_timeout", "so far\n" }, { err.kind, err.timeout_option, err.result.stdout })
  end)

  it("of a run that fails or is cut is an error with what arrived", function()
    local function fails(code)
      local result, err = client:run_isolated(at "new", "s1", code)
      assert.is_nil(result)
      return err
    end
    local err = fails "broken"
    assert.same({ "state", "run_failed", "so far\n" }, { err.kind, err.code, err.result.stdout })
    err = fails "cut"
    assert.same({ "stream", "cut", "so far\n" }, { err.kind, err.code, err.result.stdout })
    assert.matches("ended before the code did$", err.message)
    assert.matches("without a single event$", fails("nothing").message)
    assert.equal("unexpected_response", fails("page").code)
  end)

  it("for files is below the session's, with the headers of the sandbox's", function()
    local execd = { url = "http://h:1/p", headers = { ["X-EXECD-ACCESS-TOKEN"] = "t" }, sandbox_id = "sb", proxied = true }
    assert.same({ url = "http://h:1/p/v1/isolated/session/a%2Fb", headers = execd.headers, sandbox_id = "sb", proxied = true },
      client:isolated_endpoint(execd, "a/b"))
    assert.equal("http://h:1/v1/isolated/session/s1", client:isolated_endpoint("http://h:1/", "s1").url)
    assert.is_false((pcall(client.isolated_endpoint, client, nil, "s1")))
  end)
end)

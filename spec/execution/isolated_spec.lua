--- Isolated sessions: runs, runs in the background, files, and execds that have none of it.

local capabilities = require "opensandbox.http.capabilities"
local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local recordings = require "spec.support.recordings"
local replay_server = require "spec.support.replay_server"
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

  local function test(title, body)
    it(title, function()
      if fixture.unisolated then return pending(fixture.unisolated) end
      body()
    end)
  end

  local function open(options)
    options = options or {}
    options.workspace = options.workspace or { path = "/workspace", mode = "rw" }
    return assert(sandbox:isolated(options))
  end

  it("can be had where the capabilities say so", function()
    local found = assert(client:get_isolation_capabilities(execd))
    assert.equal(not fixture.unisolated, found.available)
    assert.is_false(found.raw.commit_supported)
    if found.available then return end
    local session, err = sandbox:isolated { workspace = "/workspace" }
    assert.is_nil(session)
    assert.same({ 503, "SERVICE_UNAVAILABLE", "sandbox:isolated" }, { err.status, err.code, err.op })
    assert.matches("get_isolation_capabilities says what is missing", err.hint, 1, true)
  end)

  test("has files with any path: its file routes expand nothing", function()
    local session = open()
    local files = session.files
    local here = temporary.directory()
    finally(function() temporary.remove(here) end)
    for _, name in ipairs { "$id.tsx", "Outer$1.class", "a $HOME", "`x`$(y)", "sub$dir/x$y", "~" } do
      local path = "/workspace/" .. name
      assert(files:write(path, "one"))
      assert.equal("one", files:read(path), name)
      assert.equal(path, assert(files:stat(path)).path)
      assert(files:move(path, path .. "2"))
      assert(files:chmod(path .. "2", "0600"))
      assert.equal(1, files:replace(path .. "2", "one", "two"))
      assert.equal("two\n", assert(session:run("cat '" .. path .. "2'")).stdout)
      assert(files:mkdir(path .. "d"))
      assert(files:write(path .. "d/$z", "z"))
      assert.equal(path .. "d/$z", assert(files:list(path .. "d"))[1].path)
      assert.equal(path .. "d/$z", assert(files:search(path .. "d", "*"))[1].path)
      assert(files:download_dir(path .. "d", here .. "/down"))
      assert(files:upload_dir(here .. "/down", path .. "up"))
      assert(files:download(path .. "up/$z", here .. "/$z"))
      assert(files:upload(here .. "/$z", path .. "z"))
      assert.equal("z", files:read(path .. "z"))
      temporary.remove(here .. "/down")
      assert(files:remove(path .. "2"))
      assert.is_false(files:exists(path .. "2"))
    end
    session:close()
  end)

  test("starts in its workspace, keeps its directory and its variables, and gives output and exit codes", function()
    local session = open()
    assert.equal("opensandbox.Isolated: " .. session.id, tostring(session))
    assert.matches("/workspace\n$", assert(session:run("pwd")).stdout)
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
    result = assert(session:run("echo $own $a; cat; a=2", { env = { own = "mine" }, cwd = ".." }))
    assert.equal("mine 1\n", result.stdout)
    assert.matches("^2\n.*/workspace\n$", assert(session:run("echo $a$own; pwd")).stdout)
    assert.is_true(session:close())
  end)

  -- Runs in a session that has ended fail, with a remedy.
  local function is_gone(session)
    local err
    wait_until(function() err = select(2, session:run("echo still here")) return err end) -- execd ends it a little later
    assert.same({ "state", "isolated:run" }, { err.kind, err.op })
    assert.is_true(err.code == "SESSION_NOT_FOUND" or err.code == "session_ended", err.code)
    assert.matches("Create another session", err.hint)
    wait_until(function() err = select(2, session:info()) return err end)
    assert.same({ "state", "SESSION_NOT_FOUND" }, { err.kind, err.code })
    assert.is_true(session:close())
  end

  test("says that it has ended: after a timeout, a cancelled run, an exit", function()
    local session = open()
    local result = assert(session:run("echo before; sleep 60", { timeout = 0.4 }))
    assert.same({ true, true, "before\n" }, { result.timed_out, result.session_ended, result.stdout })
    is_gone(session)
    session = open()
    local began = false
    local task = opensandbox.spawn(function()
      return session:run("echo go; sleep 60", { on_stdout = function() began = true end })
    end)
    wait_until(function() return began end)
    assert.is_true(task:cancel())
    local err = select(2, task:wait(5))
    assert.same({ "cancelled", true, "go\n" }, { err.kind, err.session_ended, err.result.stdout })
    is_gone(session)
    session = open()
    result, err = session:run("echo so far; exit 4")
    assert.is_nil(result)
    assert.same({ "state", "session_ended", true, "so far\n" }, { err.kind, err.code, err.session_ended, err.result.stdout })
    is_gone(session)
  end)

  test("runs in the background, with status, log, events and end", function()
    local session = open()
    local run = assert(session:start("echo one; sleep 0.2; cat; echo $two >&2; exit 3", { env = { two = "2" } }))
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
    local there = assert(session:start("pwd", { cwd = "/" }))
    assert.equal(0, assert(there:wait()).exit_code)
    assert.equal("/\n", (there:logs()))
    local err = select(2, assert(session:start("sleep 60")):wait { timeout = 0.1 })
    assert.same({ "timeout", "isolated_run:wait" }, { err.kind, err.op })
    assert.matches("the run has not ended", err.message)
    assert.is_true(session:close())
    assert.equal("closed", select(2, run:status()).kind)
  end)

  test("has files of its own", function()
    local session = open()
    assert.is_true(session.files:write("/workspace/a.txt", "alpha\n"))
    assert.equal("alpha\n", assert(session:run("cat a.txt")).stdout)
    assert.equal("alpha\n", assert(session.files:read("/workspace/a.txt")))
    assert.is_true(session:close())
    local text, err = session.files:read("/workspace/a.txt")
    assert.is_nil(text)
    assert.same({ "closed", "files:read" }, { err.kind, err.op })
  end)

  test("has whole directories, too, by paths of its workspace, and verifies what it is sent", function()
    local session = open { workspace = "/workspace/own" }
    local scratch = temporary.path()
    assert(session.files:write("/workspace/own/tree/one.txt", "one"))
    assert(session.files:write("tree/below/two.txt", "two", { verify = true }))
    assert(session:run("cd /; kept=yes"))
    assert(session.files:download_dir("tree", scratch))
    assert(session.files:upload_dir(scratch, "/workspace/own/again", { verify = true }))
    assert(session.files:upload_dir(scratch, "again/../once more"))
    assert.equal("two", assert(session.files:read("/workspace/own/again/below/two.txt")))
    assert.equal("one", assert(session.files:read("once more/one.txt")))
    temporary.remove(scratch)
    assert(assert(session:start("true")):wait())
    assert(session.files:download_dir(".", scratch, { verify = true }))
    assert.same({ "again", "once more", "tree" }, temporary.names(scratch))
    assert.equal("yes\n", assert(session:run("echo $kept")).stdout)
    wait_until(function()
      local list = assert(session.files:list ".")
      for i, info in ipairs(list) do list[i] = info.path:match("[^/]*$") end
      return table.concat(list, " ") == ".execd again once more tree"
    end, "an archive stays in the workspace")
    temporary.remove(scratch)
    for _, method in ipairs { "upload_dir", "download_dir" } do
      local count, err = session.files[method](session.files, "/etc", "/etc/x")
      assert.is_nil(count)
      assert.same({ "state", "outside_workspace", "files:" .. method }, { err.kind, err.code, err.op })
    end
    assert.is_true(session:close())
  end)

  test("has whole directories without tar, too", function()
    local session = open { workspace = "/workspace/bare" }
    local scratch = temporary.path()
    assert(session:run [[
      mkdir bin
      for p in sh cksum touch readlink ln rm mkdir; do ln -s $(command -v $p) bin/$p; done
      export PATH=$PWD/bin
      mkdir -p tree/below; echo one > tree/below/one; ln -s below/one tree/link
    ]])
    local count = assert(session.files:download_dir("tree", scratch, { verify = true }))
    assert.same({ 1, 1 }, { count.files, count.symlinks })
    count = assert(session.files:upload_dir(scratch, "again", { verify = true }))
    assert.same({ 1, 1 }, { count.files, count.symlinks })
    assert.equal("one\n", assert(session.files:read "again/below/one"))
    assert.equal("symlink", assert(session.files:stat "again/link").type)
    temporary.remove(scratch)
    assert.is_true(session:close())
  end)

  test("over a directory keeps its changes to itself, for the shell and for the files", function()
    assert(sandbox.files:write("/workspace/over/lower", "lower"))
    local session, scratch = open { workspace = "/workspace/over", mode = "overlay" }, temporary.path()
    assert(session.files:write("new", "new"))
    assert(session:run("mkdir tree; printf made > tree/made; printf changed > lower"))
    assert.equal("new", assert(session:run("cat new")).stdout:match("^%a+"))
    assert.equal("changed", assert(session.files:read("/workspace/over/lower")))
    assert(session.files:download_dir(".", scratch, { verify = true }))
    assert.same({ "lower", "new", "tree" }, temporary.names(scratch))
    assert(session.files:upload_dir(scratch, "copy", { verify = true }))
    assert.equal("made", assert(session.files:read("copy/tree/made")))
    assert.equal(0, assert(session:run("cmp tree/made copy/tree/made")).exit_code)
    assert(session.files:remove("lower"))
    assert.is_false(session.files:exists("lower"))
    assert.is_true(session:close())
    assert.equal("lower", assert(sandbox.files:read("/workspace/over/lower")))
    assert.is_false(sandbox.files:exists("/workspace/over/tree"))
    temporary.remove(scratch)
  end)

  test("of a directory that is read-only says so", function()
    assert(sandbox.files:write("/workspace/fixed/below/one", "one"))
    local session, scratch = open { workspace = "/workspace/fixed", mode = "ro" }, temporary.path()
    assert.is_true(assert(session:run("echo two > below/one")).exit_code ~= 0)
    assert.equal("one", assert(session.files:read("below/one")))
    assert(session.files:download_dir("below", scratch, { verify = true }))
    assert.same({ "one" }, temporary.names(scratch))
    local files = session.files
    for method, arguments in pairs {
      write = { "two", "2" }, remove = { "below/one" }, mkdir = { "more" }, move = { "below/one", "two" },
      chmod = { "below/one", "0600" }, replace = { "below/one", "one", "two" }, upload_dir = { scratch, "up" },
    } do
      local done, err = files[method](files, arguments[1], arguments[2], arguments[3])
      assert.is_nil(done)
      assert.same({ "state", "read_only", "files:" .. method }, { err.kind, err.code, err.op })
    end
    assert.is_true(session:close())
    temporary.remove(scratch)
  end)

  test("is described, listed, attached to and ended", function()
    local session = open { max_idle = 600.5, profile = "balanced", env_passthrough = { mode = "deny", keys = { "SECRET" } } }
    local info = assert(session:info())
    assert.same({ session.id, "active", "balanced", 601 }, { info.id, info.status, info.profile, info.max_idle })
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
    connection:event { type = "error", text = "x", error = { ename = "RuntimeError", evalue = "read stdout: token too long" } }
    connection:finish()
  end
  return {
    on_request = function(request, connection)
      local version, path = request.path:match("^/([^/]+)/v1/isolated(.*)$")
      path = path:gsub("?.*", "")
      if version == "old" then return unknown(connection) end
      local body = request.body ~= "" and json.decode(request.body) or {}
      if path == "/session" then
        if version == "new" and not body.workspace then
          local message = "Key: 'CreateIsolatedSessionRequest.Workspace.Path' Error:Field validation for 'Path' failed on the "
          return answer(connection, 400, { code = "INVALID_REQUEST_BODY", message = message .. "'required' tag" })
        elseif version == "bare" then
          return answer(connection, 503, { code = "SERVICE_UNAVAILABLE", message = "isolation unavailable" })
        end
        state.body = body
        return answer(connection, 201, { session_id = "s1", created_at = "2026-11-24T10:00:00.5Z" })
      elseif path == "/sessions" then
        if version == "first" then return unknown(connection) end
        return answer(connection, 200, { sessions = json.array {} })
      elseif path == "/session/s1" then
        if request.method == "DELETE" then return connection:respond(200, {}, "") end
        return answer(connection, 200, { status = "active", overlays = version == "newest" and json.array {} or nil })
      elseif path:find("/runs/none$") then
        if version == "first" then return unknown(connection) end
        return answer(connection, 404, { code = "SESSION_NOT_FOUND", message = "session not found" })
      elseif path:find("/runs/") then
        -- Repeats a byte that was read before.
        return connection:respond(200, { ["Execd-Isolated-Tail-Cursor"] = "6" }, "cdef")
      elseif path:find("/run$") and body.background and version == "new" then
        return answer(connection, 202, { session_id = "s1", run_id = "r1" })
      end
      local name = body.code:match("eval '(%w+)\n'") -- as isolated_script.lua writes it
      runs[name](connection)
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
    assert.same({ workspace = { path = "/w", mode = "rw" } }, server:state().body)
    assert(client:create_isolated_session(at "new", {
      workspace = { path = "/w" }, mode = "overlay", profile = "strict", extra_writable = { "/x" }, share_net = false,
      binds = { { source = "/a", dest = "/b", readonly = true }, { source = "/c" } },
      env_passthrough = { mode = "allow", keys = { "K" } }, uid = 1000, gid = 1001, uid_mode = "userns", max_idle = 1.2,
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
      { { workspace = "/w", max_idl = 3 }, "unknown option 'max_idl' (did you mean 'max_idle'?)" },
      { { workspace = "w" }, "option 'workspace' must be an absolute path, not \"w\"" },
      { { overlays = {} }, "option 'overlays' must be a list of" },
      { { overlays = { { path = "o" } } }, "the path of overlay 1 must be an absolute path" },
      { { overlays = { { path = "/o", mode = "x" } } }, "the mode of overlay 1 must be" },
      { { overlays = { { path = "/o", mode = "ro", persist = true } } }, "overlay 1 has 'persist'" },
      { { overlays = { { path = "/o" } }, mode = "rw" }, "option 'mode' is the mode of the workspace" },
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
      assert.matches("binds and uid_mode: that needs execd 1.0.21", err.message)
      assert.equal(1, count())
    end
    assert(client:create_isolated_session(first, { workspace = "/w" }))
  end)

  it("of an execd that knows no runs in the background starts none there, and asks once", function()
    local first = at "first"
    for _ = 1, 2 do
      local run, err = client:start_isolated(first, "s1", "true")
      assert.is_nil(run)
      assert.same({ "state", "unsupported", "start_isolated" }, { err.kind, err.code, err.op })
      assert.matches("execd 1.0.22", err.message)
      assert.equal(1, count())
      assert.equal("GET", server:requests()[1].method)
    end
  end)

  it("with overlays is created where execd reports them, and deleted where it has ignored them", function()
    local overlays = { { path = "/", persist = false }, { path = "/data", mode = "ro" } }
    assert(client:create_isolated_session(at "newest", { workspace = "/w", overlays = overlays }))
    assert.same({ workspace = { path = "/w", mode = "rw" }, overlays = overlays }, server:state().body)
    assert(client:create_isolated_session(at "newest", { overlays = overlays }))
    assert.same({ overlays = overlays }, server:state().body)
    for _, opts in ipairs { { workspace = "/w", overlays = overlays }, { overlays = overlays } } do
      local info, err = client:create_isolated_session(at "new", opts)
      assert.is_nil(info)
      assert.same({ "state", "unsupported", "create_isolated_session" }, { err.kind, err.code, err.op })
      assert.matches("no overlays in isolated sessions, and sessions without a workspace: that needs execd 1.1.1", err.message)
    end
    local deleted = 0
    for _, request in ipairs(server:requests()) do deleted = deleted + (request.method == "DELETE" and 1 or 0) end
    assert.equal(1, deleted)
  end)

  it("of a log may repeat bytes: they count once", function()
    assert.same({ id = "r1", session_id = "s1" }, assert(client:start_isolated(at "new", "s1", "true")))
    local text, cursor = client:get_isolated_run_logs(at "new", "s1", "r1", 3)
    assert.same({ "def", 6 }, { text, cursor })
  end)

  it("of a run refuses variables that a shell cannot have, and empty code", function()
    for _, method in ipairs { "run_isolated", "start_isolated" } do
      for _, case in ipairs { { "true", { env = { ["A-B"] = "x" } }, "option 'env': \"A-B\" is not a name of a shell variable" },
        { "true", { env = { ["1"] = "x" } }, "is not a name of a shell variable" }, { " \n", {}, "the code must not be empty" } } do
        local ok, problem = pcall(client[method], client, at "new", "s1", case[1], case[2])
        assert.is_false(ok)
        assert.is_truthy(problem:find(case[3], 1, true), problem)
        assert.is_truthy(problem:find("isolated_spec.lua:", 1, true), problem)
      end
    end
    assert.equal(0, count())
  end)

  it("of a run that says nothing is given up soon after its time", function()
    local began = core.now()
    local result, err = client:run_isolated(at "new", "s1", "silent", { timeout = 0.5 })
    local taken = core.now() - began
    assert.is_nil(result)
    assert.is_true(taken > 2.9 and taken < 8, taken)
    assert.same({ "timeout", "timeout", "so far\n" }, { err.kind, err.timeout_option, err.result.stdout })
    assert.is_true(err.session_ended)
    assert.matches("timeout of 1 s ran out, and 2 s later execd had not ended the run", err.message)
    assert.matches("The session ends with the connection", err.hint)
    wait_until(function() return server:state().left == 1 end, "the connection stays open")
  end)

  it("of a run has no idle clock of its own, for there are no pings", function()
    client:close()
    client = opensandbox.new(server.url, "key", { retry = false, idle_timeout = 0.1 })
    local err = select(2, client:run_isolated(at "new", "s1", "silent", { timeout = 0.5 }))
    assert.equal("timeout", err.timeout_option)
    err = select(2, client:run_isolated(at "new", "s1", "silent", { idle_timeout = 0.1 }))
    assert.same({ "timeout", "idle_timeout", "so far\n", true },
      { err.kind, err.timeout_option, err.result.stdout, err.session_ended })
  end)

  it("of a run that fails or is cut is an error with what arrived", function()
    local function fails(code)
      local result, err = client:run_isolated(at "new", "s1", code)
      assert.is_nil(result)
      return err
    end
    local err = fails "broken"
    assert.same({ "state", "run_failed", "so far\n" }, { err.kind, err.code, err.result.stdout })
    assert.is_nil(err.session_ended)
    err = fails "cut"
    assert.same({ "stream", "cut", "so far\n", true }, { err.kind, err.code, err.result.stdout, err.session_ended })
    assert.matches("ended before the code did$", err.message)
    assert.matches("without a single event$", fails("nothing").message)
    err = fails "page"
    assert.equal("unexpected_response", err.code)
    assert.is_nil(err.session_ended)
  end)

  it("for files is below the session's, with the headers of the sandbox's", function()
    local execd = { url = "http://h:1/p", headers = { ["X-EXECD-ACCESS-TOKEN"] = "t" }, sandbox_id = "sb", proxied = true }
    assert.same({ url = "http://h:1/p/v1/isolated/session/a%2Fb", headers = execd.headers, sandbox_id = "sb", proxied = true,
      literal_paths = true },
      client:isolated_endpoint(execd, "a/b"))
    assert.equal("http://h:1/v1/isolated/session/s1", client:isolated_endpoint("http://h:1/", "s1").url)
    assert.is_false((pcall(client.isolated_endpoint, client, nil, "s1")))
  end)
end)

-- The recorded execd: what its answers mean.
describe("of the recorded execd", function()
  local server, client
  setup(function() server = replay_server.start() end)
  teardown(function() server:stop() end)
  before_each(function()
    -- The codes that are sent are not the recorded ones: see isolated_script.lua.
    client = opensandbox.new(server.url, "key", { retry = false, headers = { ["X-Replay-Loose"] = "1" } })
  end)
  after_each(function() client:close() end)

  -- The endpoint that answers with a recording, and the ids in the path of its request.
  local function recorded(name)
    local path = assert(recordings.load("isolated/" .. name)).request.path
    return server:base("isolated/" .. name), path:match("/session/([^/?]+)"), path:match("/runs/([^/?]+)")
  end

  local function run(name, timeout)
    local execd, id = recorded(name)
    return client:run_isolated(execd, id, "code", { timeout = timeout })
  end

  it("a run that ends in its own way has its exit code, and the session goes on", function()
    for name, expected in pairs {
      ["run-echo"] = { 0, "hello\n" }, ["run-true"] = { 0, "" }, ["run-no-newline"] = { 0, "no newline at end\n" },
      ["run-child-killed"] = { 137 }, ["run-not-found"] = { 127 }, ["run-subshell-set-e"] = { 1, "one\n" },
      ["run-env-exit"] = { 7, "before\n" }, ["run-env-set-e"] = { 1, "" }, ["run-braces-devnull"] = { 0, "/usr\n" },
    } do
      local result = assert(run(name, 10))
      assert.same({ expected[1], expected[2] or result.stdout }, { result.exit_code, result.stdout }, name)
      assert.is_nil(result.session_ended)
      assert.is_nil(result.timed_out)
    end
  end)

  it("a run whose time is over has ended its session, whatever the code does about it", function()
    for name, output in pairs {
      ["run-timeout"] = "before\n", ["run-timeout-int-ignored"] = "", ["run-timeout-int-trapped"] = "got INT\nend\n",
      ["run-timeout-python"] = "interrupted\n", ["run-unclosed-quote"] = "",
    } do
      local result = assert(run(name, 1))
      assert.same({ true, true, -1, output }, { result.timed_out, result.session_ended, result.exit_code, result.stdout }, name)
    end
  end)

  it("a run whose shell is gone has ended its session", function()
    for _, name in ipairs { "run-exit", "run-set-e", "run-syntax-error", "run-env-syntax-error", "run-exec", "run-kill-shell",
      "run-exit-beside-background", "run-deleted-meanwhile" } do
      local result, err = run(name, 60)
      assert.is_nil(result)
      assert.same({ "state", "session_ended", true, true },
        { err.kind, err.code, err.session_ended, err.result.session_ended }, name)
      assert.is_nil(err.result.exit_code)
    end
  end)

  it("every call to a session that has ended says so", function()
    for _, name in ipairs { "run-after-timeout", "run-exit-then-run", "run-disconnect-then-run", "idle-run-gone", "unknown-run" } do
      local err = select(2, run(name))
      assert.same({ "state", "SESSION_NOT_FOUND", 404 }, { err.kind, err.code, err.status })
      assert.matches("Create another session", err.hint)
    end
    assert.equal("state", select(2, client:get_isolated_session(recorded "exit-then-info")).kind)
    assert.is_true(client:delete_isolated_session(recorded "delete-again"))
    assert.equal("state", select(2, client:get_isolated_run(recorded "background-dead-status")).kind)
  end)

  it("runs in the background have their status and their output by bytes", function()
    for name, expected in pairs {
      ["background-status-running"] = { true }, ["background-status-finished"] = { false, 5 }, ["background-exit"] = { false, 4 },
      ["background-killed"] = { false, 137 },
    } do
      local status = assert(client:get_isolated_run(recorded(name)))
      assert.same({ expected[1], expected[2] }, { status.running, status.exit_code })
    end
    local execd, id, run_id = recorded "background-logs-next"
    assert.same({ "two\n", 8 }, { client:get_isolated_run_logs(execd, id, run_id, 4) })
    execd, id, run_id = recorded "background-logs-past-end"
    assert.equal("", (client:get_isolated_run_logs(execd, id, run_id, 99999)))
    execd, id = recorded "background-ro"
    capabilities.set(client, execd, "isolated background", true)
    local err = select(2, client:start_isolated(execd, id, "code"))
    assert.same({ 400, "INVALID_REQUEST_BODY" }, { err.status, err.code })
  end)

  it("sessions are created and described with all their options", function()
    local execd, id = recorded "info-all-options"
    local info = assert(client:get_isolated_session(execd, id))
    assert.same({ "active", "balanced", { path = "/workspace/alt", mode = "rw" }, 300, 300, 1000, "setpriv" },
      { info.status, info.profile, info.workspace, info.max_idle, info.idle_remaining, info.uid, info.uid_mode })
    for _, name in ipairs { "create-rw", "create-overlay", "create-ro", "create-all-options", "create-private-net-ok" } do
      assert.matches("^%x+%-", assert(client:create_isolated_session((recorded(name)), { workspace = "/w" })).id)
    end
    for name, expected in pairs {
      ["create-bind-not-allowed"] = { 400, "RUNTIME_ERROR" }, ["create-extra-writable-missing"] = { 400, "RUNTIME_ERROR" },
      ["create-bind-dest-missing"] = { 500, "RUNTIME_ERROR" }, ["create-userns"] = { 503, "NOT_SUPPORTED" },
    } do
      local err = select(2, client:create_isolated_session((recorded(name)), { workspace = "/w" }))
      assert.same({ "http", expected[1], expected[2] }, { err.kind, err.status, err.code })
    end
    local err = select(2, client:create_isolated_session((recorded "create-no-workspace"), { overlays = { { path = "/" } } }))
    assert.same({ "state", "unsupported" }, { err.kind, err.code })
    assert.is_true(assert(client:get_isolation_capabilities((recorded "capabilities"))).available)
  end)
end)

describe("the time limit of an isolated session", function()
  local server, client, sandbox

  setup(function()
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      return function(request, connection)
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd" })
        elseif request.path:find("/isolated/session$") then
          return connection:respond(201, JSON, '{"session_id":"i"}')
        end
        connection:silence()
      end
    ]]
    client = opensandbox.new(server.url, "key", { retry = false })
    sandbox = client:connect("s", { wait = false })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function check(op, value, err)
    assert.is_nil(value)
    assert.same({ "timeout", "timeout", op }, { err.kind, err.timeout_option, err.op })
    assert.truthy(err.message:find("timeout of 0.3 s ran out", 1, true), err.message)
  end

  it("is named as a whole when its shell does not start", function()
    check("sandbox:isolated", sandbox:isolated { workspace = "/w", timeout = 0.3 })
  end)

  it("is named as a whole when the directories of an existing one are not reported", function()
    assert(sandbox:endpoint(80)) -- the connection exists
    check("files:stat", sandbox:isolated({ id = "i" }).files:stat("/w/f", { timeout = 0.3 }))
  end)
end)

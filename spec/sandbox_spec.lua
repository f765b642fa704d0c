--- A sandbox as scripts use it: how it comes to be, what runs in it, and how it goes away, whatever happens.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

local IMAGE = "python:3.12"
local CLOSES_AT_EXIT = _VERSION ~= "Lua 5.1" or rawget(_G, "jit") ~= nil -- os.exit(code, true)

local server, client, opened

local function new(options)
  local one = opensandbox.new(server.url, server.key, options)
  opened[#opened + 1] = one
  return one
end

local function create(changes, by)
  local options = { image = IMAGE }
  for name, value in pairs(changes or {}) do options[name] = value end
  return assert((by or client):create(options))
end

local function is_gone(id, by)
  local info, err = (by or client):get_sandbox(id)
  if info then return false end
  assert.equal(404, err.status, tostring(err))
  return true
end

local function listed(id)
  for _, info in ipairs(assert(client:list_sandboxes())) do
    if info.id == id then return true end
  end
  return false
end

-- Steps the client until `done()` is true; fails after 10 seconds.
local function step_until(done, why)
  local deadline = core.now() + 10
  while not done() do
    assert.is_true(core.now() < deadline, why)
    client:step(0.02)
  end
end

local function elapsed(fn, ...)
  local began = core.now()
  local value, err = fn(...)
  return core.now() - began, value, err
end

local function start_server()
  server = process.devserver { grace = 0.2 }
end

local function begin()
  opened = {}
  client = new()
end

local function finish()
  for _, one in ipairs(opened) do one:close() end
end

describe("creating a sandbox", function()
  setup(start_server)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  it("gives one that is ready, and that expires by itself after ten minutes", function()
    local sandbox = create()
    assert.is_string(sandbox.id)
    assert.equal(client, sandbox.client)
    assert.truthy(tostring(sandbox):find(sandbox.id, 1, true))
    local info = assert(sandbox:info())
    assert.equal("Running", info.state)
    assert.equal(sandbox.id, info.id)
    assert.equal(IMAGE, info.image)
    assert.same({ "tail", "-f", "/dev/null" }, info.entrypoint)
    assert.same({}, info.metadata)
    assert.is_true(math.abs(info.created_at - core.wall_clock()) < 10)
    assert.is_true(math.abs(info.expires_at - core.wall_clock() - 600) < 10, "it expires at another time")
    assert.equal(0, assert(sandbox:run("true")).exit_code)
    assert.is_true(sandbox:close())
    assert.is_true(is_gone(sandbox.id))
  end)

  it("keeps metadata as they were given, without the label that this library adds", function()
    local sandbox = create { metadata = { project = "a.b-c", ["example.com/x"] = "1" } }
    local info = assert(sandbox:info())
    assert.same({ project = "a.b-c", ["example.com/x"] = "1" }, info.metadata)
    local found = assert(client:list_sandboxes { metadata = { project = "a.b-c" } })
    assert.equal(1, #found)
    assert.equal(sandbox.id, found[1].id)
    assert.same(info.metadata, found[1].metadata)
  end)

  it("gives its environment to the commands, whose own variables win", function()
    local sandbox = create { env = { GREETING = "hello 'you' $HOME", OTHER = "of the sandbox" } }
    local result = assert(sandbox:run([[printf '%s|%s' "$GREETING" "$OTHER"]], { env = { OTHER = "of the command" } }))
    assert.equal("hello 'you' $HOME|of the command\n", result.stdout)
    assert.equal("of the sandbox\n", assert(sandbox:run('echo "$OTHER"')).stdout)
  end)

  it("sets no time at which it expires when timeout is false, and another when it is a number", function()
    assert.is_nil(assert(create { timeout = false }:info()).expires_at)
    local expires_at = assert(create { timeout = 90 }:info()).expires_at
    assert.is_true(math.abs(expires_at - core.wall_clock() - 90) < 10)
  end)

  it("does not wait when told so, and can be waited for later", function()
    local states = {}
    local function on_state(info) states[#states + 1] = info.state end
    local sandbox = create { wait = false, on_state = on_state }
    assert.same({}, states)
    local info = assert(client:wait_ready(sandbox.id, { on_state = on_state }))
    assert.equal("Running", info.state)
    assert.same({ "Running" }, states)
    assert.equal("here\n", assert(sandbox:run("echo here")).stdout)
  end)

  it("tells each new state", function()
    local states = {}
    local sandbox = create { on_state = function(info) states[#states + 1] = info.id .. " " .. info.state end }
    assert.same({ sandbox.id .. " Running" }, states)
  end)

  it("raises for mistakes before anything is sent, at the caller's line", function()
    local sent = 0
    local one = new { on_request = function() sent = sent + 1 end }
    for _, case in ipairs {
      { nil, "create: the options must be a table" }, { {}, "'image'" }, { { image = 5 }, "option 'image'" },
      { { image = IMAGE, wait = "no" }, "create: option 'wait'" }, { { image = IMAGE, ready_timeout = 0 }, "'ready_timeout'" },
      { { image = IMAGE, on_state = 1 }, "'on_state'" }, { { image = IMAGE, entrypoint = {} }, "'entrypoint'" },
      { { image = IMAGE, timeout = true }, "'timeout'" }, { { image = IMAGE, imgae = IMAGE }, "unknown option 'imgae'" },
    } do
      local ok, message = pcall(function() one:create(case[1]) end)
      assert.is_false(ok)
      assert.truthy(message:find("sandbox_spec%.lua:%d+: "), message)
      assert.truthy(message:find(case[2], 1, true), message)
    end
    assert.equal(0, sent)
  end)

  it("gives the server's error at once when the image cannot be had", function()
    local seconds, sandbox, err = elapsed(client.create, client, { image = "nope:1" })
    assert.is_nil(sandbox)
    assert.is_true(opensandbox.is_error(err))
    assert.equal("http", err.kind)
    assert.equal("DOCKER::SANDBOX_IMAGE_PULL_FAILED", err.code)
    assert.truthy(tostring(err):find("pull access denied for nope:1", 1, true), tostring(err))
    assert.is_true(seconds < 3, "it took " .. seconds .. " s")
  end)

  it("gives the server's reason at once when the entrypoint ends, and deletes the sandbox", function()
    -- Whether the entrypoint ends before the first ping is answered is a race that nobody can decide.
    local id
    local seconds, sandbox, err = elapsed(client.create, client, { image = IMAGE, entrypoint = { "false" }, ready_timeout = 30,
      on_state = function(info) id = info.id end })
    if sandbox then
      step_until(function() return assert(sandbox:info()).state ~= "Running" end, "the entrypoint does not end")
      seconds, sandbox, err = elapsed(client.wait_ready, client, id)
      client:delete_sandbox(id)
    end
    assert.is_nil(sandbox)
    assert.equal("state", err.kind)
    assert.equal("sandbox_failed", err.code)
    assert.equal(id, err.sandbox_id)
    assert.truthy(err.message:find("Sandbox container exited with code 1", 1, true), err.message)
    assert.is_true(seconds < 10, "it took " .. seconds .. " s")
    assert.is_true(is_gone(id))
  end)

  it("leaves nothing behind when on_state raises", function()
    local id
    local ok, message = pcall(client.create, client, { image = IMAGE, on_state = function(info)
      id = info.id
      error("stop here", 0)
    end })
    assert.is_false(ok)
    assert.equal("stop here", message)
    step_until(function()
      collectgarbage()
      return not listed(id)
    end, "the sandbox is still there")
  end)

  it("makes several that know nothing of each other, and closing the client ends them all", function()
    local list, ids = {}, {}
    for i = 1, 5 do
      list[i] = create { env = { NUMBER = tostring(i) } }
      assert.is_nil(ids[list[i].id])
      ids[list[i].id] = true
      assert(list[i].files:write("/work/me", "I am " .. i))
    end
    for i = 1, 5 do
      assert.equal(("%d I am %d\n"):format(i, i), assert(list[i]:run('echo "$NUMBER $(cat work/me)"')).stdout)
    end
    assert.is_true(list[3]:kill())
    assert.equal(0, assert(list[4]:run("true")).exit_code)
    client:close()
    local other = new()
    for id in pairs(ids) do assert.is_true(is_gone(id, other)) end
  end)
end)

describe("a sandbox that does not become ready", function()
  local faulty

  setup(function()
    start_server()
    -- The name of the image says what happens to the sandbox, and is its id.
    faulty = fault_server.start [[
      return function(request, connection)
        local function send(status, value)
          connection:respond(status, { ["Content-Type"] = "application/json" }, json.encode(value))
        end
        local function sandbox(id, status) send(request.method == "POST" and 202 or 200, { id = id, status = status }) end
        local id = request.path:match("^/v1/sandboxes/([^/]+)")
        if request.method == "POST" and not id then
          id = json.decode(request.body).image.uri
          return sandbox(id, { state = (id == "fails" or id == "vanishes" or id == "waits") and "Pending" or "Running" })
        elseif request.method == "DELETE" then
          return connection:respond(204, {}, "")
        elseif request.path:find("/endpoints/", 1, true) then
          local here = id == "unreachable" and "127.0.0.1:1" or request.headers.host .. "/execd/" .. id
          return send(200, { endpoint = here, headers = { ["X-EXECD-ACCESS-TOKEN"] = "token-of-execd" } })
        elseif id == "fails" then
          state.looks = (state.looks or 0) + 1
          if state.looks < 3 then return sandbox(id, { state = "Pending" }) end
          return sandbox(id, { state = "Failed", reason = "CONTAINER_EXITED_ERROR", message = "exited with code 7" })
        elseif id == "vanishes" then
          return send(404, { code = "DOCKER::SANDBOX_NOT_FOUND", message = "Sandbox vanishes not found." })
        elseif id then
          return sandbox(id, { state = id == "waits" and "Pending" or "Running" })
        elseif request.path == "/execd/locked/ping" then
          return send(401, { error = "Unauthorized: invalid or missing header X-EXECD-ACCESS-TOKEN" })
        end
        send(502, { code = "BACKEND_CONNECTION_FAILED", message = "not there" })
      end
    ]]
  end)
  teardown(function()
    faulty:stop()
    server:stop()
  end)
  before_each(begin)
  after_each(finish)

  -- What a create says whose sandbox has this fate; it must have been deleted.
  local function fate(image, changes)
    local one = opensandbox.new(faulty.url, "key")
    opened[#opened + 1] = one
    local options = { image = image, ready_timeout = 20 }
    for name, value in pairs(changes or {}) do options[name] = value end
    local seconds, sandbox, err = elapsed(one.create, one, options)
    assert.is_nil(sandbox)
    assert.equal(image, err.sandbox_id)
    assert.equal("create", err.op)
    local deleted = 0
    for _, request in ipairs(faulty:requests()) do
      if request.method == "DELETE" and request.path == "/v1/sandboxes/" .. image then deleted = deleted + 1 end
    end
    assert.equal(1, deleted, "requests to delete it")
    return err, seconds
  end

  it("because it failed is an error with the server's reason, and is deleted", function()
    local err, seconds = fate "fails"
    assert.equal("state", err.kind)
    assert.equal("sandbox_failed", err.code)
    assert.truthy(err.message:find("exited with code 7", 1, true), err.message)
    assert.is_true(seconds < 5, "it took " .. seconds .. " s")
  end)

  it("because it is gone is an error at once", function()
    local err, seconds = fate "vanishes"
    assert.equal("state", err.kind)
    assert.equal(404, err.status)
    assert.is_true(seconds < 5, "it took " .. seconds .. " s")
  end)

  it("because execd refuses the token is an error at once", function()
    local err, seconds = fate "locked"
    assert.equal("http", err.kind)
    assert.equal(401, err.status)
    assert.is_true(seconds < 5, "it took " .. seconds .. " s")
    assert.is_falsy(tostring(err):find("token-of-execd", 1, true))
  end)

  it("in time says which clock ran out, and which option raises it", function()
    for _, image in ipairs { "waits", "unreachable", "gateway" } do
      local err, seconds = fate(image, { ready_timeout = 0.6 })
      assert.equal("timeout", err.kind, image)
      assert.equal("not_ready", err.code, image)
      assert.is_true(seconds > 0.55 and seconds < 5, "it took " .. seconds .. " s")
      assert.equal("ready_timeout", err.timeout_option, image)
      assert.truthy(err.message:find("0.6 s", 1, true), err.message)
      assert.truthy(err.message:find(image == "waits" and "Pending" or "Running", 1, true), err.message)
      assert.truthy(tostring(err):find("ready_timeout", 1, true), tostring(err))
    end
  end)

  it("in time, waited for by the client's method, names that method's option", function()
    local one = opensandbox.new(faulty.url, "key")
    opened[#opened + 1] = one
    local info, err = one:wait_ready("unreachable", { timeout = 0.3 })
    assert.is_nil(info)
    assert.equal("timeout", err.kind)
    assert.equal("timeout", err.timeout_option)
    assert.equal("wait_ready", err.op)
    assert.equal("transport", err.cause.kind)
  end)

  it("because another client deleted it meanwhile is an error at once", function()
    local sandbox = create { wait = false }
    local other = new()
    local seconds, info, err = elapsed(client.wait_ready, client, sandbox.id, { timeout = 20, on_state = function()
      assert(other:delete_sandbox(sandbox.id))
    end })
    assert.is_nil(info)
    assert.equal("state", err.kind)
    assert.same({ "sandbox_gone", "DOCKER::SANDBOX_NOT_FOUND" }, { err.code, err.cause.code })
    assert.is_true(seconds < 5, "it took " .. seconds .. " s")
  end)
end)

describe("connecting to a sandbox", function()
  setup(start_server)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  it("gives one that works, and whose end is not the sandbox's", function()
    local sandbox = create()
    assert(sandbox.files:write("/work/a", "from the first"))
    local other = new()
    local same = assert(other:connect(sandbox.id))
    assert.equal(sandbox.id, same.id)
    assert.equal("from the first\n", assert(same:run("cat work/a")).stdout)
    assert.is_true(same:close())
    assert.is_true(same:close())
    assert.equal("closed", select(2, same:run("true")).kind)
    same = assert(other:connect(sandbox.id, { wait = false }))
    assert.equal("Running", assert(same:info()).state)
    same = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    other:close()
    assert.equal(0, assert(sandbox:run("true")).exit_code)
  end)

  it("can kill it all the same", function()
    local sandbox = create()
    local same = assert(new():connect(sandbox.id))
    assert.is_true(same:kill())
    assert.is_true(is_gone(sandbox.id))
    assert.is_true(sandbox:kill(), "one that is gone already is a success")
  end)

  it("that is unknown is an error at once", function()
    local seconds, sandbox, err = elapsed(client.connect, client, "no-such-sandbox", { ready_timeout = 20 })
    assert.is_nil(sandbox)
    assert.equal("state", err.kind)
    assert.equal(404, err.status)
    assert.same({ "sandbox_gone", "DOCKER::SANDBOX_NOT_FOUND" }, { err.code, err.cause.code })
    assert.equal("connect", err.op)
    assert.equal("no-such-sandbox", err.sandbox_id)
    assert.is_true(seconds < 3, "it took " .. seconds .. " s")
  end)

  it("that ended is an error at once, with the reason", function()
    local sandbox = create { wait = false, entrypoint = { "sh", "-c", "exit 3" } }
    step_until(function() return assert(sandbox:info()).state ~= "Running" end, "the entrypoint does not end")
    local seconds, same, err = elapsed(client.connect, client, sandbox.id)
    assert.is_nil(same)
    assert.equal("state", err.kind)
    assert.truthy(err.message:find("exited with code 3", 1, true), err.message)
    assert.is_true(seconds < 3)
  end)

  it("needs an id", function()
    for _, bad in ipairs { "", 5, {}, false } do
      local ok, message = pcall(function() client:connect(bad) end)
      assert.is_false(ok)
      assert.truthy(message:find("sandbox_spec%.lua:%d+: connect: the sandbox id"), message)
    end
  end)
end)

describe("running a command in a sandbox", function()
  local sandbox

  setup(function()
    start_server()
    begin()
    sandbox = create()
    assert(sandbox.files:write("/work/sub/here", "x"))
  end)
  teardown(function()
    finish()
    server:stop()
  end)

  local function run(...) return assert(sandbox:run(...)) end

  it("takes a string for the shell", function()
    local result = run("echo out; echo err >&2; A=1; echo $((A + 1))")
    assert.equal(0, result.exit_code)
    assert.equal("out\n2\n", result.stdout)
    assert.equal("err\n", result.stderr)
    assert.equal(0, result.stdout_dropped)
    assert.is_nil(result.timed_out)
    assert.is_nil(result.signal)
    assert.is_string(result.id)
    assert.is_true(result.duration >= 0 and result.duration < 10)
  end)

  it("takes a list, whose arguments arrive byte for byte", function()
    local arguments = { "", " ", "a b", "$HOME", "`id`", "'", '"', "\\", "*", "a\nb", "-n", "é→😀", ";", "&&", "#", "~", "!x", "%s" }
    local given = { "printf", "<%s>" }
    for _, argument in ipairs(arguments) do given[#given + 1] = argument end
    assert.equal("<" .. table.concat(arguments, "><") .. ">\n", run(given).stdout)
  end)

  it("gives exit codes as results", function()
    for _, code in ipairs { 0, 1, 2, 42, 126, 127, 128, 255 } do
      assert.equal(code, run("exit " .. code).exit_code)
    end
    local killed = run("kill -9 $$")
    assert.equal(-1, killed.exit_code)
    assert.equal("killed", killed.signal)
    assert.is_nil(killed.timed_out)
    local missing = run("no-such-program-here")
    assert.equal(127, missing.exit_code)
    assert.truthy(missing.stderr:find("not found", 1, true), missing.stderr)
    assert.equal("before\n", run("echo before; exit 9").stdout)
  end)

  it("hands output on while the command runs", function()
    -- The command ends only when what was told of its first line has come back to it.
    local order = {}
    local result = run("rm -f go; echo first; while [ ! -e go ]; do sleep 0.02; done; echo second", { timeout = 20,
      on_stdout = function(text)
        order[#order + 1] = text
        if text == "first\n" then assert(sandbox.files:write("/go", "")) end
      end })
    assert.same({ "first\n", "second\n" }, order)
    assert.equal("first\nsecond\n", result.stdout)
    assert.is_nil(result.timed_out)
  end)

  it("hands stderr on apart from stdout", function()
    local out, err = {}, {}
    run("echo a; echo b >&2; echo c", {
      on_stdout = function(text) out[#out + 1] = text end, on_stderr = function(text) err[#err + 1] = text end,
    })
    assert.equal("a\nc\n", table.concat(out))
    assert.equal("b\n", table.concat(err))
  end)

  it("lets an error of a callback through, and goes on working", function()
    local reason = { "the callback's" }
    local ok, raised = pcall(sandbox.run, sandbox, "echo x; sleep 20", { on_stdout = function() error(reason) end })
    assert.is_false(ok)
    assert.equal(reason, raised)
    assert.equal("on\n", run("echo on").stdout)
  end)

  it("runs where it is told to", function()
    local default = run("pwd").stdout
    assert.equal(default:gsub("/*\n$", "") .. "/work/sub\n", run("pwd", { cwd = "/work/sub" }).stdout)
    assert.equal("here\n", run("ls", { cwd = "/work/sub" }).stdout)
    local result, err = sandbox:run("true", { cwd = "/no/such/directory" })
    assert.is_nil(result)
    assert.equal("http", err.kind)
    assert.equal(400, err.status)
    assert.truthy(err.message:find("/no/such/directory", 1, true), err.message)
  end)

  it("passes variables of any content", function()
    local value = "a b\n'\"$x\\ é=1"
    assert.equal(value .. "\n", run('printf "%s" "$VALUE"', { env = { VALUE = value } }).stdout)
  end)

  it("ends a command whose time has run out", function()
    local seconds, result = elapsed(run, "echo began; sleep 30", { timeout = 1 })
    assert.is_true(result.timed_out)
    assert.equal(-1, result.exit_code)
    assert.equal("began\n", result.stdout)
    assert.is_true(seconds >= 0.9 and seconds < 8, "it took " .. seconds .. " s")
    assert.is_nil(run("true", { timeout = 20 }).timed_out)
    assert.is_nil(run("kill -9 $$", { timeout = 20 }).timed_out)
  end)

  it("knows that the time has run out from the server's clock, however late its events arrive", function()
    local late = fault_server.start [[
      return function(request, connection)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:after(300, function()
          connection:event { type = "init", text = "c1", timestamp = 1700000000000 }
          connection:event { type = "error", timestamp = 1700000000501,
            error = { ename = "CommandExecError", evalue = "-1", traceback = { "signal: killed" } } }
          connection:finish()
        end)
      end
    ]]
    local result, err = client:run_command(late.url, "sleep 30", { timeout = 0.5 })
    local early = client:run_command(late.url, "sleep 30", { timeout = 5 })
    late:stop()
    assert.is_nil(err)
    assert.is_true(result.timed_out)
    assert.is_nil(early.timed_out)
  end)

  it("gives text beyond ASCII as it is, and U+FFFD for each byte that is not UTF-8", function()
    local text = "é ü → 😀 \226\128\168 <&>\\/\" \127 \1\tend"
    assert.equal(text .. "\n", run({ "printf", "%s", text }).stdout)
    assert.equal("a\239\191\189\239\191\189b\n", run("printf 'a\\377\\376b\\n'").stdout)
    assert.equal("a\0b\n", run("printf 'a\\0b\\n'").stdout)
  end)

  it("rebuilds blank lines and a missing last newline as text lines", function()
    assert.equal("a\n\n\nb\n", run("printf 'a\\n\\n\\nb'").stdout)
    assert.equal("", run("true").stdout)
    assert.equal("\n", run("echo").stdout)
  end)

  it("gives 100,000 lines, each once and in order", function()
    local count, wrong = 0, nil
    local result = run("seq 100000", { timeout = 30, on_stdout = function(text)
      for line in text:gmatch("[^\n]+") do
        count = count + 1
        if not wrong and tonumber(line) ~= count then wrong = line end
      end
    end })
    assert.is_nil(wrong)
    assert.equal(100000, count)
    assert.equal(588895, #result.stdout)
    assert.equal("1\n2\n3\n", result.stdout:sub(1, 6))
    assert.equal("99999\n100000\n", result.stdout:sub(-13))
  end)

  it("keeps the first and the last part of output beyond max_output", function()
    local seen = 0
    local result = run("seq 100000", { timeout = 30, max_output = 1000, on_stdout = function(text) seen = seen + #text end })
    assert.equal(1000, #result.stdout)
    assert.equal(588895, seen)
    assert.equal(588895 - 1000, result.stdout_dropped)
    assert.equal("1\n2\n", result.stdout:sub(1, 4))
    assert.equal("\n100000\n", result.stdout:sub(-8))
  end)

  it("gives a long line whole", function()
    local result = run("head -c 300000 /dev/zero | tr '\\0' x")
    assert.equal(("x"):rep(300000) .. "\n", result.stdout)
  end)

  it("returns before the server closes the stream, and soon uses its connection again", function()
    local seconds = elapsed(function()
      for _ = 1, 10 do run("true") end
    end)
    assert.is_true(seconds < 10 * 0.2, "ten commands took " .. seconds .. " s")
  end)

  it("raises for mistakes at the caller's line", function()
    for _, case in ipairs {
      { nil, "run: the command must be a string that is not empty, or a list of a program and its arguments, not nil" },
      { "", "the command must be" }, { {}, "empty list" }, { { "" }, "empty list" },
      { { "a", true }, "the command: item 2 must be a string, not true" }, { { "a", nil, "b" }, "item 2" },
      { { "a", x = "b" }, "not one with the key \"x\"" }, { "a\0b", "" }, { "true", "options must be a table", 5 },
      { "true", "did you mean 'timeout'", { timeuot = 1 } }, { "true", "option 'cwd'", { cwd = "" } },
      { "true", "option 'env': entry \"A\"", { env = { A = {} } } }, { "true", "'gid' needs option 'uid'", { gid = 0 } },
    } do
      local ok, message = pcall(function() sandbox:run(case[1], case[3]) end)
      assert.is_false(ok, case[2])
      assert.truthy(message:find("sandbox_spec%.lua:%d+: sandbox:run"), message)
      assert.truthy(message:find(case[2], 1, true), message)
    end
  end)
end)

describe("a sandbox", function()
  setup(start_server)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  it("can be given more time, and less", function()
    local sandbox = create()
    for _, seconds in ipairs { 3600, 60, 120.5 } do
      local expires_at = assert(sandbox:renew(seconds))
      assert.is_true(math.abs(expires_at - core.wall_clock() - seconds) < 10)
      assert.is_true(math.abs(assert(sandbox:info()).expires_at - expires_at) < 0.01)
    end
    for _, bad in ipairs { 0, -1, "5", 0 / 0 } do
      local ok, message = pcall(function() sandbox:renew(bad) end)
      assert.is_false(ok)
      assert.truthy(message:find("sandbox_spec%.lua:%d+: sandbox:renew"), message)
    end
    local expires_at, err = create { timeout = false }:renew(60)
    assert.is_nil(expires_at)
    assert.equal("http", err.kind)
    assert.equal(409, err.status)
  end)

  it("says where its ports are", function()
    local sandbox = create()
    local endpoint = assert(sandbox:endpoint(8080))
    assert.equal("127.0.0.1", endpoint.host)
    assert.equal(8080, endpoint.port)
    assert.equal("http://127.0.0.1:8080", endpoint.url)
    assert.same({}, endpoint.headers)
    assert.is_false(endpoint.proxied)
    local execd = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
    assert.is_string(execd.headers["X-EXECD-ACCESS-TOKEN"])
    assert.is_true(client:ping(execd))
    for _, bad in ipairs { 0, 65536, 1.5, "80", -1 } do
      local ok, message = pcall(function() sandbox:endpoint(bad) end)
      assert.is_false(ok)
      assert.truthy(message:find("sandbox_spec%.lua:%d+: sandbox:endpoint: the port"), message)
    end
  end)

  it("works wholly through the server's proxy when the client is told to use it", function()
    local elsewhere
    local proxied = new { use_server_proxy = true, on_request = function(request)
      if request.url:sub(1, #server.url + 1) ~= server.url .. "/" then elsewhere = request.url end
    end }
    local sandbox = create(nil, proxied)
    local execd = assert(sandbox:endpoint(opensandbox.EXECD_PORT))
    assert.is_true(execd.proxied)
    assert.truthy(execd.url:find("/proxy/44772", 1, true), execd.url)
    assert(sandbox.files:write("/work/a", "through the proxy"))
    assert.equal("through the proxy", assert(sandbox.files:read("/work/a")))
    assert.is_true(sandbox.files:exists("/work/a"))
    local result = assert(sandbox:run("cat work/a; exit 4"))
    assert.equal("through the proxy\n", result.stdout)
    assert.equal(4, result.exit_code)
    assert.equal("work\n", assert(assert(proxied:connect(sandbox.id)):run("ls -d work")).stdout)
    assert.is_nil(elsewhere)
    local direct = assert(sandbox:endpoint(opensandbox.EXECD_PORT, { use_server_proxy = false }))
    assert.is_false(direct.proxied)
    assert.is_true(sandbox:kill())
  end)

  it("is killed once, and saying so again is no error", function()
    local sandbox = create()
    assert.is_true(sandbox:kill())
    assert.is_true(is_gone(sandbox.id))
    assert.is_true(sandbox:kill())
    assert.is_true(sandbox:close())
    local again = create()
    assert.is_true(client:delete_sandbox(again.id))
    assert.is_true(client:delete_sandbox(again.id))
    assert.is_true(again:kill())
  end)

  it("answers every method with an error of kind closed when it is over", function()
    local target = temporary.file()
    finally(function() os.remove(target) end)
    for _, how in ipairs { "kill", "close" } do
      local sandbox = create()
      assert.is_true(sandbox[how](sandbox))
      local files = sandbox.files
      for name, call in pairs {
        run = function() return sandbox:run("true") end, info = function() return sandbox:info() end,
        renew = function() return sandbox:renew(60) end, endpoint = function() return sandbox:endpoint(80) end,
        read = function() return files:read("/a") end, write = function() return files:write("/a", "") end,
        open = function() return files:open("/a") end, stat = function() return files:stat("/a") end,
        exists = function() return files:exists("/a") end, search = function() return files:search("/") end,
        list = function() return files:list("/") end, remove = function() return files:remove("/a") end,
        upload = function() return files:upload(target, "/a") end, download = function() return files:download("/a", target) end,
      } do
        local value, err = call()
        assert.is_nil(value, name)
        assert.equal("closed", err.kind, name)
        assert.equal(sandbox.id, err.sandbox_id, name)
        assert.is_true(opensandbox.is_error(err))
      end
    end
  end)

  it("answers with an error of kind closed when its client is closed", function()
    local one = new()
    local sandbox = create(nil, one)
    one:close()
    one:close()
    for _, call in ipairs {
      function() return sandbox:run("true") end, function() return sandbox:info() end,
      function() return sandbox.files:read("/a") end, function() return sandbox:kill() end,
      function() return one:create { image = IMAGE } end,
    } do
      local value, err = call()
      assert.is_nil(value)
      assert.equal("closed", err.kind, tostring(err))
    end
    assert.is_true(is_gone(sandbox.id))
  end)

  it("that is detached goes on after it is closed, collected, and its client closed", function()
    local one = new()
    local function make()
      local sandbox = create(nil, one)
      assert.equal(sandbox, sandbox:detach())
      assert.equal("still usable\n", assert(sandbox:run("echo still usable")).stdout)
      assert.is_true(sandbox:close())
      return sandbox.id
    end
    local function drop()
      return create(nil, one):detach().id
    end
    local ids = { make(), drop() }
    collectgarbage()
    collectgarbage()
    one:step(0.05)
    one:close()
    for _, id in ipairs(ids) do
      assert.is_true(listed(id))
      assert.is_true(client:delete_sandbox(id))
    end
  end)

  it("that is detached can still be killed", function()
    local sandbox = create():detach()
    assert.is_true(sandbox:kill())
    assert.is_true(is_gone(sandbox.id))
  end)

  it("that nobody refers to any more is deleted by the collector, without making it wait", function()
    local function make()
      local sandbox = create()
      assert(sandbox.files:write("/a", "x")) -- its helpers refer to it, and must not keep it
      assert.equal(0, assert(sandbox:run("true")).exit_code)
      return sandbox.id
    end
    local id = make()
    local seconds = elapsed(function()
      collectgarbage()
      collectgarbage()
    end)
    assert.is_true(seconds < 1, "collecting took " .. seconds .. " s")
    step_until(function()
      collectgarbage()
      return not listed(id)
    end, "the sandbox is still there")
  end)

  it("ends at the end of its scope, however that is left", function()
    if _VERSION ~= "Lua 5.4" then return pending("this Lua has no <close>") end
    local id
    local chunk = assert(load([[
      local create, how, tell = ...
      local sandbox <close> = create()
      tell(sandbox.id)
      assert(sandbox:run("true"))
      if how == "error" then error("left by an error", 0) end
      if how == "kill" then sandbox:kill() end
      return "left"
    ]]))
    for how, outcome in pairs { ["end"] = "left", kill = "left", ["error"] = "left by an error" } do
      local _, text = pcall(chunk, create, how, function(given) id = given end)
      assert.equal(outcome, text)
      assert.is_true(is_gone(id))
    end
    chunk = assert(load([[
      local new, create, tell = ...
      local one <close> = new()
      tell(create(nil, one).id)
    ]]))
    chunk(new, create, function(given) id = given end)
    assert.is_true(is_gone(id))
  end)
end)

describe("the sandboxes of two clients in one process", function()
  setup(start_server)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  it("are each the business of their own client", function()
    local other = new()
    local first, second = create(), create(nil, other)
    assert.equal("one\n", assert(first:run("echo one")).stdout)
    assert.equal("two\n", assert(second:run("echo two")).stdout)
    local nested
    assert(first:run("echo x", { on_stdout = function() nested = assert(second:run("echo nested")).stdout end }))
    assert.equal("nested\n", nested)
    other:close()
    assert.is_true(is_gone(second.id))
    assert.equal(0, assert(first:run("true")).exit_code)
  end)
end)

describe("the sandboxes of a script", function()
  setup(start_server)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  local BEGINNING = [[
    local client = require("opensandbox").new()
    local sandbox = assert(client:create { image = "python:3.12" })
    assert(sandbox:run("true"))
    io.stdout:write(sandbox.id, "\n")
    io.stdout:flush()
  ]]

  -- Runs a script in a process of its own, and gives the id it tells, its exit code, and what it complained of.
  local function script(ending)
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url, server.key, false
    local child = process.start { argv = { process.lua(), "-e", BEGINNING .. ending }, env = env }
    local id = child:read_line(15)
    local code = child:wait(15)
    local complaint = child:stderr_text()
    child:stop()
    assert.is_string(id, complaint)
    return id, code, complaint
  end

  it("are gone when it ends", function()
    local id, code, complaint = script ""
    assert.equal(0, code, complaint)
    assert.equal("", complaint)
    assert.is_true(is_gone(id))
  end)

  it("are gone when it ends with a global that refers to one", function()
    local id, code, complaint = script "KEPT = { sandbox, client }"
    assert.equal(0, code, complaint)
    assert.is_true(is_gone(id))
  end)

  it("are gone when it ends by an error", function()
    local id, code, complaint = script "error('the end')"
    assert.equal(1, code)
    assert.truthy(complaint:find("the end", 1, true), complaint)
    assert.is_true(is_gone(id))
  end)

  it("are gone when it ends by os.exit that closes the state", function()
    if not CLOSES_AT_EXIT then return pending("this Lua's os.exit does not close the state") end
    local id, code, complaint = script "os.exit(7, true)"
    assert.equal(7, code, complaint)
    assert.is_true(is_gone(id))
  end)

  it("go on when they are detached", function()
    local id, code, complaint = script "sandbox:detach()"
    assert.equal(0, code, complaint)
    assert.is_true(listed(id))
    assert.is_true(client:delete_sandbox(id))
  end)
end)

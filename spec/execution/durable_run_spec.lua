--- Commands that no cut connection disturbs, and commands whose bytes arrive as they were written.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"

describe("a durable command", function()
  local server, client

  -- An execd whose every second connection breaks in another way. `state` counts what it was asked for.
  setup(function()
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local OUTPUT = "one\r\n\255two\nthree"
      local asked = {}
      return function(request, connection)
        local place, rest = request.path:match("^/(%w+)/(.*)$")
        asked[place] = (asked[place] or 0) + 1
        local turn = asked[place]
        if request.method == "POST" then
          state.started = (state.started or 0) + 1
          state.body = request.body
          connection:start(200, { ["Content-Type"] = "text/event-stream" })
          connection:event { type = "init", text = "c1", timestamp = 1 }
          if place == "cutstart" then return connection:after(10, connection.reset) end
          connection:event { type = "execution_complete", timestamp = 2 }
          return connection:finish()
        elseif request.method == "DELETE" then
          state.interrupted = (state.interrupted or 0) + 1
          return connection:respond(200, {}, "")
        elseif place == "gone" then
          if turn > 4 then
            return connection:respond(404, JSON, '{"code":"INVALID_REQUEST_BODY","message":"command not found: c1"}')
          end
        elseif place == "cuts" and turn % 2 == 0 then
          if turn % 3 == 0 then return connection:reset() end
          if turn % 4 == 0 then return connection:respond(502, {}, "") end
          return connection:send("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf of"):close()
        end
        if rest:find("^command/status/") then
          local running = turn < 14
          return connection:respond(200, JSON, json.encode {
            id = "c1", running = running, exit_code = not running and 3 or nil, error = not running and "exit status 3" or nil,
            started_at = "2026-11-25T10:00:00Z", finished_at = not running and "2026-11-25T10:00:01.5Z" or nil,
          })
        end
        local cursor = tonumber(rest:match("cursor=(%d+)"))
        local written = math.min(turn, #OUTPUT)
        if turn >= 14 then written = #OUTPUT end
        -- Old bytes again, from the beginning: only the cursor that comes along tells.
        local first = place == "repeats" and 0 or math.min(cursor, written)
        connection:respond(200, { ["Content-Type"] = "text/plain", ["Execd-Commands-Tail-Cursor"] = tostring(written) },
          OUTPUT:sub(first + 1, written))
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new("http://127.0.0.1:1", "", { retry = { base_delay = 0.01 } }) end)
  after_each(function() client:close() end)

  local function run(place, options)
    local opts = { durable = true }
    for name, value in pairs(options or {}) do opts[name] = value end
    return client:run_command(server.url .. "/" .. place, "x", opts)
  end

  for place, what in pairs { plain = "in a quiet network", cuts = "through connections that break",
    repeats = "from a server that repeats old bytes", cutstart = "whose start was cut after its id" } do
    it("gives its output and its end " .. what, function()
      local told = {}
      local before = server:state().started or 0
      local result = assert(run(place, { on_stdout = function(text) told[#told + 1] = text end }))
      assert.equal("one\r\n\255two\nthree", result.stdout)
      assert.equal(result.stdout, table.concat(told))
      assert.same({ "c1", 3, "", 0, 0, 1.5 },
        { result.id, result.exit_code, result.stderr, result.stdout_dropped, result.stderr_dropped, result.duration })
      assert.same({ "exit status 3" }, result.error.traceback)
      assert.is_nil(result.timed_out)
      assert.equal(before + 1, server:state().started, "it was started twice")
      assert.is_true(json.decode(server:state().body).background)
    end)
  end

  it("that execd has forgotten is an error that carries what arrived", function()
    local began = core.now()
    local result, err = run("gone")
    assert.is_nil(result)
    assert.same({ "http", 404, "run_command", "c1" }, { err.kind, err.status, err.op, err.command_id })
    assert.is_true(#err.result.stdout > 0)
    assert.is_nil(err.result.exit_code)
    assert.is_true(core.now() - began < 8)
  end)

  it("is stopped when its task is cancelled, and when its callback raises", function()
    local before = server:state().interrupted or 0
    local task
    task = opensandbox.spawn(function()
      return run("cancelled", { on_stdout = function() task:cancel() end })
    end)
    local _, err = task:wait()
    assert.equal("cancelled", err.kind)
    local ok, problem = pcall(run, "raises", { on_stdout = function() error("mine", 0) end })
    assert.same({ false, "mine" }, { ok, problem })
    local deadline = core.now() + 5
    while (server:state().interrupted or 0) < before + 2 and core.now() < deadline do client:step(0.02) end
    assert.equal(before + 2, server:state().interrupted)
  end)
end)

describe("on the development server, a command's bytes", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  local function left_behind() return #assert(sandbox.files:search("/tmp", "opensandbox-*")) end

  local function nothing_is_left()
    local deadline = core.now() + 5
    while left_behind() > 0 do
      assert.is_true(core.now() < deadline, "the files are still there")
      client:step(0.02)
    end
  end

  for _, durable in ipairs { false, true } do
    local how = durable and ", durable" or ""
    it("arrive exactly as they were written" .. how, function()
      local told = {}
      local result = assert(sandbox:run([[printf 'a\000b\r\n\377\n\n no end'; printf 'err\r' >&2; exit 3]], {
        capture = "exact", durable = durable, on_stdout = function(text) told[#told + 1] = text end,
      }))
      assert.same({ 3, "a\0b\r\n\255\n\n no end", "err\r" }, { result.exit_code, result.stdout, result.stderr })
      assert.equal(result.stdout, table.concat(told))
      nothing_is_left()
    end)
  end

  it("are kept within max_output", function()
    local result = assert(sandbox:run("seq 1 20000", { capture = "exact", max_output = 10 }))
    assert.equal("1\n2\n30000\n", result.stdout)
    assert.is_true(result.stdout_dropped > 100000)
  end)

  it("arrive from a command that does not parse, and from one that was killed", function()
    local result = assert(sandbox:run("echo 'open", { capture = "exact" }))
    assert.is_true(result.exit_code ~= 0)
    assert.is_truthy(result.stderr:find("unexpected EOF", 1, true) or result.stderr:find("nterminated", 1, true), result.stderr)
    result = assert(sandbox:run("printf so; exec sleep 100", { capture = "exact", timeout = 0.3 }))
    assert.same({ -1, "killed", true, "so" }, { result.exit_code, result.signal, result.timed_out, result.stdout })
    nothing_is_left()
  end)

  it("are cleared away when a callback raises", function()
    local ok, problem = pcall(sandbox.run, sandbox, "echo x", { capture = "exact", on_stdout = function() error("mine", 0) end })
    assert.same({ false, "mine" }, { ok, problem })
    nothing_is_left()
  end)

  it("come in order, both streams in one, when the command is durable", function()
    local result = assert(sandbox:run("echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three", { durable = true }))
    assert.same({ 0, "one\ntwo\nthree", "" }, { result.exit_code, result.stdout, result.stderr })
    result = assert(sandbox:run("exec sleep 100", { durable = true, timeout = 0.3 }))
    assert.same({ -1, "killed", true }, { result.exit_code, result.signal, result.timed_out })
  end)

  it("options that do not go together are refused", function()
    for _, options in ipairs {
      { capture = "raw" }, { capture = "exact", background = true }, { durable = true, background = true }, { shell = false },
    } do
      local ok, message = pcall(client.run_command, client, "http://127.0.0.1:1", "x", options)
      assert.is_false(ok)
      assert.is_truthy(message:find("durable_run_spec%.lua:%d+: run_command: option"), message)
    end
    assert.has_error(function() sandbox:run({ "x" }, { shell = false, capture = "exact" }) end)
  end)
end)

describe("a command whose output cannot be redirected", function()
  it("is an error with what the shell said, and a remedy", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.method == "GET" then
          local body = '{"code":"FILE_NOT_FOUND","message":"file not found"}'
          return connection:respond(404, { ["Content-Type"] = "application/json" }, body)
        elseif request.method == "DELETE" then
          return connection:respond(200, {}, "")
        end
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1", timestamp = 1 }
        connection:event { type = "stderr", text = "sh: cannot create /tmp/x: Read-only file system", timestamp = 2 }
        connection:event { type = "error", error = { ename = "CommandExecError", evalue = "2", traceback = { "exit status 2" } } }
        connection:finish()
      end
    ]]
    local client = opensandbox.new("http://127.0.0.1:1", "")
    local result, err = client:run_command(server.url, "echo lost", { capture = "exact" })
    client:close()
    server:stop()
    assert.is_nil(result)
    assert.same({ "state", "capture_failed", "run_command" }, { err.kind, err.code, err.op })
    assert.is_truthy(err.message:find("Read-only file system", 1, true))
    assert.is_truthy(err.hint:find("/tmp", 1, true))
  end)
end)

describe("a program without a shell", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      state.bodies = {}
      return function(request, connection)
        local body = json.decode(request.body)
        state.bodies[#state.bodies + 1] = body
        local old = request.path:find("^/old/") ~= nil
        if old and not body.command or body.cwd == "/none" then
          return connection:respond(400, { ["Content-Type"] = "application/json" },
            '{"code":"INVALID_REQUEST_BODY","message":"Field validation for Command failed on the required tag"}')
        end
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1", timestamp = 1 }
        connection:event { type = "execution_complete", timestamp = 2 }
        connection:finish()
      end
    ]]
    client = opensandbox.new("http://127.0.0.1:1", "")
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function sent(from)
    local list = {}
    for i, body in ipairs(server:state().bodies) do
      if i > from then list[#list + 1] = body.argv and table.concat(body.argv, "|") or body.command end
    end
    return list
  end

  it("is started by its arguments where execd can, and quoted for a shell where it cannot, which is found out once", function()
    local from = #server:state().bodies
    local function run(place, opts)
      return client:run_command(server.url .. place, { "echo", "a b" }, opts or { shell = false })
    end
    assert(run("/new"))
    assert(run("/new"))
    assert.same({ "echo|a b", "echo|a b" }, sent(from))
    from = from + 2
    assert(run("/old"))
    assert(run("/old"))
    assert.same({ "echo|a b", "echo 'a b'", "echo 'a b'" }, sent(from))
    from = from + 3
    assert(run("/old", {}))
    assert.same({ "echo 'a b'" }, sent(from))
  end)

  it("is known to be an execd's lack only when the shell could do it", function()
    local place = server.url .. "/newer"
    local _, err = client:run_command(place, { "ls" }, { shell = false, cwd = "/none" })
    assert.equal(400, err.status)
    local from = #server:state().bodies
    assert(client:run_command(place, { "ls" }, { shell = false }))
    assert.same({ "ls" }, sent(from))
    assert.is_table(server:state().bodies[from + 1].argv)
  end)
end)

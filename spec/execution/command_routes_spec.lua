--- Running a command: what is a result, what is not, and what the server gets to see.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local recordings = require "spec.support.recordings"
local wait_until = require "spec.support.wait_until"

local client

local function new(options)
  if client then client:close() end
  client = opensandbox.new("http://127.0.0.1:1", "", options)
  return client
end

local function close_client()
  if client then client:close() end
  client = nil
end

-- What the chunks of the servers below have in common: a stream that has begun.
local COMMON = [[
  local STREAM = { ["Content-Type"] = "text/event-stream" }
  local function begin(connection)
    connection:start(200, STREAM)
    connection:event { type = "init", text = "c1", timestamp = 1 }
    connection:event { type = "ping", text = "pong", timestamp = 1 }
    return connection
  end
  local function complete(connection)
    connection:event { type = "execution_complete", execution_time = 2, timestamp = 2 }
    return connection
  end
  local function failure(connection, value, trace)
    connection:event { type = "error", error = { ename = "CommandExecError", evalue = value, traceback = trace and { trace } } }
    return connection
  end
  local function say(connection, text, stream)
    connection:event { type = stream or "stdout", text = text, timestamp = 2 }
    return connection
  end
]]

-- Starts a server whose scenarios are functions by name: a request to /NAME/command runs the scenario of that name.
local function serve(scenarios)
  return fault_server.start(COMMON .. "local scenarios = {}\n" .. scenarios .. [[
    return {
      on_request = function(request, connection)
        local name = request.path:match("^/([%w_]+)/")
        if request.method == "DELETE" then
          state.interrupted = (state.interrupted or 0) + 1
          return connection:respond(200, {}, "")
        end
        -- Nothing can be found out by asking: what the stream proves is what counts here.
        if request.path:find("/command/status/", 1, true) then
          return connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
        end
        scenarios[name](connection, request)
      end,
      on_close = function(connection, who)
        local path = connection.request and connection.request.path
        local name = path and path:match("^/([%w_]+)/")
        if name and who:find("^client") then state[name] = (state[name] or 0) + 1 end -- a reset counts as well
      end,
    }
  ]])
end

describe("a command's stream", function()
  local server

  setup(function()
    server = serve [[
      local held
      function scenarios.tail(connection, request)
        if request.method == "GET" then return connection:respond(200, {}, "") end
        complete(say(begin(connection), "hello"))
        connection:after(2000, function()
          connection:event { type = "ping", text = "pong" }
          connection:finish()
          state.finished = true
        end)
      end
      function scenarios.endless(connection) complete(say(begin(connection), "hello")) end
      function scenarios.failing(connection) failure(say(begin(connection), "hello"), "3", "exit status 3") end
      function scenarios.silent(connection) say(begin(connection), "so far") end
      function scenarios.mute(connection) connection:silence() end
      function scenarios.pings(connection)
        begin(connection)
        local function ping(left)
          if left == 0 then return complete(say(connection, "late")):finish() end
          connection:event { type = "ping", text = "pong" }
          connection:after(100, function() ping(left - 1) end)
        end
        ping(12)
      end
      function scenarios.page(connection)
        connection:respond(200, { ["Content-Type"] = "text/html" }, "<html><title>Welcome</title>\n{}\n</html>")
      end
      function scenarios.empty(connection) connection:respond(200, STREAM, "") end
      function scenarios.object(connection) connection:respond(200, { ["Content-Type"] = "application/json" }, "{}") end
      function scenarios.noise(connection)
        begin(connection)
        connection:chunk("garbage\n\n{not json}\n\n\n\n: a comment\n\nid: 7\nevent: x\n\n[1,2]\n\n")
        connection:chunk("\"text\"\n\n42\n\nnull\n\n\255\254\n\n")
        connection:event { type = "status", text = "busy" }
        connection:event { type = "result", results = { ["text/plain"] = "no" } }
        connection:event { type = "from_the_future", code = "X", message = "not an error" }
        connection:event { type = 7, text = "x" }
        connection:event { type = { a = 1 }, text = "x" }
        connection:event { type = "stdout" }
        connection:event { type = "stdout", text = 5 }
        connection:event { type = "stdout", text = json.null }
        connection:event { text = "no type" }
        connection:event { type = "init", text = "c1" }
        complete(say(connection, "kept"))
      end
      function scenarios.data_lines(connection)
        connection:start(200, STREAM)
        connection:chunk('data: {"type":"init","text":"c1"}\n\n')
        connection:chunk('id: 1\nevent: message\ndata: {"type":"stdout",\ndata: "text":"a"}\r\n\r\n')
        connection:chunk('data:{"type":"execution_complete"}\n\n')
      end
      function scenarios.untyped(connection)
        say(begin(connection), "some")
        connection:chunk('{"code":"RUNTIME_ERROR","message":"the runner broke"}')
        connection:finish()
      end
      function scenarios.unstarted(connection)
        connection:start(200, STREAM)
        connection:event { type = "init", text = "c1" }
        failure(connection, "fork/exec /usr/bin/bash: operation not permitted")
      end
      function scenarios.lost_code(connection)
        failure(say(begin(connection), "done"), "waitid: no child processes", "waitid: no child processes")
      end
      function scenarios.lost_child(connection)
        failure(say(begin(connection), "done"), "unknown", "wait: no child processes")
      end
      function scenarios.null_trace(connection)
        connection:start(200, STREAM)
        connection:event { type = "init", text = "c1" }
        connection:event { type = "error", error = { ename = "CommandExecError", evalue = "4", traceback = json.null } }
      end
      function scenarios.killed(connection)
        begin(connection)
        connection:after(300, function() failure(connection, "-1", "signal: killed") end)
      end
      function scenarios.terminated(connection) failure(begin(connection), "-1", "signal: terminated") end
      function scenarios.background(connection)
        complete(begin(connection))
      end
      function scenarios.refused(connection)
        local body = '{"code":"INVALID_REQUEST_BODY","message":"no such cwd"}'
        connection:respond(400, { ["Content-Type"] = "application/json" }, body)
      end
      function scenarios.turns(connection, request)
        if request.method == "POST" then
          held = say(begin(connection), "1")
          state.turn = 1
        else
          connection:respond(200, {}, "")
          state.turn = state.turn + 1
          say(held, tostring(state.turn), state.turn % 2 == 0 and "stderr" or "stdout")
          if state.turn == 6 then complete(held) end
        end
      end
      function scenarios.lines(connection)
        begin(connection)
        for i = 1, 1000 do say(connection, ("%06d"):format(i)) end
        say(connection, "\n", "stderr")
        complete(connection)
      end
      function scenarios.long_line(connection)
        begin(connection)
        connection:chunk('{"type":"stdout","text":"' .. ("x"):rep(30000000) .. '"}\n\n')
        complete(connection)
      end
      function scenarios.too_long(connection)
        say(begin(connection), "before")
        connection:chunk('{"type":"stdout","text":"')
        local piece = ("x"):rep(1024 * 1024)
        local function more(left)
          if left == 0 or connection.gone then return end
          connection:chunk(piece)
          connection:after(0, function() more(left - 1) end)
        end
        more(200)
      end
      function scenarios.flood(connection)
        begin(connection)
        local line = assert(json.encode { type = "stdout", text = ("x"):rep(1000) }) .. "\n\n"
        local piece = line:rep(1000)
        local function more(left)
          if left == 0 then return complete(connection) end
          connection:chunk(piece)
          -- The next piece once this one is written: the server must not be the one that fills up.
          connection:enqueue(function()
            connection.tcp:write("", function() more(left - 1) end)
          end)
        end
        more(60)
      end
      function scenarios.trickle(connection)
        begin(connection)
        local function more(left)
          if connection.gone then return end
          if left == 0 then return complete(connection) end
          say(connection, "tick")
          connection:after(50, function() more(left - 1) end)
        end
        more(16)
      end
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() new() end)
  after_each(close_client)

  local function run(name, options, command)
    return client:run_command(server.url .. "/" .. name, command or "true", options)
  end

  it("ends the call at its terminal event, and the connection is used again when the rest has come", function()
    local before = server:connections().accepted
    local began = core.now()
    local result = assert(run("tail"))
    assert.is_true(core.now() - began < 1.5, "the call waited for the end of the stream")
    assert.equal("hello\n", result.stdout)
    wait_until(function() return server:state().finished and client:step(0.05) == 0 end)
    assert(client:ping(server.url .. "/tail"))
    assert.equal(1, server:connections().accepted - before)
  end)

  it("ends the call though it stays open for ever, and closing the client does not wait for it", function()
    local began = core.now()
    assert.equal(0, assert(run("endless")).exit_code)
    assert.equal(3, assert(run("failing")).exit_code)
    close_client()
    assert.is_true(core.now() - began < 1)
  end)

  it("that goes silent is a timeout that names the clock and carries what arrived", function()
    local began = core.now()
    local result, err = run("silent", { idle_timeout = 0.2 })
    assert.is_nil(result)
    assert.is_true(core.now() - began >= 0.15 and core.now() - began < 2)
    assert.equal("timeout", err.kind)
    assert.equal("idle_timeout", err.timeout_option)
    assert.equal("idle_timeout", err.code)
    assert.is_truthy(err.hint:find("idle_timeout", 1, true))
    assert.equal("so far\n", err.result.stdout)
    assert.is_nil(err.result.exit_code)
    assert.equal("c1", err.command_id)
    assert.is_false(err.retryable)
  end)

  it("that never begins is a timeout too, by either clock", function()
    local result, err = run("mute", { idle_timeout = 0.2 })
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.equal("idle_timeout", err.timeout_option)
    local posts = 0
    for _, request in ipairs(server:requests()) do
      if request.path == "/mute/command" then posts = posts + 1 end
    end
    assert.equal(1, posts)
  end)

  it("is kept alive by pings, far beyond the idle clock", function()
    local began = core.now()
    assert.equal("late\n", assert(run("pings", { idle_timeout = 0.6 })).stdout)
    assert.is_true(core.now() - began > 1)
  end)

  it("that is a web page is a protocol error", function()
    local result, err = run("page")
    assert.is_nil(result)
    assert.equal("protocol", err.kind)
    assert.equal("unexpected_response", err.code)
    assert.equal(200, err.status)
    assert.is_falsy(tostring(err):find("\n", 1, true))
  end)

  it("without an event is never a result", function()
    for _, name in ipairs { "empty", "object" } do
      local result, err = run(name)
      assert.is_nil(result, name)
      assert.equal("stream", err.kind)
      assert.is_false(err.retryable)
      assert.equal("", err.result.stdout)
      assert.is_nil(err.result.exit_code)
    end
  end)

  it("may hold garbage, unknown events and events of unknown shapes", function()
    local result = assert(run("noise"))
    assert.equal("kept\n", result.stdout)
    assert.equal(0, result.exit_code)
    assert.equal("c1", result.id)
  end)

  it("may be a standard event stream", function()
    local result = assert(run("data_lines"))
    assert.equal("a\n", result.stdout)
    assert.equal("c1", result.id)
    assert.equal(0, result.exit_code)
  end)

  it("that ends with an error body is a failure with that code", function()
    local result, err = run("untyped")
    assert.is_nil(result)
    assert.equal("state", err.kind)
    assert.equal("RUNTIME_ERROR", err.code)
    assert.is_truthy(err.message:find("the runner broke", 1, true))
    assert.equal("some\n", err.result.stdout)
  end)

  it("tells a command that could not be started from one that failed", function()
    local result, err = run("unstarted")
    assert.is_nil(result)
    assert.equal("start_failed", err.code)
    assert.is_truthy(err.message:find("operation not permitted", 1, true))
    assert.equal("CommandExecError", err.result.error.name)
    assert.equal(4, assert(run("null_trace")).exit_code)
  end)

  it("does not take an exit code that execd lost for a start failure", function()
    for _, name in ipairs { "lost_code", "lost_child" } do
      local result, err = run(name)
      assert.is_nil(result)
      assert.equal("stream", err.kind)
      assert.equal("exit_code_unknown", err.code)
      assert.equal("done\n", err.result.stdout)
      assert.is_nil(err.result.exit_code)
      assert.is_false(err.retryable)
    end
  end)

  it("tells a timeout from a signal by the time that passed", function()
    local result = assert(run("killed", { timeout = 0.3 }))
    assert.equal(-1, result.exit_code)
    assert.equal("killed", result.signal)
    assert.is_true(result.timed_out)
    result = assert(run("killed"))
    assert.equal("killed", result.signal)
    assert.is_nil(result.timed_out)
    result = assert(run("killed", { timeout = 30 }))
    assert.is_nil(result.timed_out)
    result = assert(run("terminated", { timeout = 30 }))
    assert.equal("terminated", result.signal)
    assert.is_nil(result.timed_out)
  end)

  it("of a background command proves only that it started", function()
    local result = assert(run("background", { background = true }))
    assert.equal("c1", result.id)
    assert.is_nil(result.exit_code)
  end)

  it("that is refused is an error of the server, without a result", function()
    local result, err = run("refused")
    assert.is_nil(result)
    assert.equal("http", err.kind)
    assert.equal("INVALID_REQUEST_BODY", err.code)
    assert.equal(400, err.status)
    assert.equal("run_command", err.op)
  end)

  it("gives text to the callbacks as it comes, in order", function()
    local other = opensandbox.new(server.url, "")
    finally(function() other:close() end)
    local seen = {}
    local function turn(name)
      return function(text)
        seen[#seen + 1] = name .. text
        -- The server says nothing further until it is asked: what is given late would never come.
        if #seen < 6 then assert(other:ping(server.url .. "/turns")) end
      end
    end
    local result = assert(run("turns", { on_stdout = turn "o", on_stderr = turn "e", idle_timeout = 5 }))
    assert.same({ "o1\n", "e2\n", "o3\n", "e4\n", "o5\n", "e6\n" }, seen)
    assert.equal("1\n3\n5\n", result.stdout)
    assert.equal("2\n4\n6\n", result.stderr)
  end)

  it("gives every event to on_event, before its text", function()
    local seen = {}
    assert(run("failing", {
      on_event = function(event) seen[#seen + 1] = event.type end,
      on_stdout = function(text) seen[#seen + 1] = text end,
    }))
    assert.same({ "init", "ping", "stdout", "hello\n", "error" }, seen)
  end)

  it("lets the error of a callback through unchanged, closes the connection and leaks nothing", function()
    new():ping(server.url .. "/tail")
    close_client()
    local before = process.descriptors()
    for _, name in ipairs { "on_stdout", "on_event" } do
      for _, thrown in ipairs { { "a table" }, "text" } do
        new()
        local closed, interrupted = server:state().silent or 0, server:state().interrupted or 0
        local ok, caught = pcall(run, "silent", { [name] = function() error(thrown, 0) end })
        assert.is_false(ok)
        assert.equal(thrown, caught)
        wait_until(function() return (server:state().silent or 0) > closed end)
        wait_until(function() return client:step(0) == 0 end)
        assert.equal(interrupted + 1, server:state().interrupted)
        assert(client:ping(server.url .. "/tail"))
        close_client()
      end
    end
    if before then assert.equal(before, (process.descriptors())) end
  end)

  it("keeps the two ends of a long output and counts the rest; callbacks get all of it", function()
    local pieces = {}
    local result = assert(run("lines", { max_output = 70, on_stdout = function(text) pieces[#pieces + 1] = text end }))
    local all = table.concat(pieces)
    assert.equal(7000, #all)
    assert.equal(all:sub(1, 35) .. all:sub(-35), result.stdout)
    assert.equal(7000 - 70, result.stdout_dropped)
    assert.equal("\n", result.stderr)
    assert.equal(0, result.stderr_dropped)
    result = assert(run("lines", { max_output = 0 }))
    assert.equal("", result.stdout)
    assert.equal(7000, result.stdout_dropped)
    assert.equal(1, result.stderr_dropped)
    new { max_output = 14 }
    result = assert(run("lines"))
    assert.equal("000001\n001000\n", result.stdout)
    assert.equal(7000 - 14, result.stdout_dropped)
  end)

  it("may hold one line of 30 MB", function()
    local began = os.clock() -- processor time
    local longest = 0
    local result = assert(run("long_line", { max_output = 64e6, on_stdout = function(text) longest = #text end }))
    assert.equal(30000001, #result.stdout)
    assert.equal(30000001, longest)
    assert.equal("x\n", result.stdout:sub(-2))
    assert.is_true(os.clock() - began < 5)
  end)

  it("with an event that does not end is given up, with what arrived before", function()
    collectgarbage()
    collectgarbage()
    local before = process.rss()
    local began = os.clock() -- processor time
    local result, err = run("too_long")
    local after = process.rss()
    assert.is_nil(result)
    assert.equal("protocol", err.kind)
    assert.equal("frame_too_large", err.code)
    assert.equal("before\n", err.result.stdout)
    assert.is_true(os.clock() - began < 8)
    if before then assert.is_true(after.current - before.current < 32 * 1024, "the memory was kept") end
    wait_until(function() return server:state().too_long end)
  end)

  it("faster than its reader waits in the network, not in memory", function()
    collectgarbage()
    collectgarbage()
    if not process.rss() then return pending("no /proc here") end
    local base, largest, count = nil, 0, 0
    local result = assert(run("flood", { max_output = 1000, on_stdout = function(text)
      count = count + #text
      if not base then
        local pause = core.now() + 0.3
        repeat until core.now() > pause
        base = process.rss()
      elseif count % (1001 * 5000) == 0 then
        collectgarbage() -- what earlier tests held decides when Lua would do it by itself
        largest = math.max(largest, process.rss().current - base.current)
      end
    end }))
    assert.equal(60 * 1000 * 1001, count)
    assert.equal(count - 1000, result.stdout_dropped)
    assert.is_true(largest < 24 * 1024, ("60 MB of output took %d KiB of memory"):format(largest))
  end)

  it("is not called silent while the callback is the slow one", function()
    local first = true
    local result = assert(run("trickle", { idle_timeout = 0.4, on_stdout = function()
      local pause = core.now() + (first and 1 or 0)
      first = false
      repeat until core.now() > pause
    end }))
    assert.equal(16 * 5, #result.stdout)
  end)
end)

describe("a stream cut at any byte", function()
  local server, body, ends

  setup(function()
    server = fault_server.start [[
      local body = recording("execd/command-exit-3").response.body
      local function chunked(bytes) return ("%x\r\n%s\r\n"):format(#bytes, bytes) end
      local head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
      return function(request, connection)
        local mode, position = request.path:match("^/(%l+)/(%d+)/command$")
        if not mode then return connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found") end
        local bytes = body:sub(1, tonumber(position))
        if mode == "drip" then
          local pieces = {}
          for i = 1, #body, 7 do pieces[#pieces + 1] = chunked(body:sub(i, i + 6)) end
          connection:drip(head .. "Transfer-Encoding: chunked\r\n\r\n" .. table.concat(pieces) .. "0\r\n\r\n", 1)
        elseif mode == "head" then
          connection:send((head .. "Transfer-Encoding: chunked\r\n\r\n"):sub(1, tonumber(position))):close()
        elseif mode == "chunk" then
          connection:send(head .. "Transfer-Encoding: chunked\r\n\r\n")
          -- The cut is inside a chunk: more was promised than comes.
          if bytes ~= "" then connection:send(("%x\r\n"):format(#body) .. bytes) end
          connection:close()
        elseif mode == "length" then
          connection:send(head .. "Content-Length: " .. #body + 2 .. "\r\n\r\n" .. bytes):close()
        elseif mode == "eof" then
          connection:send(head .. "Connection: close\r\n\r\n" .. bytes):close()
        elseif mode == "reset" then
          connection:send(head .. "Transfer-Encoding: chunked\r\n\r\n")
          if bytes ~= "" then connection:send(chunked(bytes)) end
          connection:after(30, connection.reset)
        end
      end
    ]]
    body = recordings.load("execd/command-exit-3").response.body
    ends = {}
    for name, marker in pairs { init = '"init"', stdout = '"stdout"', stderr = '"stderr"', failure = '"error"' } do
      local at = assert(body:find(marker, 1, true))
      ends[name] = assert(body:find("\n", at, true)) - 1 -- the last byte of the event's JSON
    end
  end)

  teardown(function() server:stop() end)
  before_each(function() new() end)
  after_each(close_client)

  local function check(mode, position)
    local what = mode .. " at byte " .. position
    local result, err = client:run_command(server.url .. "/" .. mode .. "/" .. position, "x")
    if position >= ends.failure then
      assert.is_table(result, what .. ": " .. tostring(err))
      assert.equal(3, result.exit_code, what)
      assert.equal("out\n", result.stdout, what)
      assert.equal("err\n", result.stderr, what)
      return
    end
    assert.is_nil(result, what)
    assert.equal("stream", err.kind, what)
    assert.equal("cut", err.code, what)
    assert.is_false(err.retryable, what)
    assert.equal(position >= ends.stdout and "out\n" or "", err.result.stdout, what)
    assert.equal(position >= ends.stderr and "err\n" or "", err.result.stderr, what)
    assert.is_nil(err.result.exit_code, what)
    assert.equal(position >= ends.init and "ae73c55e22c8412fb8e4f46eb077b46d" or nil, err.command_id, what)
    assert.is_falsy(tostring(err):find("\n", 1, true), what)
  end

  for _, mode in ipairs { "chunk", "length", "eof" } do
    it(("is a result only when the terminal event was complete (%s)"):format(mode), function()
      for position = 0, #body do check(mode, position) end
      local commands = 0
      for _, request in ipairs(server:requests()) do
        if request.path:find("^/" .. mode .. "/%d+/command$") then commands = commands + 1 end
      end
      assert.equal(#body + 1, commands, "a command was sent twice, or not at all")
    end)
  end

  it("by a reset is no different", function()
    for _, position in ipairs { 0, 1, ends.init, ends.stdout - 1, ends.stdout, ends.stdout + 2, ends.stderr + 2,
      ends.failure - 1, ends.failure, #body } do
      check("reset", position)
    end
  end)

  it("of its head is an error that knows of no output", function()
    for _, position in ipairs { 1, 5, 12, 17, 40, 60, 79 } do
      local result, err = client:run_command(server.url .. "/head/" .. position, "x")
      assert.is_nil(result)
      -- From 8.20 or so on, libcurl takes a head that lacks only its last byte as complete.
      local is_right = err.kind == "transport" or err.kind == "protocol" or (position == 79 and err.kind == "stream")
      assert.is_true(is_right, position .. ": " .. tostring(err))
      assert.equal("", err.result and err.result.stdout or "")
      assert.is_false(err.retryable)
    end
  end)

  it("that comes byte by byte is right", function()
    local result = assert(client:run_command(server.url .. "/drip/0", "x"))
    assert.equal(3, result.exit_code)
    assert.equal("out\n", result.stdout)
    assert.equal("err\n", result.stderr)
  end)
end)

describe("a command on the wire", function()
  local server

  setup(function()
    server = serve [[
      function scenarios.run(connection) complete(begin(connection)):finish() end
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() new() end)
  after_each(close_client)

  local function sent(command, options)
    assert(client:run_command(server.url .. "/run", command, options))
    local requests = server:requests()
    local request = requests[#requests]
    assert.equal("POST", request.method)
    assert.equal("/run/command", request.path)
    assert.equal("application/json", request.headers["content-type"])
    assert.equal("text/event-stream", request.headers.accept)
    return assert(json.decode(request.body)), request
  end

  it("is the text as it was given", function()
    for _, text in ipairs { "echo hi", "a\nb", " x ", "\195\169 'q' \"d\" \\ $HOME", "a\tb\127\1" } do
      assert.same({ command = text }, (sent(text)))
    end
  end)

  it("is a list quoted so that a shell finds the same arguments", function()
    local lists = {
      { "printf", "<%s>", "a b", "it's", "", "line\nline", "\195\169\226\130\172", "$HOME `id` \\ \"", "*", "-n" },
      { "printf", "<%s>", "!", "#x", "~", "a=b" },
      { "printf", "<%s>", "'", "''", "'\\''", ";", "&", "|", ">", "(", "{a,b}", "\t" },
      { "printf", "<%s>" },
    }
    for _, list in ipairs(lists) do
      local command = sent(list).command
      local child = process.start { argv = { "sh", "-c", command } }
      child:wait(10)
      local expected = {}
      for i = 3, #list do expected[#expected + 1] = "<" .. list[i] .. ">" end
      local output = child:output()
      child:stop()
      assert.equal(#expected > 0 and table.concat(expected) or "<>", output)
    end
    assert.equal("echo 'a b' plain", sent({ "echo", "a b", "plain" }).command)
  end)

  it("carries each option under execd's name", function()
    assert.same({ command = "x", cwd = "/w", timeout = 1500, envs = { A = "1", B = "" }, uid = 0, gid = 7, background = true },
      (sent("x", { cwd = "/w", timeout = 1.5, env = { A = "1", B = "" }, uid = 0, gid = 7, background = true })))
    assert.same({ command = "x", timeout = 1 }, (sent("x", { timeout = 0.0001 })))
    assert.same({ command = "x" }, (sent("x", { env = {}, background = false })))
    local _, request = sent("x", { timeout = 3600, uid = 1000 })
    assert.is_truthy(request.body:find('"timeout":3600000[,}]'), request.body)
    assert.is_truthy(request.body:find('"uid":1000[,}]'), request.body)
  end)

  it("is refused at the caller's line when it is a mistake", function()
    local function bad(command, options)
      local ok, message = pcall(client.run_command, client, server.url, command, options)
      assert.is_false(ok, "nothing was raised")
      assert.is_truthy(message:find("command_routes_spec%.lua:%d+: run_command: "), message)
    end
    local before = #server:requests()
    for _, command in ipairs { "", {}, { "" }, { true }, { "a", {} }, "a\0b", 5, true, { "a", "b\0c" } } do bad(command) end
    bad(nil)
    for _, options in ipairs {
      { timeout = 0 }, { timeout = "5" }, { cwd = "" }, { env = { A = true } }, { env = { "A" } }, { uid = -1 }, { uid = 1.5 },
      { gid = 5 }, { background = 1 }, { on_stdout = "f" }, { on_stderr = {} }, { on_event = 1 }, { max_output = -1 },
      { idle_timeout = 0 }, { tiemout = 1 },
    } do bad("x", options) end
    assert.equal(before, #server:requests())
  end)
end)

describe("a command is sent once", function()
  local server

  setup(function()
    server = serve [[
      local counts = {}
      local JSON = { ["Content-Type"] = "application/json" }
      local function refusing(times, status, headers, body)
        return function(connection, request)
          if request.method == "GET" then return connection:respond(200, {}, "") end
          local name = request.path:match("^/([%w_]+)/")
          counts[name] = (counts[name] or 0) + 1
          if counts[name] <= times then return connection:respond(status, headers, body) end
          complete(say(begin(connection), "ran")):finish()
        end
      end
      function scenarios.dies(connection, request)
        if request.method == "GET" then return connection:respond(200, {}, "") end
        connection:close()
      end
      function scenarios.resets(connection, request)
        if request.method == "GET" then return connection:respond(200, {}, "") end
        connection:reset()
      end
      scenarios.error500 = refusing(9, 500, JSON, '{"code":"RUNTIME_ERROR","message":"x"}')
      scenarios.gateway502 = refusing(9, 502, { ["Content-Type"] = "text/html" }, "<html><title>Bad Gateway</title>")
      scenarios.overload503 = refusing(9, 503, {}, "over the limit")
      scenarios.gateway504 = refusing(9, 504, {}, "")
      scenarios.date503 = refusing(1, 503, { ["Retry-After"] = "Wed, 21 Oct 2026 07:28:00 GMT",
        Date = "Wed, 21 Oct 2026 07:28:00 GMT" }, "")
      scenarios.backend = refusing(1, 502, JSON, '{"code":"BACKEND_CONNECTION_FAILED","message":"no"}')
      scenarios.proxy = refusing(1, 502, JSON, '{"code":"X","message":"Could not connect to the backend sandbox x"}')
      scenarios.busy = refusing(2, 429, {}, "slow down")
      scenarios.later = refusing(1, 503, { ["Retry-After"] = "0.1" }, "")
      function scenarios.long_after_busy(connection)
        counts.long = (counts.long or 0) + 1
        if counts.long == 1 then return connection:respond(429, {}, "") end
        say(begin(connection), "ran")
        connection:after(1200, function() complete(connection) end)
      end
    ]]
  end)

  teardown(function() server:stop() end)
  before_each(function() new { retry = { base_delay = 0.01 } } end)
  after_each(close_client)

  local function commands(name)
    local count = 0
    for _, request in ipairs(server:requests()) do
      if request.path == "/" .. name .. "/command" then count = count + 1 end
    end
    return count
  end

  it("when the server dies with it, on a new connection and on one used before", function()
    for _, name in ipairs { "dies", "resets" } do
      for reused = 0, 1 do
        new()
        if reused == 1 then assert(client:ping(server.url .. "/" .. name)) end
        local before = commands(name)
        local result, err = client:run_command(server.url .. "/" .. name, "x")
        assert.is_nil(result)
        assert.equal("transport", err.kind)
        assert.is_false(err.retryable)
        assert.equal(1, commands(name) - before)
      end
    end
  end)

  it("when the answer does not prove that it was refused", function()
    for name, status in pairs { error500 = 500, gateway502 = 502, overload503 = 503, gateway504 = 504 } do
      local result, err = client:run_command(server.url .. "/" .. name, "x")
      assert.is_nil(result)
      assert.equal("http", err.kind)
      assert.equal(status, err.status)
      assert.is_false(err.retryable, name)
      assert.equal(1, commands(name), name)
    end
  end)

  it("again only when the answer proves that it was refused", function()
    for name, tries in pairs { backend = 2, proxy = 2, busy = 3, later = 2, date503 = 2 } do
      local result = assert(client:run_command(server.url .. "/" .. name, "x"))
      assert.equal("ran\n", result.stdout)
      assert.equal(tries, commands(name), name)
    end
  end)

  it("and one that was refused first has its own time afterwards, not that of a plain call", function()
    new { timeout = 0.8, retry = { base_delay = 0.01 } }
    local result = assert(client:run_command(server.url .. "/long_after_busy", "x", { timeout = 5 }))
    assert.equal("ran\n", result.stdout)
  end)
end)

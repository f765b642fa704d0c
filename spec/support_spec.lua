--- The test support, tested: a helper that sees what is not there would make every other test worthless.

local uv = require "luv"
local fault_server = require "spec.support.fault_server"
local http_client = require "spec.support.http_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local recordings = require "spec.support.recordings"
local replay_server = require "spec.support.replay_server"
local temporary = require "spec.support.temporary"
local wait_until = require "spec.support.wait_until"

-- Every server that a test starts is stopped after it, also when the test fails.
local started = {}

local function serve(source)
  local server = fault_server.start(source)
  started[#started + 1] = server
  return server
end

local function replaying(options)
  local server = replay_server.start(options)
  started[#started + 1] = server
  return server
end

local function texts(response)
  local list = {}
  for index, chunk in ipairs(response.chunks) do list[index] = chunk[2] end
  return list
end

-- Repeats a recorded request against a replay server.
local function repeated(server, recording, changes)
  local request = recording.request
  local options = {
    url = server:base(recording.name) .. request.path, method = request.method, headers = {},
    body = request.body ~= "" and request.body or nil,
  }
  for name, value in pairs(request.headers) do
    if name ~= "Content-Length" and name ~= "Host" then options.headers[name] = value end
  end
  for name, value in pairs(changes or {}) do options[name] = value end
  return http_client.request(options)
end

after_each(function()
  for index, server in ipairs(started) do
    server:stop()
    started[index] = nil
  end
end)

describe("a child process", function()
  local lua = process.lua()

  it("is read line by line and leaves nothing behind", function()
    local descriptors, children = process.descriptors(), #process.children()
    local child = process.start { argv = { lua, "-e", [[
      for line in io.lines() do io.write("got ", line, "\n") io.flush() end
      io.stderr:write("bye\n") os.exit(3)]] } }
    assert.is_nil((child:read_line(0.05)))
    assert.is_true(child:write("one\ntwo\n"))
    assert.equal("got one", child:read_line(5))
    assert.equal("got two", child:read_line(5))
    assert.equal(children + 1, #process.children())
    assert.is_true(child:running())
    assert.same({ 3, 0 }, { child:stop() })
    assert.same({ 3, 0 }, { child:stop() })
    assert.equal("bye\n", child:stderr_text())
    assert.same({ "stopped" }, { select(2, child:read_line(1)) })
    local living, zombies = process.children()
    assert.same({ children, 0 }, { #living, #zombies })
    assert.equal(descriptors, process.descriptors())
    assert.is_false(uv.loop_alive())
  end)

  it("that does not listen is stopped by force", function()
    local child = process.start { argv = { "sleep", "60" } }
    local before = uv_loop.now()
    assert.same({ 0, 15 }, { child:stop() })
    assert.is_true(uv_loop.now() - before < 3000)
  end)

  it("that cannot be started is an error", function()
    assert.error_matches(function() process.start { argv = { "/nonexistent/program" } } end, "ENOENT")
    assert.is_false(uv.loop_alive())
  end)

  it("has measurable memory", function()
    local memory = process.rss()
    if not memory then return pending("nothing to measure it by") end
    assert.is_true(memory.current > 500 and memory.peak >= memory.current)
  end)
end)

describe("the fault server", function()
  it("logs what it received, byte for byte", function()
    local server = serve [[return function(request, connection)
      state.seen = (state.seen or 0) + 1
      connection:respond(201, { ["X-Length"] = #request.body }, request.body)
    end]]
    local body = "a\0b\255\r\n"
    local response = http_client.request {
      url = server.url .. "/p?q=1", body = body, headers = { { "X-Two", "1" }, { "x-two", "2" } },
    }
    assert.same({ 201, "Created", body, "6" }, {
      response.status, response.reason, response.body, response.headers["x-length"],
    })
    assert.equal(body, http_client.request({ url = server.url, body = { "a\0", "b\255\r\n" } }).body)
    local first, second = server:requests()[1], server:requests()[2]
    assert.same({ "POST", "/p?q=1", body, 6, true, 1, "1, 2" }, {
      first.method, first.path, first.body, first.body_bytes, first.body_complete, first.connection,
      first.headers["x-two"],
    })
    assert.same({ "X-Two", "1" }, first.raw_headers[2])
    assert.same({ "chunked", body, 2 }, { second.headers["transfer-encoding"], second.body, second.connection })
    assert.equal(2, server:state().seen)
    uv_loop.wait(function() return server:connections().open == 0 end, 2)
    local connections = server:connections()
    assert.same({ 2, 0, "server" }, { connections.accepted, connections.open, connections.list[1].closed_by })
  end)

  it("serves pipelined requests of a connection in order", function()
    local server = serve [[return function(request, connection)
      if request.path == "/slow" then
        connection:after(60, function() connection:respond(200, {}, "slow") end)
      else
        connection:respond(200, {}, "fast")
      end
    end]]
    local response = http_client.request {
      url = server.url, raw = "GET /slow HTTP/1.1\r\n\r\nGET /fast HTTP/1.0\r\n\r\n", headers = {},
    }
    assert.equal("slow", response.body)
    local connections = server:connections()
    assert.same({ 1, 2 }, { connections.accepted, connections.list[1].requests })
  end)

  it("cuts, and a cut is seen as a cut", function()
    local server = serve [[return function(request, connection)
      if request.path == "/length" then connection:respond(200, { ["Content-Length"] = 10 }, "short"):close() end
      if request.path == "/chunk" then connection:start(200):send("5\r\nabc"):close() end
      if request.path == "/last" then connection:start(200):chunk("abc"):close() end
      if request.path == "/none" then connection:close() end
      if request.path == "/open" then connection:send("HTTP/1.1 200 OK\r\n\r\nabc"):close() end
      if request.path == "/reset" then connection:start(200):chunk("abc"):after(30, connection.reset) end
    end]]
    local seen = {}
    for index, path in ipairs { "length", "chunk", "last", "open", "reset" } do
      local response = assert(http_client.request { url = server.url .. "/" .. path })
      seen[index] = { response.body, response.cut_by }
    end
    assert.same({
      { "short", "end of stream" }, { "abc", "end of stream" }, { "abc", "end of stream" }, { "abc" },
      { "abc", "ECONNRESET" },
    }, seen)
    assert.same({ "closed without a response" }, { select(2, http_client.request { url = server.url .. "/none" }) })
    assert.equal("timeout", (select(2, http_client.request { url = server.url .. "/silent", timeout = 0.05 })))
  end)

  it("sends chunks, events and single bytes when it is told to", function()
    local server = serve [[return function(request, connection)
      if request.path == "/drip" then
        return connection:drip("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", 4)
      end
      connection:send("HTTP/1.1 103 Early Hints\r\n\r\n")
      connection:start(200, { ["Content-Type"] = "text/event-stream" }):event { type = "init" }
      connection:after(80, function() connection:chunk("two"):finish() end)
    end]]
    local response = http_client.request { url = server.url }
    assert.same({ '{"type":"init"}\n\n', "two" }, texts(response))
    assert.equal(103, response.informational[1].status)
    assert.is_true(response.chunks[2][1] >= 75)
    local drip = http_client.request { url = server.url .. "/drip" }
    assert.equal("abcd", drip.body)
    assert.is_true(#drip.chunks > 1)
  end)

  it("can answer before the body, and stop reading it", function()
    local server = serve [[return {
      on_headers = function(request, connection)
        if request.path == "/early" then connection:respond(413, {}, "too much"):close() end
        if request.path == "/stuck" then connection:pause_reading() end
        if request.path == "/later" then connection:pause_reading():after(60, connection.resume_reading) end
      end,
      on_request = function(request, connection) connection:respond(200, {}, tostring(#request.body)) end,
      on_close = function(_, who) state.who = who end,
    }]]
    local large = ("x"):rep(8 * 1024 * 1024)
    assert.equal(413, http_client.request({ url = server.url .. "/early", body = large }).status)
    local later = http_client.request { url = server.url .. "/later", body = large }
    assert.equal(tostring(#large), later.body)
    assert.is_true(later.end_ms >= 55)
    assert.is_nil(http_client.request { url = server.url .. "/stuck", body = large, timeout = 0.1 })
    local requests = server:requests()
    assert.same({ false, true, false }, {
      requests[1].body_complete, requests[2].body_complete, requests[3].body_complete,
    })
    assert.is_true(requests[3].body_bytes < #large)
    assert.is_string(server:state().who)
  end)

  it("hands the bytes of an upgraded connection to the handler", function()
    local server = serve [[return function(_, connection)
      connection:send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\n"):take_over(function(bytes)
        connection:send("got " .. bytes):close()
      end)
    end]]
    local response = http_client.request { url = server.url, raw = "GET / HTTP/1.1\r\nUpgrade: echo\r\n\r\nhello" }
    assert.same({ 101, "got hello" }, { response.status, response.body })
  end)

  it("notices a client that hangs up", function()
    local server = serve [[return function(_, connection) connection:start(200):chunk("one") end]]
    local response = http_client.request { url = server.url, on_chunk = function() return false end }
    assert.is_true(response.aborted)
    assert.is_true(uv_loop.wait(function() return server:connections().open == 0 end, 2))
    assert.matches("^client", server:connections().list[1].closed_by)
  end)

  it("reports a handler that fails", function()
    local server = serve [[return function() error("oh no") end]]
    assert.equal(500, http_client.request({ url = server.url }).status)
    assert.error_matches(function() server:requests() end, "oh no")
    assert.error_matches(function() fault_server.start "return" end, "neither a function nor a table")
    assert.error_matches(function() fault_server.start "retur" end, "handler:1:")
  end)

  it("ends with the process that started it, however that ends", function()
    local child = process.start { argv = { process.lua(), "-e", [[
      local server = require("spec.support.fault_server").start "return function(_, c) c:respond(200) end"
      print(server.url)
      io.stdout:flush()
      require("luv").sleep(60000)]] }, env = process.module_paths() }
    local url = child:read_line(10)
    assert.equal(200, http_client.request({ url = url }).status)
    child:kill("sigkill")
    child:stop()
    local refused = false
    for _ = 1, 100 do
      refused = select(2, http_client.request { url = url }) == "ECONNREFUSED"
      if refused then break end
      uv_loop.sleep(0.02)
    end
    assert.is_true(refused)
  end)

  it("is gone when it was stopped", function()
    local server = fault_server.start [[return function(_, connection) connection:respond(200) end]]
    assert.equal(200, http_client.request({ url = server.url }).status)
    assert.same({ 0, 0 }, { server:stop() })
    assert.same({ "ECONNREFUSED" }, { select(2, http_client.request { url = server.url }) })
    assert.is_false(uv.loop_alive())
  end)
end)

describe("the replay server", function()
  local echo = assert(recordings.load("execd/command-echo"))
  local upload = assert(recordings.load("execd/upload-two-files"))

  it("sends the recorded bytes however they are cut", function()
    local binary = assert(recordings.load("execd/download-binary"))
    assert.equal(256, #binary.response.body)
    local counts = {}
    for index, chunking in ipairs { "recorded", "bytes", "whole", 5 } do
      local server = replaying { chunking = chunking }
      local response = assert(repeated(server, echo))
      assert.same({ 200, echo.response.body }, { response.status, response.body })
      assert.is_nil(response.cut)
      assert.equal("text/event-stream", response.headers["content-type"])
      counts[index] = #response.chunks
      assert.equal(binary.response.body, repeated(server, binary).body)
    end
    assert.same({ 4, #echo.response.body, 1 }, { counts[1], counts[2], counts[3] })
    assert.is_true(counts[4] > 1 and counts[4] < counts[2])
  end)

  it("sends single bytes of a body without chunks one by one", function()
    local server = replaying { chunking = "bytes" }
    local info = assert(recordings.load("execd/info"))
    local most = 0
    for _ = 1, 5 do
      local response = repeated(server, info)
      assert.equal(info.response.body, response.body)
      -- The client finds some of them together whenever it was not scheduled in time.
      most = math.max(most, #response.chunks)
    end
    assert.is_true(most > 20)
  end)

  it("keeps the recorded times", function()
    local recording = assert(recordings.load("execd/command-timeout"))
    local response = repeated(replaying { timing = "recorded" }, recording)
    local last = response.chunks[#response.chunks]
    assert.is_true(last[1] >= 495 and last[1] < 1400)
    assert.is_true(response.end_ms >= 1495 and response.end_ms < 3000)
  end)

  it("keeps a stream open whose recording was cut off", function()
    local recording = assert(recordings.load("execd/metrics-watch"))
    local _, problem, partial = repeated(replaying(), recording, { timeout = 0.1 })
    assert.equal("timeout", problem)
    assert.equal(recording.response.body, partial.body)
  end)

  it("takes requests that mean the same", function()
    local server = replaying()
    assert.equal(200, repeated(server, echo, { body = '{ "command" : "echo hello" }' }).status)
    local parts = upload.request.body:gsub("wire%-rec%-boundary", "other")
    local response = repeated(server, upload, {
      body = parts, headers = { ["content-type"] = "multipart/form-data; boundary=other" },
    })
    assert.equal(200, response.status)
    local list = assert(recordings.load("lifecycle/list-page-2"))
    local path, query = list.request.path:match("^(.*)%?(.*)$")
    local first, second = query:match("^(.*)&(.*)$")
    response = repeated(server, list, {
      url = server:base(list.name) .. path:gsub("s", "%%73") .. "?" .. second .. "&" .. first,
    })
    assert.equal(200, response.status)
    response = repeated(server, echo, { url = server:base("execd/ping+command-echo+metrics") .. "/command" })
    assert.equal(200, response.status)
  end)

  it("refuses any other request with 599 and says why", function()
    local server = replaying()
    local patch = assert(recordings.load("lifecycle/patch-metadata"))
    local renamed = upload.request.body:gsub('; filename="a.txt"', "")
    local wrong = {
      { echo, { method = "PUT" }, "method" },
      { echo, { url = server:base(echo.name) .. "/commands" }, "path" },
      { echo, { url = server:base(echo.name) .. "/command?a=b" }, "query" },
      { echo, { body = '{"command":"echo hello","x":[]}' }, "body" },
      { echo, { headers = { Range = "bytes=0-" } }, "range" },
      { patch, { body = '{"stage": "two"}' }, "null" },
      { patch, { headers = {} }, "api%-key" },
      { upload, { body = renamed }, "without filename" },
      { echo, { url = server:base("execd/nothing") }, "no recording" },
      { echo, { url = server.url .. "/" }, "no recording" },
    }
    for _, case in ipairs(wrong) do
      local response = repeated(server, case[1], case[2])
      assert.equal(599, response.status)
      assert.matches(case[3], response.body)
    end
    assert.equal(200, repeated(server, echo, { body = "{}", headers = { ["X-Replay-Loose"] = "1" } }).status)
    server = replaying { loose = { ["execd/command-echo"] = true } }
    assert.equal(200, repeated(server, echo, { body = "{}" }).status)
  end)
end)

describe("temporary files", function()
  it("are below TMPDIR, and removed with all that is in them, whatever its mode and wherever a link leads", function()
    local kept = temporary.file("kept")
    local directory = temporary.directory()
    local within = temporary.directory(directory)
    for _, path in ipairs { kept, directory, within } do
      assert.equal(1, (path:find((os.getenv("TMPDIR") or "/tmp"):gsub("/+$", "") .. "/", 1, true)), path)
    end
    temporary.file("content", within)
    assert(uv.fs_symlink(kept, within .. "/link"))
    assert.equal(2, #temporary.names(within))
    uv.fs_chmod(within, 0)
    temporary.remove(directory)
    assert.is_nil(uv.fs_lstat(directory))
    assert.equal(4, uv.fs_stat(kept).size)
    temporary.remove(kept)
    temporary.remove(kept)
    assert.is_nil(uv.fs_lstat(temporary.path()))
  end)
end)

describe("waiting until something is so", function()
  for name, wait in pairs { ["in the event loop of luv"] = uv_loop.wait_until, ["while tasks go on"] = wait_until } do
    it("returns what was waited for: " .. name, function()
      local asked = 0
      assert.equal("third", wait(function()
        asked = asked + 1
        return asked == 3 and "third"
      end))
    end)
  end

  it("raises at the caller's line when it takes too long", function()
    local ok, problem = pcall(function() uv_loop.wait_until(function() return false end, "the end", 0.02) end)
    assert.is_false(ok)
    assert.truthy(problem:find("support_spec.lua:%d+: not within 0.02 s: the end$"), problem)
  end)
end)

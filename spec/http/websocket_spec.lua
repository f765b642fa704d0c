--- A WebSocket as the library's objects hold it: waiting, several tasks at once, time limits, and errors.

local opensandbox = require "opensandbox"
local fault_server = require "spec.support.fault_server"
local wait_until = require "spec.support.wait_until"

describe("a WebSocket connection", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      local routes = {}

      function routes.echo(request, connection)
        state.log = websocket.accept(request, connection, { on_frame = function(peer, frame)
          if frame.payload == "close" then
            peer:close(4001, "taken over")
          elseif frame.payload == "cut" then
            connection:close()
          elseif frame.opcode == "text" or frame.opcode == "binary" then
            peer:send(frame.opcode, frame.payload)
          end
        end }).log
      end

      function routes.silence(request, connection)
        state.log = websocket.accept(request, connection, { manual = true }).log
      end

      function routes.late(request, connection) -- reads nothing for some time, then echoes
        websocket.accept(request, connection, { on_frame = function(peer, frame)
          if frame.opcode == "binary" then peer:send("text", tostring(#frame.payload)) end
        end })
        connection:pause_reading()
        connection:after(300, connection.resume_reading)
      end

      function routes.many(request, connection)
        local peer = websocket.accept(request, connection)
        for index = 1, 1000 do peer:send("text", "message " .. index) end
        peer:close(1000, "done")
      end

      function routes.refused(request, connection)
        local status, body = request.path:match("refused/(%d+)/?(.*)")
        connection:respond(tonumber(status), { ["Content-Type"] = body:find("^{") and "application/json" or "text/plain" },
          (body:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)))
      end

      function routes.taken(_, connection)
        connection:respond(409, { ["Content-Type"] = "application/json" },
          '{"code":"ALREADY_CONNECTED","message":"secret-token is connected"}')
      end

      function routes.unknown(_, connection)
        connection:respond(404, { ["Content-Type"] = "text/plain" }, "404 page not found")
      end

      function routes.never(_, connection) connection:silence() end

      function routes.wrong(request, connection)
        websocket.accept(request, connection, { headers = { ["Sec-WebSocket-Accept"] = "no" } })
      end

      function routes.bad(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", "good") .. websocket.frame("text", "\255") })
      end

      function routes.large(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", ("x"):rep(2000)) })
      end

      return function(request, connection)
        routes[request.path:match("^/(%l+)")](request, connection)
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "k") end)
  after_each(function() client:close() end)

  local function start(path, fields)
    local request = { op = "test:open", path = path, headers = { ["X-EXECD-ACCESS-TOKEN"] = "secret-token" } }
    for name, value in pairs(fields or {}) do request[name] = value end
    local endpoint = { url = server.url, headers = { ["X-EXECD-ACCESS-TOKEN"] = "secret-token" } }
    return client.http:open_websocket(endpoint, request)
  end

  local function open(path, fields)
    return assert(start(path, fields))
  end

  it("carries messages both ways", function()
    local connection = open("/echo")
    for _, message in ipairs { { "text", "hello" }, { "binary", "\0\255" }, { "text", "" } } do
      assert.is_true(connection:send(message[1], message[2]))
      assert.same(message, { connection:receive() })
    end
    assert.is_true(connection:is_open())
    assert.is_true(connection:close())
    assert.is_false(connection:is_open())
    assert.same({ 1000, "" }, { connection:close_status() })
  end)

  it("receives what came before the server's close frame, and then nil", function()
    local connection = open("/many")
    for index = 1, 1000 do assert.same({ "text", "message " .. index }, { connection:receive() }) end
    assert.same({ nil, nil }, { connection:receive() })
    assert.same({ nil, nil }, { connection:receive() })
    assert.same({ 1000, "done" }, { connection:close_status() })
    local ok, err = connection:send("text", "late")
    assert.is_nil(ok)
    assert.same({ "closed", "closed" }, { err.kind, err.code })
    assert.is_true(connection:close())
  end)

  it("is closed by either side", function()
    local connection = open("/echo")
    connection:send("text", "close")
    assert.same({ nil, nil }, { connection:receive() })
    assert.same({ 4001, "taken over" }, { connection:close_status() })

    connection = open("/echo")
    connection:send("text", "one")
    assert.is_true(connection:close(4000, "enough"))
    assert.same({ 4000, "enough" }, { connection:close_status() })
    assert.is_true(connection:close())
  end)

  it("may end with its scope, in the background", function()
    open("/echo"):detach()
    wait_until(function() return client.http.transport.multi:inflight() == 0 end)
    local log = server:state().log
    assert.same({ "close", 1000 }, { log[#log].opcode, log[#log].code })
    local connection = open("/echo")
    getmetatable(connection).__close(connection)
    local began = opensandbox.now()
    client:close()
    assert.is_true(opensandbox.now() - began < 1.5)
    log = server:state().log
    assert.same({ "close", 1000 }, { log[#log].opcode, log[#log].code })
  end)

  it("ends the waits of other tasks when it is cut or left to the background", function()
    for _, method in ipairs { "abort", "detach" } do
      local connection = open("/echo")
      local receiving = opensandbox.spawn(function() return connection:receive() end)
      opensandbox.sleep(0.05)
      connection[method](connection)
      local kind, err = receiving:wait(5)
      assert.is_nil(kind)
      assert.equal("closed", err.kind, tostring(err))
    end
  end)

  describe("gives as an error", function()
    it("the server's refusal, without the secrets that it repeats", function()
      local connection, err = start("/taken")
      assert.is_nil(connection)
      assert.same({ "http", 409, "ALREADY_CONNECTED", "test:open" }, { err.kind, err.status, err.code, err.op })
      assert.falsy(tostring(err):find("secret-token", 1, true))
      connection, err = start("/refused/401/unauthorized")
      assert.is_nil(connection)
      assert.same({ "http", 401 }, { err.kind, err.status })
      assert.truthy(err.hint:find("endpoint's headers", 1, true))
    end)

    it("that the server does not know the route", function()
      local _, err = start("/unknown")
      assert.is_true(require("opensandbox.base.errors").is_unknown_route(err))
    end)

    it("that the server does not switch", function()
      local _, err = start("/refused/200/hello")
      assert.same({ "protocol", "unexpected_response" }, { err.kind, err.code })
      assert.truthy(err.message:find("did not switch", 1, true))
      _, err = start("/refused/302/")
      assert.same({ "protocol", "redirect" }, { err.kind, err.code })
    end)

    it("a handshake that is not ours", function()
      local _, err = start("/wrong")
      assert.same({ "protocol", "websocket_violation" }, { err.kind, err.code })
      assert.truthy(err.message:find("Sec-WebSocket-Accept", 1, true))
      assert.is_false(err.retryable)
    end)

    it("a violation of the protocol, after what came before", function()
      local connection = open("/bad")
      assert.same({ "text", "good" }, { connection:receive() })
      local kind, err = connection:receive()
      assert.is_nil(kind)
      assert.same({ "protocol", "websocket_violation" }, { err.kind, err.code })
      assert.truthy(err.message:find("not UTF-8", 1, true))
    end)

    it("a message over the limit", function()
      local _, err = open("/large", { max_message = 1000 }):receive()
      assert.same({ "protocol", "message_too_large" }, { err.kind, err.code })
    end)

    it("a connection that was cut", function()
      local connection = open("/echo")
      connection:send("text", "cut")
      local kind, err = connection:for_op("test:receive"):receive()
      assert.is_nil(kind)
      assert.same({ "stream", "cut", "test:receive" }, { err.kind, err.code, err.op })
      local ok
      ok, err = connection:for_op("test:send"):send("text", "x")
      assert.is_nil(ok)
      assert.same({ "stream", "cut", "test:send" }, { err.kind, err.code, err.op })
      ok, err = connection:flush()
      assert.is_nil(ok)
      assert.same({ "stream", "test:open" }, { err.kind, err.op })
      ok, err = connection:close()
      assert.is_nil(ok)
      assert.equal("stream", err.kind)
      assert.is_nil(connection:close_status())
    end)

    it("that nobody listens, and it may be tried again", function()
      local dead = opensandbox.new("http://127.0.0.1:1", "k", { retry = false })
      local _, err = dead.http:open_websocket("http://127.0.0.1:1", { op = "test:open", path = "/" })
      assert.same({ "transport", "connect_failed", true, true }, { err.kind, err.code, err.not_sent, err.retryable })
      dead:close()
    end)

    it("that it was not open in time", function()
      local _, err = start("/never", { timeout = 0.1, option_names = { timeout = "open_timeout" } })
      assert.same({ "timeout", "timeout", "open_timeout" }, { err.kind, err.code, err.timeout_option })
    end)

    it("that nothing comes any more, not even an answer to a ping", function()
      local connection = open("/silence", { idle_timeout = 0.3 })
      local began = opensandbox.now()
      local _, err = connection:receive()
      assert.same({ "timeout", "idle_timeout", "idle_timeout" }, { err.kind, err.code, err.timeout_option })
      local seconds = opensandbox.now() - began
      assert.is_true(seconds >= 0.25 and seconds < 5, seconds)
      assert.equal("ping", server:state().log[1].opcode)
    end)

    it("that the server does not answer the close frame", function()
      local ok, err = open("/silence", { close_timeout = 0.2 }):close()
      assert.is_nil(ok)
      assert.same({ "timeout", "close_timeout", "close_timeout" }, { err.kind, err.code, err.timeout_option })
    end)

    it("that the client was closed", function()
      local connection = open("/silence")
      local results
      opensandbox.spawn(function() results = { connection:receive() } end)
      opensandbox.sleep(0.05)
      client:close()
      wait_until(function() return results end)
      assert.same({ nil, "closed" }, { results[1], results[2].kind })
    end)

    it("that it was aborted", function()
      local connection = open("/silence")
      connection:abort()
      local _, err = connection:receive()
      assert.equal("closed", err.kind)
      assert.is_false(connection:is_open())
      assert.is_true(connection:close())
    end)
  end)

  describe("has time limits of its calls:", function()
    it("no message in time is an error, and the connection stays", function()
      local connection = open("/echo")
      for _, seconds in ipairs { 0, 0.1 } do
        local began = opensandbox.now()
        local kind, err = connection:receive(seconds)
        assert.is_nil(kind)
        assert.same({ "timeout", "timeout", "timeout" }, { err.kind, err.code, err.timeout_option })
        assert.is_true(opensandbox.now() - began >= seconds)
      end
      connection:send("text", "still there")
      assert.same({ "text", "still there" }, { connection:receive(5) })
    end)

    it("a message that the full queue does not take is not sent", function()
      local connection = open("/late", { send_high_water = 1000 })
      local piece = ("x"):rep(100000)
      local sent = 0
      local ok, err
      repeat
        ok, err = connection:send("binary", piece, 0.05)
        if ok then sent = sent + 1 end
      until not ok
      assert.same({ "timeout", "timeout" }, { err.kind, err.code })
      assert.truthy(err.message:find("does not read", 1, true))
      local _, problem = connection:flush(0)
      assert.equal("timeout", problem and problem.kind)
      assert.is_true(connection:send("binary", "end", 5)) -- it reads again
      assert.is_true(connection:flush(5))
      for _ = 1, sent do assert.same({ "text", "100000" }, { connection:receive(5) }) end
      assert.same({ "text", "3" }, { connection:receive(5) })
    end)
  end)

  describe("and tasks:", function()
    it("one receives while another waits for room, and both go on", function()
      local connection = open("/late", { send_high_water = 1000 })
      local received, count = 0, 200
      local reader = opensandbox.spawn(function()
        for _ = 1, count do
          assert.same({ "text", "30000" }, { connection:receive() })
          received = received + 1
        end
      end)
      local writer = opensandbox.spawn(function()
        for _ = 1, count do assert(connection:send("binary", ("x"):rep(30000))) end
      end)
      writer:wait()
      reader:wait()
      assert.equal(count, received)
      assert.is_nil(next(client.http.transport.waiters))
    end)

    it("a cancelled one leaves the connection to the others", function()
      local connection = open("/echo")
      local err
      local task = opensandbox.spawn(function() err = select(2, connection:for_op("test:receive"):receive()) end)
      opensandbox.sleep(0.05)
      task:cancel()
      task:wait()
      assert.same({ "cancelled", "test:receive" }, { err.kind, err.op })
      assert.is_nil(next(client.http.transport.waiters))
      connection:send("text", "still there")
      assert.same({ "text", "still there" }, { connection:receive() })
    end)

    it("a cancelled one does not open a connection", function()
      local task = opensandbox.spawn(function() return select(2, start("/never")) end)
      opensandbox.sleep(0.05)
      task:cancel()
      assert.equal("cancelled", task:wait().kind)
      wait_until(function() return client.http.transport.multi:inflight() == 0 end)
    end)

    it("all who wait hear of the end", function()
      local connection = open("/echo")
      local kinds = {}
      for index = 1, 5 do
        opensandbox.spawn(function() kinds[index] = select(2, connection:receive()).kind end)
      end
      opensandbox.sleep(0.05)
      connection:send("text", "cut")
      wait_until(function() return #kinds == 5 end)
      assert.same({ "stream", "stream", "stream", "stream", "stream" }, kinds)
    end)
  end)

  it("reports its request to the hooks, and sends the headers of its destination", function()
    local seen = {}
    client:close()
    client = opensandbox.new(server.url, "k", {
      on_request = function(request) seen.request = request end,
      on_response = function(response) seen.response = response end,
    })
    open("/echo")
    assert.equal("GET", seen.request.method)
    assert.equal(101, seen.response.status)
    local requests = server:requests()
    local headers = requests[#requests].headers
    assert.equal("secret-token", headers["x-execd-access-token"])
    assert.is_nil(headers["open-sandbox-api-key"])
    assert.truthy(headers["user-agent"]:find("opensandbox-lua", 1, true))
  end)
end)

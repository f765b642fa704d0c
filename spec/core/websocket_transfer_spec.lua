--- Transfers that switch to WebSocket: messages both ways in bounded queues, pings, the closing handshake, and all the ways to break.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local procfs = require "spec.support.procfs"
local recordings = require "spec.support.recordings"
local transfers = require "spec.support.transfers"
local uv_loop = require "spec.support.uv_loop"

local step_until, finish, drain = transfers.step_until, transfers.finish, transfers.drain

describe("a WebSocket", function()
  local server, multi

  setup(function()
    server = fault_server.start [[
      local routes = {}
      local flood -- the connection of the last one

      function routes.echo(request, connection)
        state.peer = nil
        local parts = {}
        local peer = websocket.accept(request, connection, { on_frame = function(peer, frame)
          if frame.opcode == "text" or frame.opcode == "binary" then
            peer:send(frame.opcode, frame.payload)
          end
        end })
        state.log = peer.log
      end

      function routes.hello(request, connection) -- in the same segment as the head
        websocket.accept(request, connection, {
          with = websocket.frame("text", "first") .. websocket.frame("ping", "p") .. websocket.frame("binary", "\0second"),
        })
      end

      -- Counts what comes.
      function routes.count(request, connection)
        local peer
        peer = websocket.accept(request, connection, { on_frame = function(_, frame)
          state.frames, state.bytes = peer.frames, peer.bytes
        end })
      end

      function routes.flood(request, connection) -- 3 MB in pieces of 4095 bytes, as execd sends output
        local size, sent = 3000000, 0
        local pieces = {}
        while sent < size do
          local length = math.min(4095, size - sent)
          pieces[#pieces + 1] = websocket.frame("binary", ("%04d"):format(#pieces) .. ("x"):rep(length - 4))
          sent = sent + length
        end
        pieces[#pieces + 1] = websocket.close_frame(1000, "done")
        pieces = table.concat(pieces)
        local peer = websocket.accept(request, connection, { with = pieces })
        peer.closed = true
        flood, state.log = connection, peer.log
      end

      function routes.channels(request, connection)
        local messages = { "\1one", "\1", "\1two", "\2three", "\1four", "\3five", "\3six", "", "\1seven", "\1eight" }
        local frames = {}
        for index, message in ipairs(messages) do frames[index] = websocket.frame("binary", message) end
        frames[#frames + 1] = websocket.frame("text", "\1nine") .. websocket.frame("text", "\1ten") .. websocket.close_frame(1000)
        websocket.accept(request, connection, { with = table.concat(frames) }).closed = true
      end

      function routes.queue(_, connection) -- what the flood could not send yet
        connection:respond(200, {}, tostring(uv.stream_get_write_queue_size(flood.tcp)))
      end

      function routes.silence(request, connection) -- open, and answers nothing but a close
        state.log = websocket.accept(request, connection).log
      end

      function routes.deaf(request, connection) -- nor that
        state.log = websocket.accept(request, connection, { manual = true }).log
      end

      function routes.pong(request, connection)
        local peer = websocket.accept(request, connection, { on_frame = function(peer, frame)
          if frame.opcode == "ping" then peer:send("pong", frame.payload) end
        end })
        state.log = peer.log
      end

      function routes.pings(request, connection)
        local peer = websocket.accept(request, connection)
        state.log = peer.log
        local function ping()
          if connection.gone or peer.closed then return end
          peer:send("ping", "are you there?")
          connection:after(20, ping)
        end
        ping()
      end

      function routes.pingflood(request, connection) -- sends pings without end and reads nothing
        local peer = websocket.accept(request, connection)
        connection:pause_reading()
        connection:send(websocket.frame("ping", ("p"):rep(125)):rep(200000))
      end

      function routes.wedge(request, connection) -- stops reading for some time
        local peer
        peer = websocket.accept(request, connection, { on_frame = function()
          state.frames, state.bytes = peer.frames, peer.bytes
        end })
        connection:pause_reading()
        state.wedged = true
        routes.release = function(_, other)
          connection:resume_reading()
          other:respond(200, {}, "")
        end
      end

      function routes.bye(request, connection) -- closes and leaves the connection open, as execd does
        local peer = websocket.accept(request, connection, { with = websocket.frame("text", "last words") })
        peer:close(4001, "taken over")
        state.log = peer.log
      end

      function routes.nocode(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("close", "") }).closed = true
      end

      function routes.closed101(request, connection) -- as the server's proxy refuses
        websocket.accept(request, connection, { with = websocket.close_frame(1008, "") }).closed = true
        connection:close()
      end

      function routes.fin(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", "before the end") })
        connection:close()
      end

      function routes.rst(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", "before the end") })
        connection:after(100, connection.reset)
      end

      function routes.halfframe(request, connection)
        websocket.accept(request, connection, { with = websocket.frame("text", "whole") .. "\129\10half" })
        connection:close()
      end

      function routes.fin0(_, connection) connection:close() end
      function routes.rst0(_, connection) connection:reset() end
      function routes.halfhead(_, connection)
        connection:send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: web")
        connection:close()
      end
      function routes.silence0(_, connection) connection:silence() end

      routes["401"] = function(_, connection) connection:respond(401, {}, '{"error":"unauthorized"}') end
      routes["404"] = function(_, connection) connection:respond(404, {}, '{"code":"CONTEXT_NOT_FOUND"}') end
      routes["409"] = function(_, connection)
        connection:start(409, { ["Content-Type"] = "application/json" })
        connection:chunk('{"code":"ALREADY_CONNECTED",')
        connection:after(50, function()
          connection:chunk('"message":"already connected"}')
          connection:finish()
        end)
      end
      routes["409eof"] = function(_, connection)
        connection:send("HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\nuntil the end")
        connection:close()
      end
      routes["200"] = function(_, connection) connection:respond(200, {}, "<html>") end

      function routes.badaccept(request, connection)
        websocket.accept(request, connection, { headers = { ["Sec-WebSocket-Accept"] = ("A"):rep(27) .. "=" } })
      end
      function routes.noaccept(request, connection)
        websocket.accept(request, connection, { headers = { ["Sec-WebSocket-Accept"] = false } })
      end
      function routes.twoaccepts(request, connection)
        websocket.accept(request, connection, { headers = { ["X-After"] = "\r\nSec-WebSocket-Accept: " .. ("A"):rep(27) .. "=" } })
      end
      function routes.noupgrade(request, connection)
        websocket.accept(request, connection, { headers = { Upgrade = false } })
      end
      function routes.noconnection(request, connection)
        websocket.accept(request, connection, { headers = { Connection = "keep-alive" } })
      end
      function routes.other(request, connection)
        websocket.accept(request, connection, { headers = { Upgrade = "h2c" } })
      end
      function routes.extension(request, connection)
        websocket.accept(request, connection, { headers = { ["Sec-WebSocket-Extensions"] = "permessage-deflate" } })
      end
      function routes.subprotocol(request, connection)
        websocket.accept(request, connection, { headers = { ["Sec-WebSocket-Protocol"] = "chat" } })
      end
      function routes.lists(request, connection) -- as proxies write it
        websocket.accept(request, connection, { with = websocket.frame("text", "ok"),
          headers = { Upgrade = "WebSocket", Connection = "keep-alive , UpGrade" } })
      end

      local wrong = {
        masked = websocket.frame("text", "x", { mask = "abcd" }),
        reserved = websocket.frame("text", "x", { reserved = 4 }),
        opcode = websocket.frame(3, "x"),
        utf8 = websocket.frame("text", "a\255"),
        large = websocket.frame("binary", ("x"):rep(1001)),
        fragments = websocket.frame("binary", ("x"):rep(600), { fin = false }) .. websocket.frame("continuation", ("x"):rep(401)),
        order = websocket.frame("continuation", "x"),
        control = websocket.frame("ping", ("x"):rep(126)),
        code = websocket.close_frame(1005, ""),
      }
      function routes.wrong(request, connection)
        local name = request.path:match("wrong/(%w+)")
        local peer = websocket.accept(request, connection, { with = websocket.frame("text", "good") .. wrong[name] })
        peer:send("text", "behind")
        state.log = peer.log
      end

      function routes.replay(request, connection)
        local bytes = state.replay
        local peer = websocket.accept(request, connection, { manual = true })
        state.log = peer.log
        if request.path:find("drip") then connection:drip(bytes, 1) else connection:send(bytes) end
      end
      function routes.load(request, connection)
        state.replay = request.body
        connection:respond(200, {}, "")
      end

      return function(request, connection)
        local route = routes[request.path:match("^/(%w+)")]
        if not route then return connection:respond(404, {}, "no such route") end
        route(request, connection)
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() multi = core.multi() end)
  after_each(function() multi:close() end)

  local function start(path, fields)
    local request = { url = server.url .. path, connect_timeout = 5, timeout = 5 }
    for name, value in pairs(fields or {}) do request[name] = value end
    return multi:websocket(request)
  end

  local function open(path, fields)
    local transfer = start(path, fields)
    step_until(multi, function() return transfer:head() or transfer:outcome() end)
    assert.equal(101, (transfer:head()))
    return transfer
  end

  local function receive(transfer)
    local kind, bytes
    step_until(multi, function()
      kind, bytes = transfer:receive()
      return kind or transfer:outcome()
    end)
    return kind, bytes
  end

  local function send(transfer, kind, bytes)
    local sent
    step_until(multi, function()
      sent = transfer:send(kind, bytes)
      return sent ~= false
    end)
    assert.is_true(sent)
  end

  local function call(path, body)
    local transfer = multi:request { method = "POST", url = server.url .. path, body = body or "" }
    assert.equal("complete", (finish(multi, transfer)))
    return drain(transfer)
  end

  local function logged(opcode)
    local list = {}
    for _, frame in ipairs(server:state().log) do
      if frame.opcode == opcode then list[#list + 1] = frame end
    end
    return list
  end

  describe("that is opened", function()
    it("asks for it as the standard says, with the caller's headers and nothing of an upload", function()
      open("/silence", { headers = { "X-EXECD-ACCESS-TOKEN: t" } })
      local requests = server:requests()
      local request = requests[#requests]
      assert.equal("GET", request.method)
      local headers = request.headers
      assert.equal("websocket", headers.upgrade)
      assert.equal("Upgrade", headers.connection)
      assert.equal("13", headers["sec-websocket-version"])
      assert.truthy(headers["sec-websocket-key"]:find("^[%w+/]+==$"))
      assert.equal(24, #headers["sec-websocket-key"])
      assert.equal("t", headers["x-execd-access-token"])
      for _, name in ipairs { "content-length", "transfer-encoding", "content-type", "expect" } do
        assert.is_nil(headers[name], name)
      end
    end)

    it("draws another key each time", function()
      open("/silence")
      open("/silence")
      local requests = server:requests()
      assert.not_equal(requests[#requests].headers["sec-websocket-key"], requests[#requests - 1].headers["sec-websocket-key"])
    end)

    it("never uses a connection that has served before, nor leaves it to the next request", function()
      call("/load", "x")
      local transfer = open("/silence")
      transfer:send_close(1000)
      finish(multi, transfer)
      call("/load", "x")
      local requests, used = server:requests(), {}
      for index = #requests - 2, #requests do used[requests[index].connection] = (used[requests[index].connection] or 0) + 1 end
      assert.equal(1, used[requests[#requests - 1].connection])
    end)

    it("receives frames that came in one segment with the head", function()
      local transfer = open("/hello")
      assert.same({ "text", "first" }, { receive(transfer) })
      assert.same({ "binary", "\0second" }, { receive(transfer) })
    end)

    it("accepts the words of the head as proxies write them", function()
      assert.same({ "text", "ok" }, { receive(open("/lists")) })
    end)

    for path, words in pairs {
      ["/badaccept"] = "Sec-WebSocket-Accept", ["/noaccept"] = "Sec-WebSocket-Accept",
      ["/twoaccepts"] = "Sec-WebSocket-Accept", ["/noupgrade"] = "another protocol",
      ["/noconnection"] = "another protocol", ["/other"] = "another protocol", ["/extension"] = "an extension",
      ["/subprotocol"] = "an extension",
    } do
      it("refuses a head that answers another handshake: " .. path, function()
        local transfer = start(path)
        local outcome, message = finish(multi, transfer)
        assert.equal("websocket_violation", outcome)
        assert.truthy(message:find(words, 1, true), message)
        assert.is_nil(transfer:head())
      end)
    end

    for path, expected in pairs {
      ["/401"] = { 401, '{"error":"unauthorized"}' }, ["/404"] = { 404, '{"code":"CONTEXT_NOT_FOUND"}' },
      ["/409"] = { 409, '{"code":"ALREADY_CONNECTED","message":"already connected"}' }, ["/409eof"] = { 409, "until the end" },
      ["/200"] = { 200, "<html>" },
    } do
      it("ends as an ordinary response with its body when the server refuses: " .. path, function()
        local transfer = start(path)
        assert.equal("complete", (finish(multi, transfer)))
        assert.same(expected, { (transfer:head()), drain(transfer) })
        assert.is_nil(transfer:receive())
        assert.is_nil(transfer:send("text", "x"))
        assert.is_nil(transfer:send_close(1000))
        assert.is_nil(transfer:close_status())
      end)
    end

    for path, expected in pairs { ["/fin0"] = "receive_failed", ["/rst0"] = "receive_failed", ["/halfhead"] = "receive_failed" } do
      it("fails when the connection ends before the response: " .. path, function()
        local transfer = start(path)
        assert.equal(expected, (finish(multi, transfer)))
        assert.is_nil(transfer:head())
      end)
    end

    it("has its timeout for the response only", function()
      assert.equal("timeout", (finish(multi, start("/silence0", { timeout = 0.1 }))))
      local transfer = open("/echo", { timeout = 0.3 })
      local deadline = core.now() + 0.6
      while core.now() < deadline do multi:step(0.05) end
      assert.is_nil(transfer:outcome())
    end)

    it("fails as any transfer when nobody listens", function()
      assert.equal("connect_failed", (finish(multi, multi:websocket { url = "http://127.0.0.1:1/" })))
    end)
  end)

  describe("that is open", function()
    it("carries messages both ways", function()
      local transfer = open("/echo")
      for _, message in ipairs {
        { "text", "hello" }, { "binary", "\0\1\2\255" }, { "text", "" }, { "binary", "" }, { "text", "\226\130\172" },
        { "binary", ("x"):rep(125) }, { "binary", ("y"):rep(126) }, { "binary", ("z"):rep(65536) },
      } do
        assert.is_true(transfer:send(message[1], message[2]))
        assert.same(message, { receive(transfer) })
      end
    end)

    it("masks every frame that it sends, each with another mask", function()
      local transfer = open("/echo")
      for _ = 1, 3 do
        transfer:send("text", "same")
        receive(transfer)
      end
      for _, frame in ipairs(server:state().log) do assert.is_true(frame.masked) end
    end)

    it("sends 300 kB in one message, and in many", function()
      local payload = ("0123456789abcdef"):rep(18750)
      local transfer = open("/echo")
      send(transfer, "binary", payload)
      local _, bytes = receive(transfer)
      assert.is_true(bytes == payload)
      for position = 1, #payload, 1000 do send(transfer, "binary", payload:sub(position, position + 999)) end
      local parts, size = {}, 0
      while size < #payload do
        _, bytes = receive(transfer)
        parts[#parts + 1], size = bytes, size + #bytes
      end
      assert.is_true(table.concat(parts) == payload)
    end)

    it("receives 3 MB that the server sends as fast as it can", function()
      local transfer = open("/flood")
      local size, count = 0, 0
      local kind, bytes = receive(transfer)
      while kind do
        assert.equal(count, tonumber(bytes:sub(1, 4)))
        size, count = size + #bytes, count + 1
        kind, bytes = receive(transfer)
      end
      assert.equal(3000000, size)
      assert.equal("complete", (transfer:outcome()))
      assert.same({ 1000, "done" }, { transfer:close_status() })
    end)

    it("receives several in a row with the same first byte as one, where the request names this byte as a channel", function()
      local function messages(channels)
        local transfer = open("/channels", { channels = channels })
        assert.equal("complete", (finish(multi, transfer)))
        local list = {}
        for kind, bytes in function() return transfer:receive() end do list[#list + 1] = kind == "text" and { bytes } or bytes end
        return list
      end
      local apart = { "\1one", "\1", "\1two", "\2three", "\1four", "\3five", "\3six", "", "\1seven", "\1eight", { "\1nine" },
        { "\1ten" } }
      assert.same(apart, messages(nil))
      assert.same(apart, messages "")
      assert.same(apart, messages "on")
      local joined = { "\1onetwo", "\2three", "\1four", "\3five", "\3six", "", "\1seveneight", { "\1nine" }, { "\1ten" } }
      assert.same(joined, messages "\1")
      assert.same(joined, messages "\0\2\1\255")
    end)

    it("receives a stream of a channel whole, with pauses at flat memory", function()
      local transfer = open("/flood", { channels = "0", receive_high_water = 65536 })
      local size, longest = 0, 0
      local kind, bytes = receive(transfer)
      while kind do
        if bytes:sub(1, 1) == "0" then longest = math.max(longest, #bytes) end
        size = size + #bytes
        multi:step(0) -- more arrives before the next one is taken
        multi:step(0)
        kind, bytes = receive(transfer)
      end
      assert.is_true(longest > 4095, "pieces were joined")
      assert.is_true(longest <= 2 * 65536, longest .. " bytes")
      assert.is_true(size <= 3000000 and size > 3000000 - 3000000 / 4095 - 1, "each piece brings all its bytes but the channel")
      assert.equal("complete", (transfer:outcome()))
    end)

    it("stops receiving while nobody takes the messages, and loses none", function()
      local transfer = open("/flood", { receive_high_water = 65536 })
      local before
      -- The rest of the 3 MB stays in the sockets' buffers and in the server: it goes down no more.
      step_until(multi, function()
        multi:step(0.1)
        local left = tonumber(call("/queue"))
        local steady = left == before
        before = left
        return steady
      end)
      assert.is_nil(transfer:outcome())
      local size = 0
      local kind, bytes = transfer:receive()
      while kind do -- what was queued
        size = size + #bytes
        kind, bytes = transfer:receive()
      end
      assert.is_true(size >= 60000 and size <= 65536 + 20000, size .. " bytes were queued")
      kind, bytes = receive(transfer)
      while kind do
        size = size + #bytes
        kind, bytes = receive(transfer)
      end
      assert.equal(3000000, size)
    end)

    it("passes 200 pauses of receiving with sends in between", function()
      local transfer = open("/echo", { receive_high_water = 1 })
      local sent, received, pauses = 0, 0, 0
      for _ = 1, 200 do
        for _ = 1, 3 do
          sent = sent + 1
          send(transfer, "text", "message " .. sent)
        end
        -- With a mark of one byte it pauses behind each piece that it receives.
        for _ = 1, 3 do
          received = received + 1
          assert.same({ "text", "message " .. received }, { receive(transfer) })
          pauses = pauses + 1
        end
      end
      assert.is_true(pauses >= 200)
      transfer:send_close(1000)
      assert.equal("complete", (finish(multi, transfer)))
    end)

    it("accepts no more than its queue holds while the server does not read, and says when it does again", function()
      local transfer = open("/wedge", { send_high_water = 100000 })
      local piece, accepted = ("x"):rep(10000), 0
      local deadline = core.now() + 5
      local full = 0
      while full < 20 and core.now() < deadline do -- the sockets' buffers fill first
        local result = transfer:send("binary", piece)
        if result then accepted, full = accepted + 1, 0 else full = full + 1 end
        multi:step(0.01)
      end
      assert.equal(false, transfer:send("binary", piece))
      assert.is_true(transfer:unsent() <= 100000 + 10000 + 100, transfer:unsent())
      while multi:changed() do end -- nothing is left to be told
      call("/release")
      step_until(multi, function()
        local id = multi:changed()
        return id == transfer:id() and transfer:unsent() <= 50000
      end)
      assert.is_true(transfer:send("binary", piece))
      step_until(multi, function() return transfer:unsent() == 0 end)
      step_until(multi, function() return server:state().frames == accepted + 1 end)
      assert.equal((accepted + 1) * 10000, server:state().bytes)
    end)

    it("raises for a message that may not be sent", function()
      local transfer = open("/silence")
      assert.has_error(function() transfer:send("text", "a\255") end)
      assert.has_error(function() transfer:send("ping", "") end)
      assert.has_error(function() transfer:send("line", "") end)
      assert.has_error(function() transfer:send_close(1005) end)
      assert.has_error(function() transfer:send_close(2000) end)
      assert.has_error(function() transfer:send_close(1000, ("x"):rep(124)) end)
      assert.has_error(function() transfer:send_close(1000, "\255") end)
      assert.is_nil(transfer:outcome())
    end)

    it("is one transfer among others of its multi", function()
      local transfer = open("/echo")
      assert.equal(1, (multi:inflight()))
      while multi:changed() do end
      transfer:send("text", "x")
      assert.equal(0, multi:timeout()) -- a step would send it
      step_until(multi, function() return multi:changed() == transfer:id() end)
      call("/load", "x")
      step_until(multi, function() return transfer:receive() end)
      assert.is_nil(transfer:read())
      transfer:close()
      assert.equal(0, (multi:inflight()))
      assert.same({ "closed", "it was closed" }, { transfer:outcome() })
      assert.is_nil(transfer:receive())
      assert.is_nil(transfer:send("text", "x"))
      assert.is_nil(transfer:send_close(1000))
      assert.is_nil(transfer:close_status())
      assert.equal(0, transfer:unsent())
    end)

    it("sleeps while nothing happens", function()
      local transfer = open("/silence")
      multi:step(0)
      local began, steps = core.now(), 0
      while core.now() < began + 0.3 do
        multi:step(0.3)
        steps = steps + 1
      end
      assert.is_true(steps <= 5, steps .. " steps")
      assert.is_nil(transfer:outcome())
    end)
  end)

  describe("and its pings", function()
    it("are answered while the owner does nothing with the transfer", function()
      local transfer = open("/pings")
      step_until(multi, function() return #logged("pong") >= 5 end)
      assert.equal("are you there?", logged("pong")[1].text)
      assert.is_nil(transfer:receive())
    end)

    it("do not fill the memory when the server reads no answer", function()
      local transfer = open("/pingflood", { send_high_water = 65536 })
      local deadline, largest = core.now() + 1, 0
      local before = procfs.rss()
      while core.now() < deadline do
        multi:step(0.05)
        largest = math.max(largest, transfer:unsent())
      end
      assert.is_true(largest > 0 and largest <= 65536 + 200, largest)
      assert.is_nil(transfer:outcome())
      if before then assert.is_true(procfs.rss().current - before.current < 8 * 1024) end
    end)

    it("are sent when nothing came for a while; without an answer the server is given up", function()
      local transfer = open("/silence", { ping_interval = 0.1, ping_timeout = 0.2 })
      local began = core.now()
      local outcome, message = finish(multi, transfer)
      assert.equal("idle_timeout", outcome)
      assert.truthy(message:find("did not answer a ping", 1, true))
      assert.is_true(core.now() - began >= 0.25)
      assert.is_true(#logged("ping") >= 1)
    end)

    it("keep a connection on which nothing else comes, as long as they are answered", function()
      local transfer = open("/pong", { ping_interval = 0.05, ping_timeout = 0.2 })
      local deadline = core.now() + 0.6
      while core.now() < deadline do multi:step(0.05) end
      assert.is_nil(transfer:outcome())
      assert.is_true(#logged("ping") >= 3)
    end)

    it("prove nothing against a server that had no time to answer, because nobody made a step", function()
      local transfer = open("/pong", { ping_interval = 0.05, ping_timeout = 0.05 })
      multi:step(0.1) -- the ping is due
      uv_loop.sleep(1.2)
      for _ = 1, 20 do multi:step(0.02) end
      assert.is_nil(transfer:outcome())
    end)

    it("become pongs while we do not let the server speak, and it owes no answer then", function()
      local transfer = open("/flood", { ping_interval = 0.05, ping_timeout = 0.05, receive_high_water = 1000 })
      local deadline = core.now() + 0.5
      while core.now() < deadline do multi:step(0.05) end
      assert.is_nil(transfer:outcome())
      assert.is_true(#logged("pong") >= 2)
      local size = 0
      local kind, bytes = receive(transfer)
      while kind do
        size = size + #bytes
        kind, bytes = receive(transfer)
      end
      assert.same({ 3000000, "complete" }, { size, (transfer:outcome()) })
    end)
  end)

  describe("that ends", function()
    it("by the server's close frame is complete, although the server leaves the connection open", function()
      local transfer = open("/bye")
      assert.equal("complete", (finish(multi, transfer)))
      assert.same({ 4001, "taken over" }, { transfer:close_status() })
      assert.same({ "text", "last words" }, { transfer:receive() })
      assert.is_nil(transfer:receive())
      assert.is_nil(transfer:send("text", "x"))
      assert.same({ 4001 }, { logged("close")[1].code }) -- the answer
    end)

    it("by a close frame without a code", function()
      local transfer = open("/nocode")
      assert.equal("complete", (finish(multi, transfer)))
      assert.same({ 1005, "" }, { transfer:close_status() })
    end)

    it("by a close right behind the head", function()
      local transfer = start("/closed101")
      assert.equal("complete", (finish(multi, transfer)))
      assert.equal(101, (transfer:head()))
      assert.same({ 1008, "" }, { transfer:close_status() })
    end)

    it("by our close frame, behind what was sent before", function()
      local transfer = open("/echo")
      transfer:send("text", "first")
      assert.is_true(transfer:send_close(1001, "going away"))
      assert.is_nil(transfer:send_close(1000))
      assert.is_nil(transfer:send("text", "late"))
      assert.equal("complete", (finish(multi, transfer)))
      assert.same({ 1001, "going away" }, { transfer:close_status() })
      assert.same({ "text", "first" }, { transfer:receive() })
      local log = server:state().log
      assert.same({ "text", "close" }, { log[1].opcode, log[2].opcode })
      assert.same({ 1001, "going away" }, { log[2].code, log[2].text })
    end)

    it("by our close frame that is not answered, after a time", function()
      local transfer = open("/deaf", { close_timeout = 0.2 })
      transfer:send_close(1000)
      local outcome, message = finish(multi, transfer)
      assert.equal("timeout", outcome)
      assert.truthy(message:find("close frame", 1, true))
      assert.is_nil(transfer:close_status())
    end)

    for _, path in ipairs { "/fin", "/rst" } do
      it("without a close frame is cut short, and what came before is kept: " .. path, function()
        local transfer = start(path)
        local outcome = finish(multi, transfer)
        assert.equal("receive_failed", outcome)
        assert.same({ "text", "before the end" }, { transfer:receive() })
        assert.is_nil(transfer:close_status())
      end)
    end

    it("at the very beginning ends each time, whatever libcurl has seen by then", function()
      local expected = {
        ["/fin0"] = "receive_failed", ["/rst0"] = "receive_failed", ["/halfhead"] = "receive_failed", ["/fin"] = "receive_failed",
        ["/halfframe"] = "receive_failed", ["/closed101"] = "complete", ["/409eof"] = "complete",
        ["/wrong/masked"] = "websocket_violation",
      }
      for _ = 1, 30 do
        local running = {}
        for path in pairs(expected) do running[path] = start(path) end
        for path, transfer in pairs(running) do assert.equal(expected[path], (finish(multi, transfer)), path) end
      end
    end)

    it("inside a frame is cut short", function()
      local transfer = start("/halfframe")
      local outcome, message = finish(multi, transfer)
      assert.same({ "receive_failed", "the connection ended without a close frame" }, { outcome, message })
      assert.same({ "text", "whole" }, { transfer:receive() })
      assert.is_nil(transfer:receive())
    end)

    it("without a close frame while messages wait is noticed, too, once they are taken", function()
      local transfer = start("/fin", { receive_high_water = 1 })
      step_until(multi, function() return transfer:head() end)
      for _ = 1, 10 do multi:step(0.01) end
      assert.same({ "text", "before the end" }, { receive(transfer) })
      assert.equal("receive_failed", (finish(multi, transfer)))
    end)

    for name, expected in pairs {
      masked = { 1002, "websocket_violation", "masked" }, reserved = { 1002, "websocket_violation", "reserved bits" },
      opcode = { 1002, "websocket_violation", "opcode" }, utf8 = { 1007, "websocket_violation", "UTF-8" },
      order = { 1002, "websocket_violation", "continues" }, control = { 1002, "websocket_violation", "125" },
      code = { 1002, "websocket_violation", "code" },
      large = { 1009, "message_too_large", "limit" }, fragments = { 1009, "message_too_large", "limit" },
    } do
      it("because the server violates the protocol: " .. name, function()
        local transfer = start("/wrong/" .. name, { max_message = 1000 })
        local outcome, message = finish(multi, transfer)
        assert.equal(expected[2], outcome)
        assert.truthy(message:find(expected[3], 1, true), message)
        assert.same({ "text", "good" }, { transfer:receive() })
        assert.is_nil(transfer:receive())
        assert.is_nil(transfer:close_status())
        step_until(multi, function() return #logged("close") == 1 end) -- the server is told
        assert.same({ expected[1], message }, { logged("close")[1].code, logged("close")[1].text })
      end)
    end

    it("when its owner closes it or the multi, or forgets it", function()
      local transfer = open("/echo")
      transfer:close()
      transfer = open("/echo")
      multi:close()
      assert.equal("closed", (transfer:outcome()))
      multi = core.multi()
      open("/echo")
      collectgarbage()
      collectgarbage()
      assert.equal(0, (multi:inflight()))
    end)

    it("in the ordinary way when it is left to the multi", function()
      local transfer = open("/echo")
      transfer:send("text", "last")
      transfer:detach(5)
      assert.equal("closed", (transfer:outcome()))
      step_until(multi, function() return multi:inflight() == 0 end)
      local log = server:state().log
      assert.same({ "text", "close" }, { log[1].opcode, log[2].opcode })
      assert.equal(1000, log[2].code)
    end)

    it("in the ordinary way while the multi closes, which waits for it", function()
      local transfer = open("/echo")
      transfer:detach(5, true)
      local began = core.now()
      multi:close()
      assert.is_true(core.now() - began < 1.5)
      assert.equal(1000, logged("close")[1].code)
    end)

    it("after some time when it is left to the multi and the server does not answer", function()
      open("/deaf"):detach(0.2)
      step_until(multi, function() return multi:inflight() == 0 end)
    end)

    it("at once when it is left to the multi before it is open", function()
      start("/silence0"):detach(5)
      assert.equal(0, (multi:inflight()))
    end)
  end)

  describe("that carries a recorded session", function()
    local frames = require "spec.support.websocket_frames"
    for _, name in ipairs { "terminal/echo", "terminal/command", "terminal/output-100k", "terminal/pipe", "terminal/takeover" } do
      it("gives its messages: " .. name, function()
        for _, connection in ipairs(recordings.session(name).connections) do
          local stream, expected, status = {}, {}, nil
          for _, frame in ipairs(connection.frames) do
            if frame.dir == "recv" then
              stream[#stream + 1] = frames.write(frame.opcode, frame.payload, { fin = frame.fin })
              if frame.opcode == "close" then
                status = { frame.code, frame.payload:sub(3) }
              elseif frame.opcode == "text" or frame.opcode == "binary" then
                expected[#expected + 1] = { frame.opcode, frame.payload }
              end
            end
          end
          stream = table.concat(stream)
          call("/load", stream)
          for _, path in ipairs { "/replay", #stream < 1000 and "/replay/drip" or "/replay" } do
            local transfer = open(path)
            for _, message in ipairs(expected) do assert.same(message, { receive(transfer) }) end
            if status then
              assert.equal("complete", (finish(multi, transfer)))
              assert.same(status, { transfer:close_status() })
            end
            transfer:close()
          end
        end
      end)
    end
  end)
end)

--- The server's side of a WebSocket in the development server, with short times.

local http = require "opensandbox.devserver.http.server"
local uv_loop = require "spec.support.uv_loop"
local websocket = require "opensandbox.devserver.http.websocket"
local websocket_client = require "spec.support.websocket_client"

describe("a WebSocket of the development server", function()
  local times, server, socket, closed, guard
  before_each(function()
    times, closed, guard = websocket.times, 0, uv_loop.catch_sigpipe()
    server = assert(http.listen(0, function(request, response)
      socket = websocket.accept(request, response, {
        on_message = function(type, bytes) socket:send(type, bytes) end,
        on_close = function() closed = closed + 1 end,
      })
    end))
  end)
  after_each(function()
    websocket.times = times
    server:stop()
    uv_loop.close(guard)
  end)

  local function connect(changes)
    websocket.times = { ping = 30000, read = 60000, write = 10000 }
    for name, value in pairs(changes or {}) do websocket.times[name] = value end
    return websocket_client.connect(server.port, "/")
  end

  it("carries messages of every size both ways", function()
    local client = connect()
    for _, size in ipairs { 0, 1, 125, 126, 65535, 65536, 1000000 } do
      local count = #client.frames
      client:send(size % 2 == 0 and "text" or "binary", ("x"):rep(size))
      assert.is_true(client:wait(function(frames) return frames[count + 1] ~= nil end))
      assert.equal(size, #client.frames[count + 1].payload)
      assert.is_false(client.frames[count + 1].masked)
    end
    client:close()
    assert.is_true(uv_loop.wait(function() return closed == 1 end, 10))
  end)

  it("pings, and ends a connection from which nothing comes", function()
    local client = connect { ping = 20, read = 200 }
    client.answers_pings = false
    assert.is_true(client.socket:wait_end(10))
    client:poll()
    assert.truthy(#client.frames > 2)
    assert.equal("ping", client.frames[1].opcode)
    assert.equal(1, closed)
    client:close()
  end)

  it("keeps a connection whose client answers", function()
    local client = connect { ping = 20, read = 200 }
    client:wait(function(frames) return #frames > 50 end) -- for a second, at least
    assert.is_nil(client.socket.ended)
    assert.equal(0, closed)
    client:close()
  end)

  it("ends a connection whose client receives nothing for too long", function()
    local client = connect { write = 100 }
    client.socket.tcp:read_stop()
    for _ = 1, 20 do socket:send("binary", ("x"):rep(1000000)) end
    assert.is_true(socket:is_full())
    local drained = false
    socket.on_drain = function() drained = true end
    assert.is_true(uv_loop.wait(function() return closed == 1 end, 10))
    assert.is_false(drained)
    client:close()
  end)

  it("tells its owner when a slow client has caught up", function()
    local client = connect()
    client.socket.tcp:read_stop()
    for _ = 1, 20 do socket:send("binary", ("x"):rep(1000000)) end
    local drained = false
    socket.on_drain = function() drained = true end
    client.socket.tcp:read_start(function(_, data)
      if data then client.socket.received = client.socket.received .. data end
    end)
    assert.is_true(uv_loop.wait(function()
      client.socket.received = ""
      return drained
    end, 20))
    client:close()
  end)

  it("handles no message between pause and resume", function()
    local client = connect()
    local paused = socket
    paused:pause()
    client:send("text", "late")
    client:send("ping", "later")
    local other = connect() -- when it has its answer, the server has received what was sent before
    other:send("text", "")
    assert.is_true(other:wait(function(frames) return #frames == 1 end))
    other:close()
    client:poll()
    assert.same({}, client.frames)
    paused.handlers.on_message = function(type, bytes) paused:send(type, bytes) end
    paused:resume()
    assert.is_true(client:wait(function(frames) return #frames == 2 end))
    assert.same({ "late", "later" }, { client.frames[1].payload, client.frames[2].payload })
    client:close()
  end)

  it("is closed by the server after everything that it sent", function()
    local client = connect()
    socket:send("binary", ("x"):rep(3000000))
    socket:close(4001, "TAKEN_OVER")
    socket:send("text", "not sent")
    local code, why = client:wait_close()
    assert.same({ 4001, "TAKEN_OVER", 2 }, { code, why, #client.frames })
    assert.is_true(client.socket:wait_end(10))
    assert.equal(0, closed)
    client:close()
  end)
end)

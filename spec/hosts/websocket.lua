--- What every host does with a WebSocket, and the server for it.

local websocket = {}

--- For fault_server.start(): echoes texts, pings every 20 ms, and answers "pongs" with the number of pongs that have come.
websocket.server = [[
  return function(request, connection)
    local pongs = 0
    local peer = websocket.accept(request, connection, { on_frame = function(peer, frame)
      if frame.opcode == "pong" then
        pongs = pongs + 1
      elseif frame.payload == "pongs" then
        peer:send("text", tostring(pongs))
      elseif frame.opcode == "text" then
        peer:send("text", frame.payload)
      end
    end })
    local function ping()
      if connection.gone or peer.closed then return end
      peer:send("ping", "")
      connection:after(20, ping)
    end
    ping()
  end
]]

--- Uses a connection to that server where code can wait.
---@return table `outputs` (what came back of 50 messages, sent while another task receives), `echo` (seconds of the quickest of 20 echoes), `pongs` (sent by itself during half a second), `cancelled` (the kind of error of a cancelled receive), `closed` (the server's code)
function websocket.run(opensandbox, client, url)
  local connection = opensandbox.assert(client.http:open_websocket(url, { op = "test", path = "/" }))
  local received = {}
  local reader = opensandbox.spawn(function()
    for index = 1, 50 do received[index] = select(2, connection:receive()) end
  end)
  for index = 1, 50 do opensandbox.assert(connection:send("text", tostring(index))) end
  reader:wait()
  local quickest = math.huge
  for _ = 1, 20 do
    local began = opensandbox.now()
    connection:send("text", "echo")
    connection:receive()
    quickest = math.min(quickest, opensandbox.now() - began)
  end
  opensandbox.sleep(0.5)
  connection:send("text", "pongs")
  local _, pongs = connection:receive()
  local task = opensandbox.spawn(function() return select(2, connection:receive()).kind end)
  opensandbox.sleep(0.02)
  task:cancel()
  local cancelled = task:wait()
  opensandbox.assert(connection:close())
  return {
    outputs = table.concat(received, " "), echo = quickest, pongs = tonumber(pongs), cancelled = cancelled,
    closed = connection:close_status(),
  }
end

return websocket

--- The server's side of a WebSocket, for scripts of fault_server.lua: each frame is the script's own, right or wrong.

local core = require "opensandbox.core"
local frames = require "spec.support.websocket_frames"
local http_message = require "spec.support.http_message"

local websocket_peer = { frame = frames.write, close_frame = frames.close }

local Peer = {}
Peer.__index = Peer

--- The head that switches to WebSocket. `headers`: changes; false removes one.
function websocket_peer.head(request, headers)
  local values = {
    Upgrade = "websocket", Connection = "Upgrade",
    ["Sec-WebSocket-Accept"] = core.websocket_accept(request.headers["sec-websocket-key"]),
  }
  for name, value in pairs(headers or {}) do values[name] = value or nil end
  return http_message.format("HTTP/1.1 101 Switching Protocols", http_message.pairs(values))
end

--- Switches a connection to WebSocket.
-- @param request
-- @param connection
-- @param script `on_frame(peer, frame)` for each frame of the client (see websocket_frames.lua; default: nothing), `with` (bytes that
-- are sent in one write with the head), `headers` (as for head), `manual` (a close frame of the client is not answered)
-- @return the peer: `connection`, `frames` (number of those received), `log` (the first 100 of them, for the server's state)
function websocket_peer.accept(request, connection, script)
  script = script or {}
  local self = setmetatable({ connection = connection, frames = 0, bytes = 0, log = {}, reader = frames.reader() }, Peer)
  connection:send(websocket_peer.head(request, script.headers) .. (script.with or ""))
  connection:take_over(function(bytes)
    self.reader:feed(bytes)
    local frame = self.reader:next()
    while frame do
      self.frames, self.bytes = self.frames + 1, self.bytes + #frame.payload
      if #self.log < 100 then
        self.log[#self.log + 1] = {
          opcode = frame.opcode, fin = frame.fin, masked = frame.masked, length = #frame.payload, code = frame.code,
          text = #frame.payload < 200 and frame.opcode ~= "close" and frame.payload:gsub("[^ -~]", "?") or frame.reason,
        }
      end
      if script.on_frame then script.on_frame(self, frame) end
      if frame.opcode == "close" and not script.manual and not self.closed then
        self:close(frame.code or 1000, frame.reason)
        connection:close()
      end
      frame = self.reader:next()
    end
  end)
  return self
end

--- Sends a frame; the arguments are those of frames.write.
function Peer:send(opcode, payload, options)
  self.connection:send(frames.write(opcode, payload, options))
  return self
end

--- Sends a close frame. The connection stays, as execd leaves it.
function Peer:close(code, reason)
  self.closed = true
  self.connection:send(frames.close(code, reason))
  return self
end

return websocket_peer

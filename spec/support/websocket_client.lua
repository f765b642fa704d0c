--- A WebSocket client of a test. It sends any frame, also a wrong one, and keeps every frame that it receives.

local frames = require "spec.support.websocket_frames"
local raw_socket = require "spec.support.raw_socket"
local uv_loop = require "spec.support.uv_loop"

local KEY = "d2lyZS1yZWMtMTZieXRlcw=="
local MASK = "\1\2\3\4"

local Client = {}
Client.__index = Client

--- Sends an opening handshake and waits for the answer.
---@param port integer
---@param path string
---@param options? table `headers` (changes; false removes one), `method`
---@return table client `status`, `headers`, `body` (of an answer that is not 101), `frames` (received so far)
local function connect(port, path, options)
  options = options or {}
  local headers = {
    Host = "127.0.0.1", Upgrade = "websocket", Connection = "Upgrade", ["Sec-WebSocket-Key"] = KEY,
    ["Sec-WebSocket-Version"] = "13",
  }
  for name, value in pairs(options.headers or {}) do headers[name] = value or nil end
  local lines = { ("%s %s HTTP/1.1"):format(options.method or "GET", path) }
  for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
  local self = setmetatable({ socket = raw_socket.connect(port), headers = {}, frames = {}, reader = frames.reader() }, Client)
  self.socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local last = self.socket:wait(function(text) return select(2, text:find("\r\n\r\n", 1, true)) end, 20)
  assert(last, self.socket.received)
  local head = self.socket:take(last)
  self.status = tonumber(head:match("^HTTP/1.1 (%d+)"))
  for name, value in head:gmatch("\r\n([^:\r\n]+): ([^\r\n]*)") do self.headers[name:lower()] = value end
  if self.status ~= 101 then
    local length = tonumber(self.headers["content-length"] or 0)
    self.socket:wait(function(text) return #text >= length end)
    self.body = self.socket:take(length)
  end
  return self
end

--- Sends a frame. The arguments are those of frames.write; the frame is masked.
function Client:send(opcode, payload, options)
  options = options or {}
  return self.socket:send(frames.write(opcode, payload, { fin = options.fin, mask = options.mask ~= false and MASK or nil }))
end

--- Reads the frames that have arrived. Pings are answered unless `answers_pings` is false.
function Client:poll()
  local bytes = self.socket:take(#self.socket.received)
  if bytes ~= "" then self.reader:feed(bytes) end
  local frame = self.reader:next()
  while frame do
    self.frames[#self.frames + 1] = frame
    if frame.opcode == "ping" and self.answers_pings ~= false then self:send("pong", frame.payload) end
    frame = self.reader:next()
  end
end

--- Waits until `done(frames)` returns a true value, and returns it; nil when the time is over.
function Client:wait(done, seconds)
  local result
  uv_loop.wait(function()
    self:poll()
    result = done(self.frames)
    return result
  end, seconds or 20)
  return result
end

--- Returns the payloads of the binary frames that were received on a channel, joined and without the channel.
function Client:output(channel)
  local parts = {}
  for _, frame in ipairs(self.frames) do
    if frame.opcode == "binary" and frame.payload:byte() == channel then parts[#parts + 1] = frame.payload:sub(2) end
  end
  return table.concat(parts)
end

--- Waits for the close frame, and returns its code and reason.
function Client:wait_close(seconds)
  local frame = self:wait(function(list)
    return list[#list] and list[#list].opcode == "close" and list[#list]
  end, seconds)
  if frame then return frame.code, frame.reason end
end

--- Closes the TCP connection.
function Client:close()
  self.socket:close()
end

return { connect = connect }

--- The server's side of a WebSocket. It behaves like the library that execd uses, down to its texts and its omissions: after a
-- closing handshake that the client began, the TCP connection stays open until the client closes it.

local core = require "opensandbox.core"
local timer = require "opensandbox.devserver.base.timer"

local MAX_MESSAGE_SIZE = 16 * 1024 * 1024
local MAX_WAITING = 1024 * 1024 -- bytes that the client has not received yet

local websocket = {}

--- Milliseconds; tests have shorter ones. The client has to send something within `read`, and to receive something within `write`.
websocket.times = { ping = 30000, read = 60000, write = 10000 }

local Socket = {}
Socket.__index = Socket

-- Returns whether a header lists a token.
local function lists(value, token)
  return (", " .. (value or ""):lower():gsub("[%s,]+", ", ") .. ", "):find(", " .. token .. ", ", 1, true) ~= nil
end

--- Returns whether a request asks for a WebSocket.
function websocket.is_requested(request)
  return lists(request.headers.connection, "upgrade") and lists(request.headers.upgrade, "websocket")
end

-- Returns whether the opening handshake is right. The key has sixteen bytes in base64.
local function is_valid(request)
  local headers = request.headers
  return websocket.is_requested(request) and request.method == "GET" and headers["sec-websocket-version"] == "13"
    and (headers["sec-websocket-key"] or ""):find("^[%w+/]+==$") and #headers["sec-websocket-key"] == 24
end

--- Answers an opening handshake. A wrong one is answered with 400.
---@param request table
---@param response table
---@param handlers table `on_message(type, bytes)` ("text" or "binary"), `on_close()` (called once, when the client has closed the
-- WebSocket or the connection; the server's own closing does not call it)
---@return table? socket
function websocket.accept(request, response, handlers)
  if not is_valid(request) then
    response:send(400, {
      { "Content-Type", "text/plain; charset=utf-8" }, { "Sec-Websocket-Version", "13" }, { "X-Content-Type-Options", "nosniff" },
    }, "Bad Request\n")
    return nil
  end
  local self = setmetatable({
    request = request, response = response, handlers = handlers, reader = core.websocket_reader(MAX_MESSAGE_SIZE, true),
    is_alive = true,
  }, Socket)
  self.ping = timer.every(websocket.times.ping, function() self:put(core.websocket_frame("ping", "")) end)
  self.read_timeout, self.write_timeout = timer.new(), timer.new()
  self:_restart_read_timeout()
  response:switch({
    { "Upgrade", "websocket" }, { "Connection", "Upgrade" },
    { "Sec-WebSocket-Accept", core.websocket_accept(request.headers["sec-websocket-key"]) },
  }, function(data) self:_receive(data) end, function() self:_end() end)
  return self
end

function Socket:_restart_read_timeout()
  self.read_timeout:start(websocket.times.read, function() self.response:abort() end)
end

-- Ends the WebSocket. The connection may stay.
function Socket:_end()
  if not self.is_alive then return end
  self.is_alive = false
  for _, handle in ipairs { self.ping, self.read_timeout, self.write_timeout } do handle:close() end
  local on_close = not self.is_closing and self.handlers.on_close
  self.on_drain = nil
  if on_close then on_close() end
end

function Socket:_receive(data)
  if not self.is_alive or self.is_closing then return end
  self:_restart_read_timeout()
  self.reader:feed(data)
  self:_dispatch()
end

-- Handles the messages that are complete, until a handler pauses.
function Socket:_dispatch()
  while self.is_alive and not self.is_closing and not self.paused do
    local type, bytes, code = self.reader:next()
    if not type and not bytes then
      return
    elseif not type then
      -- The peer has violated the protocol.
      self:put(core.websocket_close_frame(code, bytes:find("mask", 1, true) and "bad MASK" or bytes))
      return self:_end()
    elseif type == "ping" then
      self:put(core.websocket_frame("pong", bytes))
    elseif type == "close" then
      self:put(core.websocket_close_frame(code, ""))
      return self:_end()
    elseif type ~= "pong" then
      self.handlers.on_message(type, bytes)
    end
  end
end

--- Stops the handling of messages until `resume`. Further ones stay in the kernel.
function Socket:pause()
  self.paused = true
  self.request:pause_reading()
end

function Socket:resume()
  if not self.paused then return end
  self.paused = false
  self:_dispatch()
  if not self.paused then self.request:resume_reading() end
end

-- Writes a frame. A client that receives nothing for too long is thrown out.
function Socket:put(frame)
  if not self.is_alive or self.is_closing then return end
  self.response:put(frame, function()
    if not self.is_alive then return end
    self.write_timeout:stop()
    if self:is_full() then return self:_start_write_timeout() end
    local on_drain = self.on_drain
    self.on_drain = nil
    if on_drain then on_drain() end
  end)
  if self:is_full() then self:_start_write_timeout() end
end

function Socket:_start_write_timeout()
  self.write_timeout:start(websocket.times.write, function() self.response:abort() end)
end

--- Sends a message.
---@param type "text"|"binary"
---@param bytes string
function Socket:send(type, bytes)
  self:put(core.websocket_frame(type, bytes))
end

--- Returns whether so much waits for the client that its producer should pause. The field `on_drain` is called once when it may continue.
function Socket:is_full()
  return self.is_alive and self.response.waiting > MAX_WAITING
end

--- Closes the WebSocket and the connection, after everything that was sent.
---@param code integer
---@param reason string
function Socket:close(code, reason)
  if not self.is_alive or self.is_closing then return end
  self.is_closing = true
  local response = self.response
  response:put(core.websocket_close_frame(code, reason), function() response:abort() end)
end

--- Closes the connection without a closing handshake, after everything that was sent.
function Socket:disconnect()
  if not self.is_alive or self.is_closing then return end
  self.is_closing = true
  local response = self.response
  response:put("", function() response:abort() end)
end

return websocket

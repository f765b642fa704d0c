--- A WebSocket connection.
--
-- The connection is an exchange whose request has switched to the protocol. One task can receive while others send. Messages are moved,
-- and pings are answered, while any code of this Lua state waits in the library, and while the host's loop runs.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"
local shared_wait = require "opensandbox.loop.shared_wait"

local websocket = {}

local IDLE_TIMEOUT = 60    -- seconds: execd pings every 30
local CLOSE_TIMEOUT = 5    -- seconds
local NORMAL_CLOSURE = 1000

--- A WebSocket connection to a service of a sandbox, as `client:connect_pty_session` opens one.
--- ```lua
--- local connection = assert(client:connect_pty_session(execd, id))
--- for _ = 1, 3 do print(connection:receive(5)) end
--- connection:close()
--- ```
---@class opensandbox.WebSocket
---@field exchange table internal
---@field op? string internal: the method that the user called, see for_op
local Connection = {}
Connection.__index = Connection
Connection.__name = "opensandbox.WebSocket"

--- Opens a connection. A refusal is an error as of any call: 401, 404 and 409 arrive with the server's code.
---@param http opensandbox.HttpClient
---@param request table prepared by it: op, method ("GET"), path and headers; and: timeout (seconds until it is open; default the client's), idle_timeout (seconds without a byte of the server after which the connection ends, default 60; the server is pinged before), close_timeout (seconds of the closing handshake, default 5), max_message (bytes, default 16 MiB), receive_high_water and send_high_water (bytes queued, default 256 KiB each), channels (first bytes of binary messages of which several in a row, with the same first byte, are received as one), option_names (as for exchange.start), news (an opensandbox.SharedWait to use, which follows the new connection)
---@return opensandbox.WebSocket? connection
---@return opensandbox.Error? err
function websocket.open(http, request)
  request.websocket = true
  if request.may_repeat == nil then request.may_repeat = false end -- a connection may start a program
  request.timeout = request.timeout or http.timeouts.timeout
  request.idle_timeout = request.idle_timeout or IDLE_TIMEOUT
  request.close_timeout = request.close_timeout or CLOSE_TIMEOUT
  request.ping_timeout = request.idle_timeout / 3
  request.ping_interval = request.idle_timeout - request.ping_timeout
  local ex, err = call.open(http, request)
  if not ex then return nil, err end
  if ex.status ~= 101 then
    ex:close()
    return nil, call.unexpected_response(ex, "the server did not switch to WebSocket")
  end
  local news = request.news or shared_wait.new(http.transport)
  news:follow(ex.transfer:id())
  return setmetatable({ exchange = ex, news = news }, Connection)
end

--- Internal: a view of the connection whose errors name the method that the user called. Methods of a view never change the connection's fields.
---@param op string for example "terminal:write"
---@return opensandbox.WebSocket
function Connection:for_op(op)
  return setmetatable({ op = op }, { __index = self })
end

--- Internal: an error of this connection: `fields`, completed by the facts about the connection.
---@return opensandbox.Error
function Connection:error(fields)
  local err = self.exchange:error(fields)
  err.op = self.op or err.op
  return err
end

--- Internal: the error for a connection that has ended otherwise than by the server's close frame.
---@return opensandbox.Error? err nil: it has not ended, or the server has closed it
function Connection:failure()
  local ex = self.exchange
  local outcome, message = ex.transfer:outcome()
  if outcome == "receive_failed" then
    return self:error { kind = "stream", code = "cut", message = "the connection was cut: " .. message }
  elseif outcome == "timeout" then -- the one for opening is over
    return self:error(errors.timeout_fields { code = "close_timeout", text = "the server did not answer the close frame",
      option = "close_timeout", seconds = ex.request.close_timeout, timer = "timeout" })
  end
  local err = ex:failure()
  if err then err.op = self.op or err.op end
  return err
end

-- Waits for news of the connection. Returns an error when the running task was cancelled; the connection stays open then.
local function wait(self, news, seconds)
  local interruption, reason = self.news:wait(news, seconds)
  local ex = self.exchange
  if interruption then
    local op = self.op or ex.request.op
    return loop.interrupted(op, interruption, reason,
      self:error { kind = "cancelled", code = "cancelled", message = "the task was cancelled" })
  end
  ex.http:notify_activity(ex)
end

-- Waits until `attempt` returns a value other than nil, and returns its results. When the time has passed, returns nil and an error with
-- `text`.
local function wait_for(self, attempt, timeout, text)
  local limit = timeout and core.now() + timeout
  local waited, news = false, self.news:expect()
  while true do
    local first, second = attempt(self.exchange.transfer)
    if first ~= nil then return first, second end
    local left = limit and math.max(limit - core.now(), 0)
    if waited and left == 0 then
      return nil, self:error(errors.timeout_fields { code = "timeout", text = text, option = "timeout", seconds = timeout,
        timer = "timeout" })
    end
    local err = wait(self, news, left)
    if err then return nil, err end
    waited = true
  end
end

local function receive(transfer)
  local kind, bytes = transfer:receive()
  if kind then return kind, bytes end
  if transfer:outcome() then return false end
end

--- The next message. All messages before the end of the connection are received.
--- ```lua
--- local kind, bytes = connection:receive(5)
--- ```
---@param timeout? number seconds; nil: without a limit
---@return string? kind "text" or "binary"; nil after the last message, when the server has closed the connection: see close_status
---@return string|opensandbox.Error? bytes or an error: the connection ended without a close frame, or no message came in time (kind `timeout`; the connection stays open)
function Connection:receive(timeout)
  local kind, bytes = wait_for(self, receive, timeout, "no message came")
  if kind == false then return nil, self:failure() end
  return kind, bytes
end

--- The next message, if it has arrived. Does not wait: `news` reports the next ones.
--- ```lua
--- local kind, bytes = connection:next_message()
--- ```
---@return string? kind "text" or "binary"; nil: none has arrived
---@return string? bytes
function Connection:next_message()
  local ex = self.exchange
  local kind, bytes = ex.transfer:receive()
  if kind then ex.http:notify_activity(ex) end
  return kind, bytes
end

--- Queues a message, unless the queue is full. Does not wait: `news` reports when there is room.
--- ```lua
--- if connection:try_send("text", '{"type":"ping"}') == false then print("the queue is full") end
--- ```
---@param kind string "text" (bytes must be UTF-8) or "binary"
---@param bytes string
---@return boolean? sent nil: the connection is closed
function Connection:try_send(kind, bytes)
  local sent = self.exchange.transfer:send(kind, bytes)
  if sent then scheduler.notify() end
  return sent
end

--- Queues a message, and waits only while the queue is full. The message is sent when the loop runs, or this Lua state waits.
--- ```lua
--- assert(connection:send("binary", "\0ls\r"))
--- ```
---@param kind string "text" (bytes must be UTF-8) or "binary"
---@param bytes string
---@param timeout? number seconds; nil: without a limit
---@return true? ok
---@return opensandbox.Error? err kind `timeout`: the message was not queued
function Connection:send(kind, bytes, timeout)
  local ok, err = wait_for(self, function(transfer)
    local sent = transfer:send(kind, bytes)
    if sent then return true end
    if sent == nil then return false end
  end, timeout, "the server does not read")
  if ok then
    scheduler.notify()
    return true
  end
  return nil, err or self:failure() or self:error { kind = "closed", code = "closed", message = "the connection is closed" }
end

--- Waits until all that was sent has been given to the operating system.
--- ```lua
--- assert(connection:flush(5))
--- ```
---@param timeout? number seconds; nil: without a limit
---@return true? ok
---@return opensandbox.Error? err
function Connection:flush(timeout)
  local ok, err = wait_for(self, function(transfer)
    if transfer:outcome() then return false end
    if transfer:unsent() == 0 then return true end
  end, timeout, "the server does not read")
  if ok then return true end
  return nil, err or self:failure() or self:error { kind = "closed", code = "closed", message = "the connection is closed" }
end

--- Closes the connection: sends a close frame and waits for that of the server, at most `close_timeout`. Drops messages that were not
--- received. Closing a second time has no effect.
--- ```lua
--- connection:close(1000, "done")
--- ```
---@param code? integer default 1000
---@param reason? string at most 123 bytes of UTF-8
---@return true? ok
---@return opensandbox.Error? err the server sent no close frame; the connection is closed nevertheless
function Connection:close(code, reason)
  local transfer = self.exchange.transfer
  transfer:send_close(code or NORMAL_CLOSURE, reason)
  scheduler.notify()
  local news = self.news:expect(true)
  while not transfer:outcome() do
    while transfer:receive() do end -- its close frame is behind them
    local err = wait(self, news)
    if err then return nil, err end
  end
  local err = transfer:outcome() ~= "closed" and self:failure() or nil
  return not err and true or nil, err
end

--- Closes the connection in the background, without waiting. Closing the client waits for it.
--- ```lua
--- connection:detach()
--- ```
function Connection:detach()
  self.exchange:detach(self.exchange.request.close_timeout, true)
  scheduler.notify()
end

Connection.__close = Connection.detach

--- Cuts the connection at once, without a close frame.
--- ```lua
--- connection:abort()
--- ```
function Connection:abort()
  self.exchange:close()
end

--- The server's close frame.
--- ```lua
--- print(connection:close_status())
--- ```
---@return integer? code 1005: the frame has none; nil: no close frame was received
---@return string? reason
function Connection:close_status()
  return self.exchange.transfer:close_status()
end

--- True until the connection has ended. Messages may be left to receive after that.
--- ```lua
--- if connection:is_open() then connection:send("text", "{}") end
--- ```
---@return boolean
function Connection:is_open()
  return not self.exchange.transfer:outcome()
end

return websocket

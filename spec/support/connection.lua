--- One connection of the test servers: the operations of a handler on its client.
--
-- Everything that writes or ends the connection goes through one queue, so `drip` followed by `close` closes after the
-- last byte. A method on a connection that is gone does nothing: a handler need not know whether its client is there.

local uv = require "luv"
local http_message = require "spec.support.http_message"
local json = require "opensandbox.base.json"

local reasons = {
  [100] = "Continue", [200] = "OK", [201] = "Created", [202] = "Accepted", [204] = "No Content",
  [206] = "Partial Content", [301] = "Moved Permanently", [304] = "Not Modified", [307] = "Temporary Redirect",
  [400] = "Bad Request", [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed",
  [409] = "Conflict", [413] = "Content Too Large", [416] = "Range Not Satisfiable", [422] = "Unprocessable Content",
  [429] = "Too Many Requests", [500] = "Internal Server Error", [501] = "Not Implemented", [502] = "Bad Gateway",
  [503] = "Service Unavailable", [504] = "Gateway Timeout", [599] = "Unexpected Request",
}

-- How long a closed connection goes on reading, so that the client sees an end of stream and not a reset.
local LINGER_MS = 2000

local Connection = {}
Connection.__index = Connection
Connection.reasons = reasons

-- Runs the queued operations. One that returns true goes on by itself and calls `self:continue()` when it is over.
function Connection:pump()
  if self.pumping then return end
  self.pumping = true
  while not self.waiting and #self.queue > 0 do
    local operation = table.remove(self.queue, 1)
    if not self.gone then self.waiting = operation() or false end
  end
  self.pumping = false
end

function Connection:continue()
  self.waiting = false
  self:pump()
  self:advance()
end

function Connection:enqueue(operation)
  if not self.closing then
    self.queue[#self.queue + 1] = operation
    self:pump()
  end
  return self
end

--- Sends bytes as they are. A response made of these is over as soon as the next request arrives.
function Connection:send(bytes)
  self.began, self.raw = true, true
  return self:enqueue(function() self.tcp:write(bytes) end)
end

--- Sends the byte strings of a list with one write for each, in one turn of the event loop each.
function Connection:each(list)
  self.began, self.raw = true, true
  return self:enqueue(function()
    if #list == 0 then return false end
    local position, idle = 0, uv.new_idle()
    idle:start(function()
      position = position + 1
      if list[position] and not self.gone then
        self.tcp:write(list[position])
        -- Lets the client run, or it would find many of the pieces in one read.
        if position <= 100 then uv.sleep(0) end
        return
      end
      idle:close()
      self:continue()
    end)
    return true
  end)
end

--- Sends one byte at a time.
function Connection:drip(bytes, ms)
  self.began, self.raw = true, true
  return self:enqueue(function()
    local position, timer = 0, uv.new_timer()
    timer:start(0, math.max(ms or 1, 1), function()
      position = position + 1
      if position <= #bytes and not self.gone then return self.tcp:write(bytes:sub(position, position)) end
      timer:close()
      self:continue()
    end)
    return true
  end)
end

-- Sends the head of a response; `defaults` are added where the headers do not have them.
local function head(self, status, headers, defaults)
  local list = {}
  for _, pair in ipairs(http_message.pairs(headers)) do list[#list + 1] = pair end
  for _, pair in ipairs(defaults) do
    if not http_message.find(list, pair[1]:lower()) then list[#list + 1] = pair end
  end
  self:send(http_message.format(("HTTP/1.1 %d %s"):format(status, reasons[status] or "Status"), list))
  self.raw = false
  if (http_message.find(list, "connection") or ""):lower() == "close" then self.close_after = true end
  return list
end

--- Sends a whole response. Headers are a map or an array of pairs; a Content-Length among them is sent even if it lies.
function Connection:respond(status, headers, body)
  body = body or ""
  local bare = status == 204 or status == 304 or status < 200
  head(self, status, headers, bare and {} or { { "Content-Length", #body } })
  if #body > 0 and self.request.method ~= "HEAD" then self:send(body) end
  return self:done()
end

--- Sends the head of a chunked response (or, with a Content-Length among the headers, of a response with that length).
function Connection:start(status, headers)
  local list = http_message.pairs(headers)
  self.chunked = not http_message.find(list, "content-length")
  head(self, status, list, self.chunked and { { "Transfer-Encoding", "chunked" } } or {})
  return self
end

--- Sends one chunk of a response begun with `start`.
function Connection:chunk(bytes)
  if self.chunked then bytes = http_message.chunk(bytes) end
  self:send(bytes)
  self.raw = false
  return self
end

--- Sends one event of a stream: a JSON object and an empty line, as one chunk.
function Connection:event(event)
  return self:chunk(assert(json.encode(event)) .. "\n\n")
end

--- Ends a response begun with `start`.
function Connection:finish()
  if self.chunked then self:send("0\r\n\r\n") end
  return self:done()
end

--- The response is complete: the next request of the connection may be served. `respond` and `finish` do this.
function Connection:done()
  self.began, self.raw = true, false
  return self:enqueue(function()
    self.answered = true
    if self.close_after then self:close() else self:advance() end
  end)
end

--- Answers nothing, and serves nothing further on this connection, until the client goes.
function Connection:silence()
  self.began, self.raw = true, false
  return self
end

--- Closes in the ordinary way: the sent bytes arrive, then the end of the stream.
function Connection:close()
  self:enqueue(function()
    self:gone_by("server")
    self.tcp:shutdown(function()
      if self.tcp:is_closing() then return end
      -- A socket closed with unread bytes sends a reset, which would destroy bytes that the client has not read yet.
      self.tcp:read_stop()
      self.tcp:read_start(function(problem, data)
        if (problem or not data) and not self.tcp:is_closing() then self.tcp:close() end
      end)
      local timer = uv.new_timer()
      timer:start(LINGER_MS, 0, function()
        timer:close()
        if not self.tcp:is_closing() then self.tcp:close() end
      end)
    end)
  end)
  self.closing = true
  return self
end

--- Cuts the connection with a reset. What was sent just before may be lost; use `after` to let it arrive.
function Connection:reset()
  self:enqueue(function()
    self:gone_by("server reset")
    if not self.tcp:is_closing() and not uv.tcp_close_reset(self.tcp) then self.tcp:close() end
  end)
  self.closing = true
  return self
end

--- Calls a function after some time, also when the connection is gone by then.
function Connection:after(ms, callback)
  local timer = uv.new_timer()
  uv.update_time()
  timer:start(ms, 0, function()
    timer:close()
    self.server:guard(self, callback, self)
  end)
  return self
end

--- Stops reading from the socket: the client's upload comes to a halt when the buffers are full.
function Connection:pause_reading()
  self.paused = true
  self.tcp:read_stop()
  return self
end

--- From now on the connection is not HTTP any more: calls a function with each piece of bytes that arrives, and the
-- connection.
function Connection:take_over(callback)
  self.on_bytes = callback
  self.raw = false
  local rest = self.buffer:sub(self.position) .. table.concat(self.parts)
  self.buffer, self.position, self.parts = "", 1, {}
  if rest ~= "" then self.server:guard(self, callback, rest, self) end
  return self
end

--- Goes on reading after `pause_reading`.
function Connection:resume_reading()
  if self.paused and not self.gone then
    self.paused = false
    self:read()
    self:advance()
  end
  return self
end

return Connection

--- An HTTP/1.1 server on luv: keep-alive, pipelined and split input, bodies with Content-Length or chunked.
--
-- A handler receives a body in pieces. Nothing more is read while it handles one, so that a large upload needs little memory.

local uv = require "luv"
local body = require "opensandbox.devserver.http.body"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local response = require "opensandbox.devserver.http.response"
local tables = require "opensandbox.base.tables"

local MAX_HEAD_SIZE = 64 * 1024
local MAX_INPUT_SIZE = 256 * 1024 -- input that waits while a request is being answered

local Request = {}
Request.__index = Request

--- Receives the body as it arrives. The body is read and ignored unless this or `body` is called.
---@param on_data fun(piece: string)
---@param on_end fun(complete: boolean) `complete` is false when the connection ended before the body did
function Request:receive(on_data, on_end)
  self.on_data, self.on_end = on_data, on_end
  if self.expects_continue then self.connection.socket:write("HTTP/1.1 100 Continue\r\n\r\n") end
end

--- Receives the whole body as one string. A body over the limit is answered with 413 here.
---@param limit integer bytes
---@param callback fun(body: string) not called when the body is too large or incomplete
function Request:body(limit, callback)
  local pieces, size = {}, 0
  self:receive(function(data)
    size = size + #data
    if size <= limit then pieces[#pieces + 1] = data end
  end, function(complete)
    if not complete then return end
    if size > limit then return self.response:send(413, {}, "") end
    callback(table.concat(pieces))
  end)
end

--- Leaves further input of the connection unread until `resume_reading`.
function Request:pause_reading()
  self.connection.reading_paused = true
end

function Request:resume_reading()
  self.connection.reading_paused = false
  self.connection:process()
end

--- Closes the connection when the client ends its sending side, as proxies do. By default such a client still gets its answer.
function Request:close_with_client()
  self.closes_with_client = true
end

local Connection = {}
Connection.__index = Connection

function Connection:close()
  if self.closed then return end
  self.closed = true
  self.server.connections[self] = nil
  if not self.socket:is_closing() then self.socket:close() end
  local request = self.request
  if not request then return end
  if request.on_end and not request.complete then safe_callback.call(nil, request.on_end, false) end
  local answer = request.response
  answer.closed = true
  if answer.on_abort then answer.on_abort() end
end

-- Answers input that is not a request, and closes the connection.
function Connection:refuse(status, text)
  local request = setmetatable({ method = "GET", version = "1.1", connection = self }, Request)
  request.response = response.new(self.socket, request, function() self:close() end)
  self.request, self.state = request, "refused"
  request.response:send(status, { { "Content-Type", "text/plain" } }, text)
end

local function parse_head(text)
  local method, target, version = text:match("^(%u+) (%S+) HTTP/(1%.[01])\r\n")
  if not method then return nil end
  local headers = {}
  for line in text:gmatch("\r\n([^\r\n]+)") do
    local name, value = line:match("^([^%s:]+):%s*(.-)%s*$")
    if not name then return nil end
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  local path, query = target:match("^([^?]*)%??(.*)$")
  local connection = (headers.connection or ""):lower()
  return setmetatable({
    method = method, path = path:gsub("^https?://[^/]*", ""), query = query, version = version, headers = headers,
    keep_alive = not connection:find("close", 1, true)
      and (version == "1.1" or connection:find("keep-alive", 1, true) ~= nil),
  }, Request)
end

function Connection:begin(request)
  self.request, request.connection = request, self
  local headers = request.headers
  request.chunked = (headers["transfer-encoding"] or ""):lower():find("chunked", 1, true) ~= nil
  local length = tonumber(headers["content-length"] or "0")
  if not request.chunked and not (length and length >= 0 and length % 1 == 0) then
    return self:refuse(400, "bad Content-Length")
  end
  self.body = body.new(request.chunked and "chunked" or length)
  self.state = self.body.done and "received" or "body"
  local answer = response.new(self.socket, request, function(keep_alive) self:answered(keep_alive) end)
  request.response = answer
  request.complete = self.state == "received"
  request.expects_continue = not request.complete and (headers.expect or ""):lower() == "100-continue"
  self:protected(self.server.handler, request, answer)
  if request.complete and self.state ~= "switched" then self:received() end
end

--- Passes further input on as it is. Called by the response that switches to another protocol.
function Connection:switch(on_data)
  self.state, self.on_data = "switched", on_data
  self.request:close_with_client()
  self:process()
end

-- Calls code of a handler. An error in it is answered with 500, or closes the connection when the response has begun.
function Connection:protected(fn, ...)
  local answer = self.request.response
  return safe_callback.call(function()
    if answer.started then return answer:abort() end
    answer:send(500, { { "Content-Type", "text/plain; charset=utf-8" } }, "Internal Server Error")
  end, fn, ...)
end

function Connection:received()
  local request = self.request
  self.state, request.complete = "received", true
  if request.on_end then self:protected(request.on_end, true) end
end

function Connection:answered(keep_alive)
  if self.closed then return end
  local request = self.request
  -- A client that waits for "100 Continue" may or may not send its body after this answer, so the connection is of no use.
  local unclear = not request.complete and request.expects_continue and not request.on_data
  if not keep_alive or unclear or self.ended then return self:close() end
  request.answered = true
  self:process()
end

local steps = {}

function steps.head(self)
  self.input = self.input:gsub("^[\r\n]+", "")
  -- A request begins with a letter. A client that speaks TLS begins with other bytes, and would wait for an answer in TLS.
  if self.input:find("^[^A-Za-z]") then
    self:refuse(400, "400 Bad Request")
    return false
  end
  local _, last = self.input:find("\r\n\r\n", 1, true)
  if not last then
    if #self.input > MAX_HEAD_SIZE then self:refuse(431, "request head too large") end
    return false
  end
  local head = self.input:sub(1, last)
  self.input = self.input:sub(last + 1)
  local request = parse_head(head)
  if request then self:begin(request) else self:refuse(400, "400 Bad Request") end
  return true
end

function steps.body(self)
  local rest, malformed = self.body:step(self.input, function(data)
    local request = self.request
    if request.on_data and not request.answered then self:protected(request.on_data, data) end
  end)
  if malformed then self:refuse(400, "bad chunk") end
  if not rest then return false end
  self.input = rest
  if self.body.done and not self.closed then self:received() end
  return true
end

function steps.received(self)
  if not self.request.answered then return false end
  self.request, self.state = nil, "head"
  return true
end

function steps.refused() return false end

function steps.switched(self)
  local data = self.input
  if data == "" then return false end
  self.input = ""
  self:protected(self.on_data, data)
  return true
end

function Connection:process()
  if self.processing then return end -- the loop below continues after an answer that was sent inside of a handler
  self.processing = true
  while not self.closed and not self.reading_paused and steps[self.state](self) do end   -- luacheck: ignore 542
  self.processing = false
  if self.closed then return end
  if self.ended and not self.reading_paused and not (self.request and self.request.complete) then return self:close() end
  -- Further input stays in the kernel.
  local full = #self.input > MAX_INPUT_SIZE
  if full ~= (self.full or false) then
    self.full = full
    if full then self.socket:read_stop() else self:read() end
  end
end

function Connection:read()
  self.socket:read_start(safe_callback.wrap(function(problem, data)
    if problem then return self:close() end
    if data then
      self.input = self.input == "" and data or self.input .. data
    elseif self.request and self.request.closes_with_client then
      return self:close()
    else
      self.ended = true
      -- As in Go's server, a handler that is still answering regards the end of the client's side as its going away.
      local answer = self.request and self.request.response
      if answer and answer.on_gone and not answer.closed then answer.on_gone() end
    end
    self:process()
  end, function() self:close() end))
end

local Server = {}
Server.__index = Server

--- Stops listening and closes every connection.
function Server:stop()
  if not self.socket:is_closing() then self.socket:close() end
  for _, connection in ipairs(tables.keys(self.connections)) do connection:close() end
end

--- Listens on a loopback port.
---@param port integer 0 for a free one
---@param handler fun(request: table, response: table)
---@return table? server its `port` is the real one
---@return string? problem why the port cannot be used
local function listen(port, handler)
  local socket = uv.new_tcp()
  local self = setmetatable({ socket = socket, handler = handler, connections = {} }, Server)
  local ok, problem = socket:bind("127.0.0.1", port)
  if ok then
    ok, problem = socket:listen(511, safe_callback.wrap(function(failed)
      if failed then return safe_callback.log(failed) end
      local client = uv.new_tcp()
      if not socket:accept(client) then return client:close() end
      client:nodelay(true)
      local connection = setmetatable({ socket = client, server = self, input = "", state = "head" }, Connection)
      self.connections[connection] = true
      connection:read()
    end))
  end
  if not ok then
    socket:close()
    return nil, problem
  end
  self.port = socket:getsockname().port
  return self
end

return { listen = listen }

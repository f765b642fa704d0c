--- A small HTTP/1.1 server on luv, the common part of the servers that run beside the tests.
--
-- It reads requests, keeps a log of them and leaves the answers to a handler, which gets a `connection` to do with as
-- it likes. Requests of one connection are served in order: the next waits until the previous answer is complete.

local uv = require "luv"
local http_message = require "spec.support.http_message"
local Connection = require "spec.support.connection"
local json = require "opensandbox.base.json"

local http_server = {}

-- A head or a body beyond these sizes is not kept (a body's true size is in `body_bytes`).
local HEAD_LIMIT = 1024 * 1024
local BODY_LIMIT = 16 * 1024 * 1024

local Server = {}
Server.__index = Server

--- Calls a handler's function. An error in it is kept for the test, and the client gets a 500 if it had nothing yet.
function Server:guard(connection, callback, ...)
  local arguments, count = { ... }, select("#", ...)
  local unpack = rawget(table, "unpack") or rawget(_G, "unpack")
  local ok, result = xpcall(function() return callback(unpack(arguments, 1, count)) end, debug.traceback)
  if ok then return result end
  result = tostring(result)
  self.log.errors[#self.log.errors + 1] = result
  io.stderr:write(result, "\n")
  if connection.request and not connection.began then
    connection:respond(500, { ["Content-Type"] = "text/plain" }, result)
  else
    connection:reset()
  end
end

--- The connection is over; later operations on it do nothing.
function Connection:gone_by(who)
  if self.gone then return end
  self.gone, self.closing, self.record.open, self.record.closed_by = true, true, false, who
  self.server.log.open = self.server.log.open - 1
  local handler = self.server.handler.on_close
  if handler then self.server:guard(self, handler, self, who) end
end

function Connection:read()
  self.tcp:read_start(function(problem, data)
    if self.gone then return end
    if data and self.on_bytes then
      return self.server:guard(self, self.on_bytes, data, self)
    elseif data then
      self.parts[#self.parts + 1] = data
      return self:advance()
    end
    self:gone_by(problem and "client (" .. problem .. ")" or "client")
    if not self.tcp:is_closing() then self.tcp:close() end
  end)
end

-- Reads the next head from the buffer; returns false when it is not complete.
function Connection:read_head()
  local first, last = self.buffer:find("\r\n\r\n", self.position, true)
  if not first then
    if #self.buffer > HEAD_LIMIT then self:reset() end
    return false
  end
  local request = http_message.head(self.buffer:sub(self.position, first - 1))
  self.position = last + 1
  request.method, request.path, request.version = (request.line or ""):match("^(%S+) (%S+) HTTP/(1%.%d)$")
  self.request = request
  if not request.method then
    self:respond(400, {}, "not an HTTP request"):close()
    return false
  end
  local connection = (request.headers.connection or ""):lower()
  self.close_after = connection == "close" or (request.version == "1.0" and connection ~= "keep-alive")
  self.began, self.raw, self.answered, self.chunked = false, false, false, false
  request.connection, request.body_bytes, request.body_complete = self.number, 0, false
  request.time = uv.hrtime() / 1e9
  self.record.requests = self.record.requests + 1
  table.insert(self.server.log.requests, request)
  local pieces = {}
  request.pieces = pieces
  self.reader = http_message.body(request.headers, "none", function(piece)
    request.body_bytes = request.body_bytes + #piece
    if request.body_bytes <= BODY_LIMIT then
      pieces[#pieces + 1] = piece
    elseif pieces[1] then
      pieces = {}
      request.pieces = pieces
    end
  end)
  return true
end

-- Calls the handler for the head. A client that waits for "100 Continue" receives that before its body is read.
function Connection:serve_head()
  local handler, request = self.server.handler, self.request
  if handler.on_headers then self.server:guard(self, handler.on_headers, request, self) end
  self.owes_continue = not self.reader.done and (request.headers.expect or ""):lower() == "100-continue"
end

function Connection:read_body()
  if self.paused or self.gone then return false end
  if self.owes_continue and not self.began then self.tcp:write("HTTP/1.1 100 Continue\r\n\r\n") end
  self.owes_continue = false
  self.position = self.reader:feed(self.buffer, self.position)
  if self.reader.problem then self:reset() end
  if not self.reader.done or self.reader.problem then return false end
  self.request.body, self.request.body_complete = table.concat(self.request.pieces), true
  return true
end

-- Serves the requests that have arrived, as far as possible now.
function Connection:advance()
  if self.advancing then return end
  self.advancing = true
  if #self.parts > 0 then
    self.buffer, self.position = self.buffer:sub(self.position) .. table.concat(self.parts), 1
    self.parts = {}
  end
  while not self.gone do
    if self.state == "head" then
      if not self:read_head() then break end
      self.state = "body"
      self:serve_head()
    elseif self.state == "body" then
      if not self:read_body() then break end
      self.state = "answer"
      if not self.began then self.server:guard(self, self.server.handler.on_request, self.request, self) end
    else
      -- Bytes sent raw may end anywhere; that the client goes on is the sign that it has understood them.
      if not self.answered and not (self.raw and not self.waiting) then break end
      self.state = "head"
    end
  end
  self.advancing = false
end

local function accept(server)
  local tcp = uv.new_tcp()
  server.tcp:accept(tcp)
  tcp:nodelay(true)
  local log = server.log
  log.accepted, log.open = log.accepted + 1, log.open + 1
  local record = { number = log.accepted, open = true, requests = 0 }
  log.connections[log.accepted] = record
  local connection = setmetatable({
    server = server, tcp = tcp, number = log.accepted, record = record, queue = {}, parts = {}, buffer = "",
    position = 1, state = "head",
  }, Connection)
  if server.handler.on_connect then server:guard(connection, server.handler.on_connect, connection) end
  if not connection.gone and not connection.paused then connection:read() end
end

--- The requests so far in the form in which tests get them.
function Server:requests()
  local list = json.array {}
  for index, request in ipairs(self.log.requests) do
    list[index] = {
      method = request.method, path = request.path, version = request.version, headers = request.headers,
      raw_headers = json.array(request.raw_headers), body = request.body or table.concat(request.pieces),
      body_bytes = request.body_bytes, body_complete = request.body_complete, connection = request.connection,
      time = request.time,
    }
  end
  return list
end

--- Starts to listen on 127.0.0.1.
-- @param handler `on_request(request, connection)`, and if wanted `on_connect(connection)`, `on_headers(request,
-- connection)`, `on_close(connection, who)`
-- @param port default: a free one
-- @treturn table `port`, `log`
function http_server.listen(handler, port)
  local server = setmetatable({ handler = handler, tcp = uv.new_tcp() }, Server)
  server.log = {
    requests = json.array {}, connections = json.array {}, errors = json.array {}, accepted = 0, open = 0,
  }
  assert(server.tcp:bind("127.0.0.1", port or 0))
  assert(server.tcp:listen(512, function(problem)
    if not problem then accept(server) end
  end))
  server.port = server.tcp:getsockname().port
  return server
end

return http_server

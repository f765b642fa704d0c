--- Forwards a request to a program that listens on a port of this machine, and streams its response back. Neither side is read
-- faster than the other one receives. When both switch to another protocol, such as WebSocket, bytes are passed on as they are.

local uv = require "luv"
local body = require "opensandbox.devserver.http.body"
local each = require "opensandbox.base.each"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local timer = require "opensandbox.devserver.base.timer"
local url = require "opensandbox.base.url"
local websocket = require "opensandbox.devserver.http.websocket"

local MAX_HEAD_SIZE = 64 * 1024
local MAX_WAITING = 1024 * 1024 -- bytes that the client has not received yet
local READ_TIMEOUT = 180000     -- milliseconds of silence; that of the real service

-- Headers that belong to one connection, and those that this server handles or writes itself.
local NOT_FORWARDED = {
  connection = true, ["keep-alive"] = true, ["proxy-authenticate"] = true, ["proxy-authorization"] = true, te = true,
  trailer = true, trailers = true, ["transfer-encoding"] = true, upgrade = true,
  expect = true, ["content-length"] = true, date = true,
}

local proxy = {}

-- The first line of a response that is not HTTP, fit for a message.
local function status_line(text)
  return (text:match("^[^\r\n]*"):sub(1, 80):gsub("[^\32-\126]", "?"))
end

local Exchange = {}
Exchange.__index = Exchange

function Exchange:close()
  if self.over then return end
  self.over = true
  self.timer:close()
  self.socket:close()
end

-- Ends an exchange that cannot succeed. A response that has begun is not completed.
---@param status integer
---@param code? string BACKEND_CONNECTION_FAILED: the request was not delivered
---@param message string
function Exchange:fail(status, code, message)
  if self.over then return end
  self:close()
  if self.response.started then return self.response:abort() end
  self.failed(status, code, message)
end

function Exchange:request_head()
  local request = self.request
  local headers = request.headers
  local target = request.path .. (request.query ~= "" and "?" .. request.query or "")
  local lines = {
    ("%s %s HTTP/1.1"):format(request.method, target), "host: " .. (headers.host or "127.0.0.1:" .. self.port),
    self.wants_switch and "connection: upgrade\r\nupgrade: " .. headers.upgrade or "connection: close",
  }
  for name, value in each(headers) do
    if not NOT_FORWARDED[name] and name ~= "host" then lines[#lines + 1] = name .. ": " .. value end
  end
  if request.chunked then
    lines[#lines + 1] = "transfer-encoding: chunked"
  elseif headers["content-length"] then
    lines[#lines + 1] = "content-length: " .. headers["content-length"]
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- libuv queues bytes that are written before the connection is established.
function Exchange:send_request()
  local request, socket = self.request, self.socket
  socket:write(self:request_head())
  if request.complete then return end
  request:receive(function(data)
    if self.over then return end
    request:pause_reading()
    local piece = request.chunked and { ("%x\r\n"):format(#data), data, "\r\n" } or data
    socket:write(piece, safe_callback.wrap(function() request:resume_reading() end))
  end, function(complete)
    if self.over then return end
    if not complete then return self:close() end
    if request.chunked then socket:write("0\r\n\r\n") end
  end)
end

-- Lets both sides talk to each other directly.
function Exchange:switch(headers)
  local request, socket = self.request, self.socket
  self.is_switched = true
  self.timer:stop()
  table.insert(headers, 1, { "Upgrade", request.headers.upgrade })
  table.insert(headers, 2, { "Connection", "Upgrade" })
  self.response:switch(headers, function(data)
    request:pause_reading()
    socket:write(data, safe_callback.wrap(function() request:resume_reading() end))
  end, function() self:close() end)
  self:pass_on()
  return false
end

-- Sends the client the bytes that the program has sent.
function Exchange:pass_on()
  local data, response = self.input, self.response
  self.input = ""
  if data == "" then return end
  response:put(data, function()
    if self.paused and response.waiting < MAX_WAITING then self:read() end
  end)
  if response.waiting >= MAX_WAITING then
    self.paused = true
    self.socket:read_stop()
  end
end

-- Begins the response when its head is complete.
function Exchange:parse_head()
  local _, last = self.input:find("\r\n\r\n", 1, true)
  if not last then
    if #self.input > MAX_HEAD_SIZE then self:fail(502, "BACKEND_RESPONSE_FAILED", "the response head is too large") end
    return false
  end
  local head = self.input:sub(1, last)
  self.input = self.input:sub(last + 1)
  local status = tonumber(head:match("^HTTP/1%.[01] (%d%d%d)"))
  if not status then
    self:fail(502, "BACKEND_RESPONSE_FAILED", ("illegal status line: bytearray(b'%s')"):format(status_line(head)))
    return false
  end
  local switches = status == 101 and self.wants_switch
  if status < 200 and not switches then return true end -- such as "100 Continue", which this server has sent itself
  if not switches and self.refused then
    self:close()
    self.refused(status)
    return false
  end

  local headers, length, chunked = {}, nil, false
  for name, value in head:gmatch("\r\n([^%s:]+):[ \t]*([^\r\n]*)") do
    local key = name:lower()
    if key == "content-length" then length = tonumber(value) end
    if key == "transfer-encoding" then chunked = value:lower():find("chunked", 1, true) ~= nil end
    if not NOT_FORWARDED[key] then headers[#headers + 1] = { name, value } end
  end
  if switches then return self:switch(headers) end
  local empty = self.request.method == "HEAD" or status == 204 or status == 304
  if empty and not length then
    self:close()
    self.response:send(status, headers, "")
    return false
  end
  self.body = body.new(empty and 0 or chunked and "chunked" or length or "close")
  self.response:stream(status, headers, not chunked and length or nil)
  self.response:write {} -- sends the head at once, because the first byte of the body may take long
  return true
end

function Exchange:parse_body()
  local pieces, malformed = {}, nil
  while not self.body.done do
    local rest
    rest, malformed = self.body:step(self.input, function(data) pieces[#pieces + 1] = data end)
    if not rest then break end
    self.input = rest
  end
  local response = self.response
  if #pieces > 0 then
    response:write(pieces, function()
      if self.paused and response.waiting < MAX_WAITING then self:read() end
    end)
  end
  if malformed then return self:fail() end
  if self.body.done then
    self:close()
    return response:finish()
  elseif response.waiting >= MAX_WAITING then
    self.paused = true
    self.timer:stop()
    self.socket:read_stop()
  end
end

function Exchange:receive(data)
  self.input = self.input .. data
  if self.is_switched then return self:pass_on() end
  while not self.over and not self.body and self:parse_head() do end -- luacheck: ignore 542
  if not self.over and self.body then self:parse_body() end
end

-- Called when the program has ended the connection.
function Exchange:on_end(problem)
  if self.is_switched then
    self:close()
    -- A proxy that closes after a closing handshake only has nothing to do here.
    if not self.keeps_client then self.response:put("", function() self.response:abort() end) end
    return
  end
  if not problem and self.body and self.body.left == math.huge then
    self:close()
    return self.response:finish()
  elseif not problem and self.input:find("%S") and not self.input:find("^HTTP/") then
    return self:fail(502, "BACKEND_RESPONSE_FAILED", ("illegal status line: bytearray(b'%s')"):format(status_line(self.input)))
  end
  self:fail(502, "BACKEND_RESPONSE_FAILED", "Server disconnected without sending a response.")
end

function Exchange:start_timeout()
  if self.is_switched then return end
  self.timer:start(READ_TIMEOUT, function()
    self:fail(504, "BACKEND_TIMEOUT", ("the backend sent nothing for %d seconds"):format(READ_TIMEOUT / 1000))
  end)
end

function Exchange:read()
  self.paused = false
  self:start_timeout()
  self.socket:read_start(safe_callback.wrap(function(problem, data)
    if self.over then return end
    if problem or not data then return self:on_end(problem) end
    self:start_timeout()
    self:receive(data)
  end, function() self:fail(502, "GENERAL::UNKNOWN_ERROR", "An internal error occurred in the proxy.") end))
end

--- Forwards a request as it is: its `path`, `query`, `headers` and body.
---@param request table
---@param response table
---@param port integer of the program
---@param failed fun(status: integer, code: string, message: string) called when there is no response to send back
---@param options? table `refused(status)`: called instead of sending back a response that does not switch the protocol; `keeps_client`:
-- the client's connection stays when the program has ended its own after a switch
function proxy.forward(request, response, port, failed, options)
  options = options or {}
  local self = setmetatable({
    request = request, response = response, port = port, failed = failed, input = "", socket = uv.new_tcp(),
    timer = timer.new(), wants_switch = websocket.is_requested(request), refused = options.refused,
    keeps_client = options.keeps_client,
  }, Exchange)
  local function refused()
    self:fail(502, "BACKEND_CONNECTION_FAILED", "All connection attempts failed")
  end
  if port < 1 or port > 65535 then return refused() end
  response.on_abort = function() self:close() end
  request:close_with_client()
  self.socket:connect("127.0.0.1", port, safe_callback.wrap(function(problem)
    if self.over then return end
    if problem then return refused() end
    self.socket:nodelay(true)
    self:read()
  end))
  self:send_request()
end

--- Adds the headers that name the client, unless it has sent them itself.
function proxy.add_forwarded_headers(request)
  local headers, peer = request.headers, request.connection.socket:getpeername()
  headers["x-forwarded-proto"] = headers["x-forwarded-proto"] or "http"
  headers["x-forwarded-for"] = headers["x-forwarded-for"] or (peer and peer.ip)
end

--- Decodes a path and encodes it again, as execd's proxy does: an encoded slash becomes a separator.
function proxy.reencode(path)
  return path == "" and "/" or (url.escape(url.unescape(path)):gsub("%%2F", "/"))
end

return proxy

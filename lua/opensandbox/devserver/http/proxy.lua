--- Forwards a request to a program that listens on a port of this machine, and streams its answer back: neither side is
-- read faster than the other one takes.

local uv = require "luv"
local body = require "opensandbox.devserver.http.body"
local guard = require "opensandbox.devserver.base.safe_callback"
local timer = require "opensandbox.devserver.base.timer"
local url = require "opensandbox.devserver.base.url"

local HEAD_LIMIT = 64 * 1024
local WAITING_LIMIT = 1024 * 1024
local READ_GAP = 180000   -- milliseconds of silence after which the real service gives up

-- What belongs to one connection, not to the request or the answer; and what this server has dealt with or writes itself.
local DROPPED = {
  connection = true, ["keep-alive"] = true, ["proxy-authenticate"] = true, ["proxy-authorization"] = true, te = true,
  trailer = true, trailers = true, ["transfer-encoding"] = true, upgrade = true,
  expect = true, ["content-length"] = true, date = true,
}

local proxy = {}

local Exchange = {}
Exchange.__index = Exchange

function Exchange:close()
  if self.over then return end
  self.over = true
  self.timer:close()
  self.socket:close()
end

-- Ends what cannot succeed. A client must not take a part of an answer for the whole.
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
    "connection: close",
  }
  for name, value in pairs(headers) do
    if not DROPPED[name] and name ~= "host" then lines[#lines + 1] = name .. ": " .. value end
  end
  if request.chunked then
    lines[#lines + 1] = "transfer-encoding: chunked"
  elseif headers["content-length"] then
    lines[#lines + 1] = "content-length: " .. headers["content-length"]
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- Writes are queued by libuv until the connection stands.
function Exchange:send_request()
  local request, socket = self.request, self.socket
  socket:write(self:request_head())
  if request.complete then return end
  request:receive(function(data)
    if self.over then return end
    request:hold()
    local piece = request.chunked and { ("%x\r\n"):format(#data), data, "\r\n" } or data
    socket:write(piece, guard.wrap(function() request:release() end))
  end, function(complete)
    if self.over then return end
    if not complete then return self:close() end
    if request.chunked then socket:write("0\r\n\r\n") end
  end)
end

-- Begins the answer when its head is there.
function Exchange:answer_head()
  local _, last = self.input:find("\r\n\r\n", 1, true)
  if not last then
    if #self.input > HEAD_LIMIT then self:fail(502, "GENERAL::UNKNOWN_ERROR", "The backend's response head is too large.") end
    return false
  end
  local head = self.input:sub(1, last)
  self.input = self.input:sub(last + 1)
  local status = tonumber(head:match("^HTTP/1%.[01] (%d%d%d)"))
  if not status then
    self:fail(502, "GENERAL::UNKNOWN_ERROR", "The backend's response is not HTTP.")
    return false
  end
  if status < 200 then return true end   -- such as "100 Continue", which this server has said itself

  local headers, length, chunked = {}, nil, false
  for name, value in head:gmatch("\r\n([^%s:]+):[ \t]*([^\r\n]*)") do
    local key = name:lower()
    if key == "content-length" then length = tonumber(value) end
    if key == "transfer-encoding" then chunked = value:lower():find("chunked", 1, true) ~= nil end
    if not DROPPED[key] then headers[#headers + 1] = { name, value } end
  end
  local empty = self.request.method == "HEAD" or status == 204 or status == 304
  if empty and not length then
    self:close()
    self.response:send(status, headers, "")
    return false
  end
  self.body = body.new(empty and 0 or chunked and "chunked" or length or "close")
  self.response:stream(status, headers, not chunked and length or nil)
  self.response:write {}   -- the head goes out at once: the first byte may be long in coming
  return true
end

function Exchange:answer_body()
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
      if self.waiting and response.waiting < WAITING_LIMIT then self:read() end
    end)
  end
  if malformed then return self:fail() end
  if self.body.done then
    self:close()
    return response:finish()
  elseif response.waiting >= WAITING_LIMIT then
    self.waiting = true
    self.timer:stop()
    self.socket:read_stop()
  end
end

function Exchange:take(data)
  self.input = self.input .. data
  while not self.over and not self.body and self:answer_head() do end   -- luacheck: ignore 542
  if not self.over and self.body then self:answer_body() end
end

function Exchange:ended(problem)
  if not problem and self.body and self.body.left == math.huge then
    self:close()
    return self.response:finish()
  end
  self:fail(502, "GENERAL::UNKNOWN_ERROR", "Server disconnected without sending a response.")
end

function Exchange:watch()
  self.timer:start(READ_GAP, function()
    self:fail(504, "GENERAL::UNKNOWN_ERROR", "The backend sent nothing for 180 seconds.")
  end)
end

function Exchange:read()
  self.waiting = false
  self:watch()
  self.socket:read_start(guard.wrap(function(problem, data)
    if self.over then return end
    if problem or not data then return self:ended(problem) end
    self:watch()
    self:take(data)
  end, function() self:fail(502, "GENERAL::UNKNOWN_ERROR", "An internal error occurred in the proxy.") end))
end

--- Forwards a request as it is: its `path`, `query`, `headers` and body.
-- @param port where the program listens
-- @param failed called with status, code and message when there is no answer to send back; a code of
-- BACKEND_CONNECTION_FAILED says that the request was not delivered
function proxy.forward(request, response, port, failed)
  local self = setmetatable({
    request = request, response = response, port = port, failed = failed, input = "", socket = uv.new_tcp(),
    timer = timer.new(),
  }, Exchange)
  local function refused()
    self:fail(502, "BACKEND_CONNECTION_FAILED", "connection refused")
  end
  if port < 1 or port > 65535 then return refused() end
  response.on_abort = function() self:close() end
  request:end_with_client()
  self.socket:connect("127.0.0.1", port, guard.wrap(function(problem)
    if self.over then return end
    if problem then return refused() end
    self.socket:nodelay(true)
    self:read()
  end))
  self:send_request()
end

--- Adds the headers that tell the program who asks, where the client has not sent them.
function proxy.introduce(request)
  local headers, peer = request.headers, request.connection.socket:getpeername()
  headers["x-forwarded-proto"] = headers["x-forwarded-proto"] or "http"
  headers["x-forwarded-for"] = headers["x-forwarded-for"] or (peer and peer.ip)
end

--- execd's own `/proxy/{port}/...`: any method; the path is decoded and encoded again, the query is kept.
function proxy.serve(port, rest, request, response)
  local function text(status, message)
    response:send(status, { { "Content-Type", "text/plain; charset=utf-8" } }, message)
  end
  if port == "" then return text(400, "port is required") end
  request.path = rest == "" and "/" or url.encode(url.decode(rest), true)
  proxy.introduce(request)
  proxy.forward(request, response, tonumber(port) or 0, function() text(502, "Bad Gateway") end)
end

return proxy

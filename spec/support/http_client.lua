--- A plain HTTP/1.1 client for tests that check the bytes of a server, down to its chunks and their times.
--
-- It shares nothing with the library's own client: no libcurl, no connection reuse, no redirects, and a response that
-- ends early is reported, with everything that did arrive.

local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"
local http_message = require "spec.support.http_message"

local http_client = {}

local function split(url)
  local host, port, path = url:match("^http://([^/:?]+):?(%d*)(.*)$")
  if not host then error("not an http URL: " .. tostring(url), 3) end
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return host == "localhost" and "127.0.0.1" or host, tonumber(port) or 80, path
end

-- The bytes of the request. A body that is an array of strings is sent chunked, one chunk for each.
local function compose(options, host, port, path)
  if options.raw then return options.raw end
  local list = { { "Host", host .. ":" .. port } }
  for _, pair in ipairs(http_message.pairs(options.headers)) do list[#list + 1] = pair end
  if not http_message.find(list, "connection") then list[#list + 1] = { "Connection", "close" } end
  local method = options.method or (options.body and "POST" or "GET")
  local body = options.body or ""
  if type(body) == "table" then
    list[#list + 1] = { "Transfer-Encoding", "chunked" }
    local chunks = {}
    for _, text in ipairs(body) do chunks[#chunks + 1] = http_message.chunk(text) end
    body = table.concat(chunks) .. "0\r\n\r\n"
  elseif (options.body or method == "POST") and not http_message.find(list, "content-length") then
    list[#list + 1] = { "Content-Length", #body }
  end
  return http_message.format(("%s %s HTTP/1.1"):format(method, path), list) .. body
end

local Exchange = {}
Exchange.__index = Exchange

function Exchange:elapsed()
  return math.floor(uv_loop.now() - self.began)
end

function Exchange:on_piece(piece, ends)
  local response = self.response
  self.body[#self.body + 1] = piece
  self.chunk[#self.chunk + 1] = piece
  if not ends then return end
  local text, ms = table.concat(self.chunk), self:elapsed()
  self.chunk = {}
  response.chunks[#response.chunks + 1] = { ms, text }
  if not self.on_chunk then return end
  -- An error must not pass through the event loop, which would end the process; `request` raises it again.
  local ok, answer = pcall(self.on_chunk, text, ms)
  if not ok then self.raised = { answer } end
  if not ok or answer == false then response.aborted, self.done = true, true end
end

function Exchange:on_head(text)
  local head = http_message.head(text)
  local status, reason = head.line:match("^HTTP/1%.%d (%d%d%d) ?(.*)$")
  if not status then
    self.problem, self.done = "not an HTTP response: " .. head.line:sub(1, 80), true
    return
  end
  status = tonumber(status)
  if status < 200 and status ~= 101 then
    self.informational[#self.informational + 1] = { status = status, reason = reason, headers = head.headers }
    return
  end
  self.response = {
    status = status, reason = reason, headers = head.headers, raw_headers = head.raw_headers,
    head_ms = self:elapsed(), informational = self.informational, chunks = {},
  }
  local empty = self.method == "HEAD" or status == 204 or status == 304
  self.reader = http_message.body(empty and {} or head.headers, empty and "none" or "close", function(piece, ends)
    if not self.done then self:on_piece(piece, ends) end
  end)
end

function Exchange:on_bytes(data)
  self.buffer = self.buffer .. data
  local position = 1
  while not self.response and not self.done do
    local first, last = self.buffer:find("\r\n\r\n", position, true)
    if not first then break end
    self:on_head(self.buffer:sub(position, first - 1))
    position = last + 1
  end
  if self.reader and not self.done then
    position = self.reader:feed(self.buffer, position)
    if self.reader.done then self.problem, self.done = self.reader.problem, true end
  end
  self.buffer = self.buffer:sub(position)
end

function Exchange:on_end(problem)
  self.done = true
  if not self.response then
    self.problem = problem or "closed without a response"
  elseif problem or self.reader.kind ~= "close" then
    self.response.cut, self.response.cut_by = true, problem or "end of stream"
  end
end

function Exchange:result()
  local response = self.response
  if not response then return nil, self.problem or "timeout" end
  -- A chunk of which only a part arrived belongs to the body, and to the chunks, too: nothing is hidden.
  if #self.chunk > 0 then response.chunks[#response.chunks + 1] = { self:elapsed(), table.concat(self.chunk) } end
  response.body, response.end_ms = table.concat(self.body), self:elapsed()
  if self.reader.kind == "chunked" then response.trailers = self.reader.trailers end
  if self.problem then return nil, self.problem, response end
  if not self.done then return nil, "timeout", response end
  return response
end

--- Makes one request.
-- @param options `url`, `method`, `headers` (map or pairs), `body` (string, or an array of strings to send it chunked),
-- `timeout` (seconds, 10), `on_chunk(text, ms)` (returns false to hang up), `raw` (bytes to send instead of a request)
-- @treturn[1] table `status`, `reason`, `headers`, `raw_headers`, `body`, `chunks` ({ms, text}...), `head_ms`,
-- `end_ms`, `informational`; where it applies `cut` (the peer closed early; `cut_by` names the way), `aborted`, `trailers`
-- @treturn[2] nil
-- @treturn[2] string what went wrong
-- @treturn[2] table the response as far as it had arrived, if the head had
function http_client.request(options)
  local host, port, path = split(options.url)
  local method = options.method or (options.body and "POST" or "GET")
  local self = setmetatable({
    method = method, buffer = "", body = {}, chunk = {}, informational = {}, on_chunk = options.on_chunk,
    began = uv_loop.now(),
  }, Exchange)
  local socket = uv.new_tcp()
  local function ended(problem)
    if not self.done then self:on_end(problem) end
  end
  socket:connect(host, port, function(refused)
    if refused then return ended(refused) end
    socket:nodelay(true)
    self.began = uv_loop.now()
    socket:write(compose(options, host, port, path))
    socket:read_start(function(problem, data)
      if self.done then return end
      if data then self:on_bytes(data) else ended(problem) end
    end)
  end)
  uv_loop.wait(function() return self.done end, options.timeout or 10)
  uv_loop.close(socket)
  if self.raised then error(self.raised[1], 0) end
  return self:result()
end

return http_client

--- One HTTP response: whole, streamed in chunks, or a piece of a file.
--
-- A write calls back when the client has received it, so that a slow client slows its producer down instead of filling the memory.

local uv = require "luv"
local time = require "opensandbox.base.time"
local json = require "opensandbox.base.json"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local utf8 = require "opensandbox.base.utf8"

local REASONS = {
  [200] = "OK", [201] = "Created", [202] = "Accepted", [204] = "No Content", [206] = "Partial Content",
  [301] = "Moved Permanently", [304] = "Not Modified", [307] = "Temporary Redirect", [400] = "Bad Request",
  [401] = "Unauthorized", [403] = "Forbidden", [404] = "Not Found", [405] = "Method Not Allowed", [409] = "Conflict",
  [412] = "Precondition Failed", [413] = "Request Entity Too Large", [416] = "Requested Range Not Satisfiable",
  [422] = "Unprocessable Entity", [431] = "Request Header Fields Too Large", [500] = "Internal Server Error",
  [501] = "Not Implemented", [502] = "Bad Gateway", [503] = "Service Unavailable", [504] = "Gateway Timeout",
}
local CHUNK_SIZE = 256 * 1024 -- of a file

local Response = {}
Response.__index = Response

--- Creates the response of a request.
---@param socket userdata
---@param request table its `method`, `version` and `keep_alive` decide about body and framing
---@param on_done fun(keep_alive: boolean) called once, with whether the connection can be used for another request
local function new(socket, request, on_done)
  return setmetatable({
    socket = socket, request = request, on_done = on_done, extra = {}, waiting = 0, keep_alive = request.keep_alive,
  }, Response)
end

--- Adds a header to the response that is still to be sent.
function Response:header(name, value)
  self.extra[#self.extra + 1] = { name, value }
end

--- Writes bytes as they are.
---@param data string
---@param callback? fun() called when they have left, and never when the client has gone
function Response:put(data, callback)
  if self.closed then return end
  self.waiting = self.waiting + #data
  self.socket:write(data, safe_callback.wrap(function(problem)
    self.waiting = self.waiting - #data
    if problem then
      self:abort()
    elseif callback and not self.closed then
      callback()
    end
  end, function() self:abort() end))
end

function Response:_head(status, headers)
  self.started = true
  local lines = { ("HTTP/1.1 %d %s"):format(status, REASONS[status] or "Unknown") }
  for _, list in ipairs { headers, self.extra } do
    for _, pair in ipairs(list) do
      -- A line break in a value would begin another header.
      lines[#lines + 1] = pair[1] .. ": " .. tostring(pair[2]):gsub("[\r\n]", " ")
    end
  end
  lines[#lines + 1] = "Date: " .. time.format_http_date()
  if not self.keep_alive then lines[#lines + 1] = "Connection: close" end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

function Response:_done()
  if self.closed then return end
  self.closed = true
  self.on_done(self.keep_alive)
end

--- Closes the connection without ending the response, so that the client does not regard it as complete.
function Response:abort()
  if self.closed then return end
  self.keep_alive = false
  self.closed = true
  self.on_done(false)
end

--- Sends a whole response.
function Response:send(status, headers, body)
  if self.started then return self:abort() end
  local list = {}
  for _, pair in ipairs(headers) do list[#list + 1] = pair end
  if status ~= 204 and status ~= 304 then list[#list + 1] = { "Content-Length", #body } end
  local head = self:_head(status, list)
  self:put(self.request.method == "HEAD" and head or head .. body, function() self:_done() end)
end

--- Sends a value as JSON. Two fields are set when the request is dispatched: `json_type`, the content type of the API, and
-- `max_sized`, the size in bytes above which its server sends a chunked response.
---@param status integer
---@param value any
---@param ending? string bytes after the JSON
function Response:json(status, value, ending)
  -- The encoder writes every slash as "\\/", which the services do not. Bytes that are not UTF-8 come from names of files.
  local body = utf8.replace_invalid((json.encode(value):gsub("\\/", "/"))) .. (ending or "")
  local headers = { { "Content-Type", self.json_type } }
  if #body <= (self.max_sized or math.huge) then return self:send(status, headers, body) end
  self:stream(status, headers)
  self:write { body }
  self:finish()
end

--- Sends an error in the shape that both APIs share.
function Response:fail(status, code, message)
  self:json(status, { code = code, message = message })
end

--- Switches the connection to another protocol: sends a response with the status 101, and passes on the bytes that the client sends. Bytes
-- are then sent with `put`, and `abort` closes the connection.
---@param headers { [1]: string, [2]: string }[]
---@param on_data fun(data: string)
---@param on_end fun() called once, when the connection has ended
function Response:switch(headers, on_data, on_end)
  self.started, self.keep_alive = true, false
  self.on_gone, self.on_abort = nil, on_end
  local lines = { "HTTP/1.1 101 Switching Protocols" }
  for _, pair in ipairs(headers) do lines[#lines + 1] = pair[1] .. ": " .. pair[2] end
  self:put(table.concat(lines, "\r\n") .. "\r\n\r\n")
  self.request.connection:switch(on_data)
end

--- Sends a response without a body.
function Response:empty(status)
  self:send(status, {}, "")
end

--- Sends a response that is shorter than its headers say, and closes the connection.
function Response:cut(status, headers, body)
  self:put(self:_head(status, headers) .. body, function() self:abort() end)
end

--- Starts a response that is written in pieces.
---@param status integer
---@param headers { [1]: string, [2]: string }[]
---@param length? integer bytes of the body, when they are known
function Response:stream(status, headers, length)
  local list = {}
  for _, pair in ipairs(headers) do list[#list + 1] = pair end
  self.chunked = not length and self.request.version == "1.1"
  if length then
    list[#list + 1] = { "Content-Length", ("%.0f"):format(length) }
  elseif self.chunked then
    list[#list + 1] = { "Transfer-Encoding", "chunked" }
  else
    self.keep_alive = false
  end
  self.pending = self:_head(status, list)   -- sent together with the first chunks
end

--- Writes pieces of a streamed response, each as a chunk of its own, in one system call.
---@param pieces string[] none of them empty
---@param callback? fun() called when they have left
function Response:write(pieces, callback)
  local parts = { self.pending }
  self.pending = nil
  for _, piece in ipairs(pieces) do
    if self.chunked then
      parts[#parts + 1] = ("%x\r\n"):format(#piece)
      parts[#parts + 1] = piece
      parts[#parts + 1] = "\r\n"
    else
      parts[#parts + 1] = piece
    end
  end
  self:put(table.concat(parts), callback)
end

--- Ends a streamed response.
function Response:finish()
  local tail = (self.pending or "") .. (self.chunked and "0\r\n\r\n" or "")
  self.pending = nil
  self:put(tail, function() self:_done() end)
end

--- Sends `length` bytes of an open file from `offset` on, and closes the file. When it turns out to be shorter, the connection is
-- closed.
function Response:send_file(status, headers, fd, offset, length)
  local function close()
    if fd then uv.fs_close(fd) end
    fd = nil
  end
  local function step()
    if self.closed then return close() end
    if length == 0 then
      close()
      return self:_done()
    end
    local data = uv.fs_read(fd, math.min(length, CHUNK_SIZE), offset)
    if not data or data == "" then
      close()
      return self:abort()
    end
    offset, length = offset + #data, length - #data
    self:put(data, step)
  end
  self.on_abort = close
  self:put(self:_head(status, headers), step)
end

return { new = new }

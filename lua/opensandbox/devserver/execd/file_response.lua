--- A file as the response of a download: whole, a range of bytes, or a range of lines. It is like Go's http.ServeContent, quirks included.

local uv = require "luv"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local file_response = {}

local CHUNK_SIZE = 64 * 1024
local DIRECTORY_SIZE = "9223372036854775807" -- the length that execd announces for a directory, before it sends nothing

-- Finds the first range of a Range header that lies in a file of `size` bytes.
---@return integer|false|nil first byte; false when no range lies in the file; nil when the header is malformed
---@return integer? count
local function first_range(header, size)
  local specification = header:match("^bytes=(.*)$")
  if not specification then return nil end
  local start, length = false, nil
  for item in specification:gmatch("[^,]+") do
    local piece = item:match("^%s*(.-)%s*$")
    local from, to = piece:match("^(%d*)%s*%-%s*(%d*)$")
    from, to = tonumber(from), tonumber(to)
    if piece ~= "" then
      if not (from or to) or (from and to and to < from) then return nil end
      local first = from or size - math.min(to, size)
      local count = from and (to and to - from + 1 or size - from) or size - first
      if not start and first < size then start, length = first, math.min(count, size - first) end
    end
  end
  return start, length
end

local function disposition(name)
  name = name:gsub("[\r\n]", " ") -- as in Go's header values
  if not name:find("[\128-\255]") then return ('attachment; filename="%s"'):format(name) end
  local encoded = url.escape(name)
  return ("attachment; filename=\"%s\"; filename*=UTF-8''%s"):format(encoded, encoded)
end

-- Reads the lines `offset` to `offset + limit - 1` of an open file, without their ends, joined by newlines.
local function read_lines(fd, offset, limit)
  local lines, number, rest, position = {}, 0, "", 0
  local function add(line)
    number = number + 1
    if number >= offset and #lines < limit then lines[#lines + 1] = (line:gsub("[\r\n]+$", "")) end
  end
  while #lines < limit do
    local data = uv.fs_read(fd, CHUNK_SIZE, position)
    if not data or data == "" then
      if rest ~= "" then add(rest) end
      break
    end
    position, rest = position + #data, rest .. data
    local from = 1
    while true do
      local at = rest:find("\n", from, true)
      if not at or #lines >= limit then break end
      add(rest:sub(from, at - 1))
      from = at + 1
    end
    rest = rest:sub(from)
  end
  return table.concat(lines, "\n")
end

--- Returns the range of lines of a request.
---@param call table
---@return integer? offset nil when no lines are wanted
---@return integer|string|nil limit; without an offset the problem of the request
function file_response.line_range(call)
  local offset, limit = call:parameter("offset") or "", call:parameter("limit") or ""
  if offset == "" and limit == "" then return nil end
  local function positive(text, default)
    if text == "" then return default end
    local value = tonumber(text:match("^%+?%d+$"))
    return value and value >= 1 and value or nil
  end
  local first, count = positive(offset, 1), positive(limit, math.huge)
  if not first then return nil, "invalid query parameter 'offset': " .. offset end
  if not count then return nil, "invalid query parameter 'limit': " .. limit end
  if call.request.headers.range then
    return nil, "line-based reading (offset/limit) and byte range (Range header) are mutually exclusive"
  end
  return first, count
end

-- Sends the bytes of a regular file.
local function send_bytes(call, name, fd, stat)
  local response, headers = call.response, call.request.headers
  local size = stat.size
  local modified = { "Last-Modified", time.format_http_date(stat.mtime.sec) }
  local bytes = { "Content-Type", "application/octet-stream" }
  local function length(count) return { "Content-Length", ("%.0f"):format(count) } end

  local start, count = 0, size
  if headers.range then
    start, count = first_range(headers.range, size)
    if start == nil then
      uv.fs_close(fd)
      return response:cut(416, { name, bytes, length(size) }, "")
    elseif start == false and size > 0 then
      uv.fs_close(fd)
      return response:send(416, {
        name, { "Content-Range", ("bytes */%.0f"):format(size) }, { "Content-Type", "text/plain; charset=utf-8" },
        modified, { "X-Content-Type-Options", "nosniff" },
      }, "invalid range: failed to overlap\n")
    elseif start then
      local range = { "Content-Range", ("bytes %.0f-%.0f/%.0f"):format(start, start + count - 1, size) }
      return response:send_file(206, { name, length(count), range, bytes }, fd, start, count)
    end
    start, count = 0, 0
  end
  local since = time.parse_http_date(headers["if-modified-since"])
  if since and stat.mtime.sec <= since then
    uv.fs_close(fd)
    return response:send(304, { name, modified }, "")
  end
  response:send_file(200, { { "Accept-Ranges", "bytes" }, name, length(count), bytes, modified }, fd, start, count)
end

--- Sends an open file, and closes it.
---@param call table
---@param file table `fd`, `name`, `is_proc` (a file of /proc, in which Go cannot seek)
---@param offset? integer first line
---@param limit? integer lines
function file_response.send(call, file, offset, limit)
  local response, fd = call.response, file.fd
  local stat = uv.fs_fstat(fd)
  local name = { "Content-Disposition", disposition(file.name) }
  local text = { "Content-Type", "text/plain; charset=utf-8" }
  if stat.type == "file" and not offset and not file.is_proc then return send_bytes(call, name, fd, stat) end
  local lines = offset and stat.type == "file" and read_lines(fd, offset, limit)
  uv.fs_close(fd)
  if lines then return response:send(200, { text }, lines) end
  if stat.type == "file" then
    return response:send(500, { name, text, { "X-Content-Type-Options", "nosniff" } }, "seeker can't seek\n")
  end
  local modified = { "Last-Modified", time.format_http_date(stat.mtime.sec) }
  local ranges, bytes = { "Accept-Ranges", "bytes" }, { "Content-Type", "application/octet-stream" }
  if stat.type ~= "directory" then return response:send(200, { ranges, name, bytes, modified }, "") end
  if offset then return response:send(200, { text }, "") end
  response:cut(200, { ranges, name, { "Content-Length", DIRECTORY_SIZE }, bytes, modified }, "")
end

return file_response

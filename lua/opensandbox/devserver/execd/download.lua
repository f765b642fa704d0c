--- `GET /files/download`: whole files, byte ranges, line ranges.

local uv = require "luv"
local errno = require "opensandbox.devserver.base.errno"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local time = require "opensandbox.devserver.base.time"
local url = require "opensandbox.devserver.base.url"

local PIECE = 64 * 1024
local DIRECTORY_SIZE = "9223372036854775807"   -- what execd says of a directory, before it sends nothing

-- The first range of a Range header that lies in a file of `size` bytes.
-- @treturn[1] number the first byte
-- @treturn[1] number how many
-- @treturn[2] false when no range lies in the file
-- @treturn[3] nil when the header is malformed
local function first_range(header, size)
  local specification = header:match("^bytes=(.*)$")
  if not specification then return nil end
  local start, length = false, nil
  for part in specification:gmatch("[^,]+") do
    local piece = part:match("^%s*(.-)%s*$")
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
  name = name:gsub("[\r\n]", " ")   -- as Go writes header values; the head would end here otherwise
  if not name:find("[\128-\255]") then return ('attachment; filename="%s"'):format(name) end
  local encoded = url.encode(name)
  return ("attachment; filename=\"%s\"; filename*=UTF-8''%s"):format(encoded, encoded)
end

-- Lines `offset` to `offset + limit - 1` of an open file, without their ends, joined by newlines.
local function read_lines(fd, offset, limit)
  local lines, number, rest, position = {}, 0, "", 0
  local function take(line)
    number = number + 1
    if number >= offset and #lines < limit then lines[#lines + 1] = (line:gsub("[\r\n]+$", "")) end
  end
  while #lines < limit do
    local data = uv.fs_read(fd, PIECE, position)
    if not data or data == "" then
      if rest ~= "" then take(rest) end
      break
    end
    position, rest = position + #data, rest .. data
    local from = 1
    while true do
      local at = rest:find("\n", from, true)
      if not at or #lines >= limit then break end
      take(rest:sub(from, at - 1))
      from = at + 1
    end
    rest = rest:sub(from)
  end
  return table.concat(lines, "\n")
end

-- The line range of a request: two numbers, or nil and what is wrong, or nothing when whole files are wanted.
local function line_range(call)
  local offset, limit = call:parameter("offset") or "", call:parameter("limit") or ""
  if offset == "" and limit == "" then return nil end
  local function positive(text, default)
    if text == "" then return default end
    local value = tonumber(text:match("^%+?%d+$"))
    return value and value >= 1 and value or nil
  end
  local first, count = positive(offset, 1), positive(limit, math.huge)
  if not first then return nil, "offset must be a positive integer (1-based)" end
  if not count then return nil, "limit must be a positive integer" end
  if call.request.headers.range then return nil, "offset and limit cannot be used together with a Range header" end
  return first, count
end

local function send(call, place, fd, stat)
  local response, headers = call.response, call.request.headers
  local size = stat.size
  local name = { "Content-Disposition", disposition(place.named:match("[^/]*$")) }
  local modified = { "Last-Modified", time.http(stat.mtime.sec) }
  local bytes = { "Content-Type", "application/octet-stream" }
  local function length(count) return { "Content-Length", ("%.0f"):format(count) } end

  local start, count = 0, size
  if headers.range then
    start, count = first_range(headers.range, size)
    if start == nil then
      uv.fs_close(fd)
      local body = '{"code":"UNKNOWN"}'
      return response:cut(416, { name, { "Content-Type", response.json_type }, length(size) },
        size >= #body and body or "")
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
  if headers["if-modified-since"] == modified[2] then
    uv.fs_close(fd)
    return response:send(304, { name, modified }, "")
  end
  response:send_file(200, { { "Accept-Ranges", "bytes" }, name, length(count), bytes, modified }, fd, start, count)
end

local routes = {}

routes["GET /files/download"] = function(call)
  local response, path = call.response, call:required("path")
  if not path then return end
  local place, problem = filesystem.locate(call.sandbox, path, false, "open")
  if not place then return call:fail(problem) end
  local offset, limit = line_range(call)
  if not offset and limit then return response:fail(400, "INVALID_REQUEST_BODY", limit) end

  local stat, code = uv.fs_stat(place.path)
  if not stat then return call:fail(errno.new(code:match("^%u+"), "open", place.named)) end
  if stat.type == "directory" then
    if offset then return response:send(200, { { "Content-Type", "text/plain; charset=utf-8" } }, "") end
    return response:cut(200, {
      { "Accept-Ranges", "bytes" }, { "Content-Disposition", disposition(place.named:match("[^/]*$")) },
      { "Content-Length", DIRECTORY_SIZE }, { "Content-Type", "application/octet-stream" },
    }, "")
  elseif stat.type ~= "file" then
    -- Opening a pipe would wait for its writer, and the whole server with it.
    return call:fail(errno.new("EINVAL", "open", place.named))
  end
  local fd
  fd, problem = filesystem.call("open", uv.fs_open, place, false, "r", 0)
  if not fd then return call:fail(problem) end
  if not offset then return send(call, place, fd, stat) end
  local text = read_lines(fd, offset, limit)
  uv.fs_close(fd)
  response:send(200, { { "Content-Type", "text/plain; charset=utf-8" } }, text)
end

return routes

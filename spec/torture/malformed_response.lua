--- HTTP responses that break the rules: another one for each seed, and the same one for the same seed.
--
-- Most are nearly right, because what is plainly wrong is refused at the first line. Bodies are some of those that the services send, some
-- that are too deep or cut, and bytes that are not text. No response is longer than half a megabyte.

local new_random = require "spec.support.random"

local malformed_response = {}

-- The text repeated a number of times.
local function times(number, text) return text:rep(number) end

local BODIES = {
  "", "{}", "[]", "null", "{", '{"id":"a","status":{"state":"Running"}}', '{"items":[{}],"pagination":{"hasNextPage":true}}',
  '{"items":[],"pagination":{"hasNextPage":false}}', '{"endpoint":"127.0.0.1:1/x"}', '{"session_id":"s"}',
  '{"code":"X","message":"' .. times(70000, "m") .. '"}', '{"a":1e999,"b":-0,"c":"\\ud800"}', "<html><title>x</title>",
  '{"type":"init","text":"c1"}\n\n{"type":"stdout","text":"hi"}\n\n{"type":"execution_complete","execution_time":3}\n\n',
  '{"type":"init","text":"c1"}\n\n{"type":"stdout","text":"half of',
  '{"type":"error","error":{"ename":"a","evalue":"1"}}\n\n', '{"code":"RUNTIME_ERROR","message":"no"}',
  times(50, 'data: {"type":"stdout","text":"x"}\n\n'), '{"type":"stdout","text":"' .. times(1000, "\\u0000") .. '"}\n\n',
  '{"type":5,"text":{},"error":[],"results":1}\n\n', times(100000, "{"), times(200000, "["), '"' .. times(300000, "a") .. '"',
  times(100, "\0"), "\255\254\27[31m", times(3000, "{}\n\n"),
}
local STATUSES = {
  "200 OK", "200 OK", "200 OK", "200 OK", "200 OK", "200 OK", "201 Created", "204 No Content", "206 Partial Content", "301 Moved",
  "302 F", "304 NM", "400 Bad", "401 U", "404 Not Found", "409 C", "416 R", "429 T", "500 E", "502 B", "503 S", "999 Z", "000 N",
  "099 n", "-1 x", "99999999999 q", "2OO OK", "", "200",
}
local VERSIONS = {
  "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2",
  "HTTP/3", "HTTP/9.9", "HTTP/", "http/1.1", "ICY", "RTSP/1.0", "\22\3\1",
}
local LINE_ENDS = { "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r" }
local HEADERS = {
  "Content-Encoding: gzip", "Connection: close", "Connection: keep-alive", "Location: http://127.0.0.1:1/evil",
  "Location: file:///etc/passwd", "Set-Cookie: a=b", "X: " .. times(1000, "y"), "X: " .. times(99000, "y"),
  "X: " .. times(200000, "y"), "noColon", ": empty", "A\0B: c", "X-Request-Id: \1\2\255\27[31m", " folded", "Retry-After: -1",
  "Retry-After: 1e308", "Retry-After: nan", "Retry-After: 99999999999", "Date: Thu, 99 Foo 9999 99:99:99 GMT",
  "Content-Range: bytes 5-1/0",
  "Content-Range: bytes 0-99999999999999999999/*", "Content-Disposition: attachment; filename=../../x", "Upgrade: h2c",
  'Alt-Svc: h3=":1"', "Strict-Transport-Security: max-age=1", "Content-Type: text/html", "Content-Type: application/json",
  "Content-Type: text/event-stream", "Content-Type: " .. times(5000, "a"), "Content-Type:",
  "WWW-Authenticate: Digest realm=x, nonce=y", "Proxy-Authenticate: NTLM", "Keep-Alive: timeout=-1",
}
local PREFIXES = {
  "", "", "", "", "", "", "", "HTTP/1.1 100 Continue\r\n\r\n", times(30, "HTTP/1.1 102 P\r\n\r\n"),
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "\r\n\r\n", "garbage\r\n", "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
}
local ENCODINGS = {
  "chunked", "chunked", "chunked", "chunked, gzip", "gzip", "identity", "xchunked", times(50, "gzip, ") .. "chunked",
}

local function right_length(size) return ("Content-Length: %d"):format(size) end

-- The lines that announce the length of a body of `size` bytes.
local LENGTHS = {
  function(size) return { right_length(size) } end,
  function(size) return { right_length(size) } end,
  function(size) return { right_length(size) } end,
  function(size) return { right_length(size) } end,
  function() return {} end,
  function() return {} end,
  function() return { "Content-Length: -5" } end,
  function() return { "Content-Length: 9223372036854775807" } end,
  function() return { "Content-Length: 99999999999999999999999" } end,
  function(size) return { right_length(math.max(0, size - 3)) } end,
  function(size) return { right_length(size + 50) } end,
  function() return { "Content-Length: abc" } end,
  function(size) return { right_length(size), right_length(size + 1) } end,
  function(size) return { ("Content-Length: +%d"):format(size) } end,
  function(size) return { ("Content-Length: %d, %d"):format(size, size) } end,
  function() return { "Content-Length: 0x10" } end,
}

-- A body in chunks, most of them wrong.
local CHUNKED = {
  function(body) return ("%x\r\n%s\r\n0\r\n\r\n"):format(#body, body) end,
  function(body) return ("%x\r\n%s\r\n0\r\n\r\n"):format(#body, body) end,
  function(body) return ("-%x\r\n%s"):format(#body, body) end,
  function(body) return "7fffffffffffffff\r\n" .. body end,
  function(body) return "ffffffffffffffffff\r\n" .. body end,
  function(body) return "zz\r\n" .. body end,
  function(body) return ("%x\r\n%s"):format(#body, body) end,
  function(body) return ("%x;%s\r\n%s\r\n0\r\n\r\n"):format(#body, times(20000, "e"), body) end,
  function(body) return ("%x\r\n%s\r\n0\r\n%sHTTP/1.1 500 E\r\n\r\n"):format(#body, body, times(5000, "T: v\r\n")) end,
  function(body) return ("%x\n%s\n0\n\n"):format(#body, body) end,
}

local function message(random)
  local function pick(list) return list[random(#list)] end
  local body = pick(BODIES)
  local lines = pick(LENGTHS)(#body)
  if random(4) == 1 then
    lines[#lines + 1] = "Transfer-Encoding: " .. pick(ENCODINGS)
    body = pick(CHUNKED)(body)
  end
  for _ = 1, pick { 0, 0, 0, 1, 3 } do table.insert(lines, random(#lines + 1), pick(HEADERS)) end
  local line_end = pick(LINE_ENDS)
  local head = { pick(VERSIONS) .. " " .. pick(STATUSES) .. line_end }
  for _, line in ipairs(lines) do head[#head + 1] = line .. line_end end
  return pick(PREFIXES) .. table.concat(head) .. line_end .. body
end

-- Cuts the bytes, changes some, or sends them twice.
local function damaged(random, bytes)
  local fate = random(100)
  if fate <= 15 then return bytes:sub(1, random(#bytes)) end
  if fate <= 30 then
    for _ = 1, ({ 1, 1, 2, 8 })[random(4)] do
      local at = random(#bytes)
      bytes = bytes:sub(1, at - 1) .. string.char(random(256) - 1) .. bytes:sub(at + 1)
    end
    return bytes
  end
  return fate <= 33 and bytes .. bytes or bytes
end

local function in_pieces(random, bytes)
  local pieces, position = {}, 1
  local sizes = #bytes < 3000 and { 1, 3, 50, 1000 } or { 1000, 20000, 100000 }
  while position <= #bytes do
    local size = sizes[random(#sizes)]
    pieces[#pieces + 1] = bytes:sub(position, position + size - 1)
    position = position + size
  end
  return pieces
end

--- Returns the response of a seed.
---@param seed integer
---@return table response: `pieces`, the bytes in the order in which they are sent; `delay`, milliseconds before the last piece, or nil; `at_once`, it is sent before the body of the request has arrived; `last`, what follows: "close", "reset" or "hold"
function malformed_response.new(seed)
  local random = new_random(seed)
  local at_once = random(100) <= 15
  local bytes = damaged(random, message(random))
  local response = { at_once = at_once, pieces = { bytes } }
  local way = random(100)
  if way > 85 then
    local at = random(#bytes)
    response.pieces, response.delay = { bytes:sub(1, at), bytes:sub(at + 1) }, ({ 50, 200, 900 })[random(3)]
  elseif way > 60 then
    response.pieces = in_pieces(random, bytes)
  end
  response.last = ({ "close", "close", "close", "close", "close", "reset", "hold", "hold" })[random(8)]
  return response
end

return malformed_response

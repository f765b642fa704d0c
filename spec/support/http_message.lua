--- The parts of HTTP/1.1 that a client and a server read the same way: a message's head and its body.

local http_message = {}

--- Parses a message head (without the empty line that ends it).
-- @treturn table `line` (the first line), `raw_headers` (array of {name, value}), `headers` (lower-case name to value;
-- the values of a repeated header are joined with ", ")
function http_message.head(text)
  local head = { raw_headers = {}, headers = {} }
  for line in text:gmatch("[^\r\n]+") do
    if not head.line then
      head.line = line
    else
      local name, value = line:match("^([^:]-)%s*:%s*(.-)%s*$")
      if name then
        head.raw_headers[#head.raw_headers + 1] = { name, value }
        local key = name:lower()
        head.headers[key] = head.headers[key] and head.headers[key] .. ", " .. value or value
      end
    end
  end
  return head
end

--- Headers given as a map or as an array of pairs, as an array of pairs. A map's come in the order of their names, so
-- that the sent bytes do not depend on the hash order.
function http_message.pairs(headers)
  if not headers then return {} end
  if headers[1] then return headers end
  local list = {}
  for name, value in pairs(headers) do list[#list + 1] = { name, value } end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  return list
end

--- The first value of a header in an array of pairs. The case of its name does not matter.
function http_message.find(list, name)
  for _, pair in ipairs(list) do
    if pair[1]:lower() == name then return tostring(pair[2]) end
  end
  return nil
end

--- The bytes of a message head, with the empty line.
function http_message.format(line, list)
  local parts = { line }
  for _, pair in ipairs(list) do parts[#parts + 1] = pair[1] .. ": " .. tostring(pair[2]) end
  return table.concat(parts, "\r\n") .. "\r\n\r\n"
end

--- The bytes of one chunk of a chunked body. (Not through string.format: that of Lua 5.1 and 5.2 ends at a zero byte.)
function http_message.chunk(bytes)
  return ("%x\r\n"):format(#bytes) .. bytes .. "\r\n"
end

local Body = {}
Body.__index = Body

--- A reader of a message body.
-- @param headers the head's map
-- @param default the kind of a body without length and chunks: "none" (requests) or "close" (responses)
-- @param on_data called with each piece and, for a chunked body, whether it ends its chunk
function http_message.body(headers, default, on_data)
  local self = setmetatable({ on_data = on_data, done = false, trailers = {} }, Body)
  local encoding = headers["transfer-encoding"]
  if encoding and encoding:lower():find("chunked", 1, true) then
    self.kind, self.state = "chunked", "size"
  elseif headers["content-length"] then
    self.kind, self.left = "length", tonumber(headers["content-length"]:match("^%d+")) or 0
    self.done = self.left == 0
  else
    self.kind, self.done = default, default == "none"
  end
  return self
end

-- One step of a chunked body; returns the position after the used bytes, or nil when it needs more bytes.
local steps = {}

local function line_at(buffer, position)
  local newline = buffer:find("\n", position, true)
  if newline then return (buffer:sub(position, newline - 1):gsub("\r$", "")), newline + 1 end
end

function steps.size(self, buffer, position)
  local line, after = line_at(buffer, position)
  if not line then return nil end
  self.left = tonumber(line:match("^%s*(%x+)") or "", 16)
  if not self.left then
    self.problem, self.done = "not a chunk size: " .. line, true
    return after
  end
  self.state = self.left == 0 and "trailer" or "data"
  return after
end

function steps.data(self, buffer, position)
  local count = math.min(self.left, #buffer - position + 1)
  if count == 0 then return nil end
  self.left = self.left - count
  if self.left == 0 then self.state = "separator" end
  self.on_data(buffer:sub(position, position + count - 1), self.left == 0)
  return position + count
end

function steps.separator(self, buffer, position)
  local _, after = line_at(buffer, position)
  if after then self.state = "size" end
  return after
end

function steps.trailer(self, buffer, position)
  local line, after = line_at(buffer, position)
  if not line then return nil end
  if line == "" then self.done = true else self.trailers[#self.trailers + 1] = line end
  return after
end

--- Reads from a buffer.
-- @treturn number the position after the last byte that was used; `self.done` is true when the body is complete
function Body:feed(buffer, position)
  while not self.done do
    if self.kind == "chunked" then
      local after = steps[self.state](self, buffer, position)
      if not after then return position end
      position = after
    else
      local count = #buffer - position + 1
      if self.left then
        count = math.min(count, self.left)
        self.left = self.left - count
        self.done = self.left == 0
      end
      if count == 0 then return position end
      self.on_data(buffer:sub(position, position + count - 1), true)
      position = position + count
      if not self.left then return position end
    end
  end
  return position
end

return http_message

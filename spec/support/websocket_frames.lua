--- WebSocket frames in plain Lua, independent of the codec that is tested with them: any frame can be written, also a wrong one.

local frames = {}

local opcodes = { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 }
local names = {}
for name, opcode in pairs(opcodes) do names[opcode] = name end

-- The exclusive or of two bytes, from that of their halves: Lua 5.1 has no operator for it.
local function xor_digit(a, b)
  local result, bit = 0, 1
  for _ = 1, 4 do
    if a % 2 ~= b % 2 then result = result + bit end
    a, b, bit = math.floor(a / 2), math.floor(b / 2), bit * 2
  end
  return result
end
local xor = {}
for a = 0, 255 do
  xor[a] = {}
  for b = 0, 255 do
    xor[a][b] = string.char(xor_digit(math.floor(a / 16), math.floor(b / 16)) * 16 + xor_digit(a % 16, b % 16))
  end
end

--- Applies a mask of four bytes to a payload, or takes it off.
function frames.mask(payload, mask)
  local pieces, rows = {}, {}
  for index = 1, 4 do rows[index] = xor[mask:byte(index)] end
  for index = 1, #payload do pieces[index] = rows[(index - 1) % 4 + 1][payload:byte(index)] end
  return table.concat(pieces)
end

-- A number in so many bytes, the highest first.
local function big_endian(number, count)
  local bytes = {}
  for index = count, 1, -1 do
    bytes[index] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

--- Writes a frame.
-- @param opcode a name, or a number for a reserved opcode
-- @param payload
-- @param options `fin` (false: more fragments follow), `reserved` (0 to 7: the reserved bits), `mask` (four bytes), `length` (what
-- the header says instead of the payload's length), `length_bytes` (0, 2 or 8: the form of that field)
function frames.write(opcode, payload, options)
  options = options or {}
  local length = options.length or #payload
  local form = options.length_bytes or (length > 65535 and 8 or length > 125 and 2 or 0)
  local first = (options.fin == false and 0 or 128) + (options.reserved or 0) * 16 + (opcodes[opcode] or opcode)
  local second = (options.mask and 128 or 0) + (form == 8 and 127 or form == 2 and 126 or length)
  return string.char(first, second) .. (form > 0 and big_endian(length, form) or "") .. (options.mask or "")
    .. (options.mask and frames.mask(payload, options.mask) or payload)
end

--- Writes a close frame.
function frames.close(code, reason, options)
  return frames.write("close", big_endian(code, 2) .. (reason or ""), options)
end

local Reader = {}
Reader.__index = Reader

--- Makes a reader of frames, which checks nothing.
function frames.reader()
  return setmetatable({ buffer = "", pieces = {}, size = 0 }, Reader)
end

function Reader:feed(bytes)
  self.pieces[#self.pieces + 1] = bytes
  self.size = self.size + #bytes
end

local function number(text)
  local value = 0
  for index = 1, #text do value = value * 256 + text:byte(index) end
  return value
end

--- The next frame: `opcode` (a name), `payload`, `fin`, `masked`; for a close `code` and `reason`. Nil when none is complete.
function Reader:next()
  if self.size + #self.buffer < (self.wanted or 2) then return nil end
  if self.size > 0 then
    self.buffer = self.buffer .. table.concat(self.pieces)
    self.pieces, self.size = {}, 0
  end
  local buffer = self.buffer
  local first, second = buffer:byte(1, 2)
  local masked, length, header = second >= 128, second % 128, 2
  local extended = length == 127 and 8 or length == 126 and 2 or 0
  header = header + extended + (masked and 4 or 0)
  self.wanted = header
  if #buffer < header then return nil end
  if extended > 0 then length = number(buffer:sub(3, 2 + extended)) end
  self.wanted = header + length
  if #buffer < self.wanted then return nil end
  local payload = buffer:sub(header + 1, header + length)
  if masked then payload = frames.mask(payload, buffer:sub(header - 3, header)) end
  self.buffer, self.wanted = buffer:sub(header + length + 1), nil
  local frame = { opcode = names[first % 16] or first % 16, payload = payload, fin = first >= 128, masked = masked }
  if frame.opcode == "close" and #payload >= 2 then
    frame.code, frame.reason = number(payload:sub(1, 2)), payload:sub(3)
  end
  return frame
end

return frames

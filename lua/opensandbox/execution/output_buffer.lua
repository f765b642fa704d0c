--- A command's text, rebuilt from its events and kept within bounds.
--
-- execd sends lines without their terminator, and a blank line as "\n" (wire: /command). Each piece is therefore the text of one
-- line, to be ended with a newline; whether the very last line had one cannot be known.
--
-- What is kept is capped: the first and the last half of `limit` bytes stay, and `dropped` counts the rest.

local Capture = {}
Capture.__index = Capture

local capture = {}

local BLOCK_PIECES = 1024     -- pieces are joined into blocks: a string a line would cost many times its bytes
local BLOCK_SIZE = 64 * 1024  -- bytes

---@param limit number bytes to keep
function capture.new(limit)
  local half = math.floor(limit / 2)
  return setmetatable({
    pieces = {}, count = 0, size = 0,
    head_room = limit - half, head = {},
    tail_limit = half, tail = {}, tail_first = 1, tail_last = 0, tail_size = 0,
    dropped = 0,
  }, Capture)
end

--- The text of a stdout or stderr event of /command.
function capture.line(text)
  return text == "\n" and "\n" or text .. "\n"
end

-- Keeps the last `tail_limit` bytes and a little more: whole blocks go as long as the rest is enough.
local function append_tail(self, block)
  self.tail_last = self.tail_last + 1
  self.tail[self.tail_last] = block
  self.tail_size = self.tail_size + #block
  local first = self.tail[self.tail_first]
  while self.tail_first < self.tail_last and self.tail_size - #first >= self.tail_limit do
    self.tail[self.tail_first] = nil
    self.tail_first = self.tail_first + 1
    self.tail_size = self.tail_size - #first
    self.dropped = self.dropped + #first
    first = self.tail[self.tail_first]
  end
end

local function flush(self)
  if self.count == 0 then return end
  local block = table.concat(self.pieces, "", 1, self.count)
  self.pieces, self.count, self.size = {}, 0, 0
  local room = self.head_room
  if #block <= room then
    self.head[#self.head + 1] = block
    self.head_room = room - #block
    return
  elseif room > 0 then
    self.head[#self.head + 1] = block:sub(1, room)
    self.head_room = 0
    block = block:sub(room + 1)
  end
  append_tail(self, block)
end

function Capture:append(piece)
  local count, size = self.count + 1, self.size + #piece
  self.pieces[count] = piece
  self.count, self.size = count, size
  if count == BLOCK_PIECES or size >= BLOCK_SIZE then flush(self) end
end

--- What was kept, and how many bytes between its two halves were dropped.
---@return string text
---@return integer dropped
function Capture:text()
  flush(self)
  local tail = table.concat(self.tail, "", self.tail_first, self.tail_last)
  local excess = math.max(#tail - self.tail_limit, 0)
  if excess > 0 then tail = tail:sub(excess + 1) end
  return table.concat(self.head) .. tail, self.dropped + excess
end

return capture

--- A buffer for the output of a command, of limited size: it keeps the first and the last half of `limit` bytes and counts the
--- rest.
--
-- It also rebuilds text from events. execd sends each line without its terminator, and a blank line as "\n". Whether the last line
-- had a terminator is not known.

local Buffer = {}
Buffer.__index = Buffer

local output_buffer = {}

local BLOCK_PIECES = 1024     -- pieces are joined into blocks, because a string for each line would cost many times its bytes
local BLOCK_SIZE = 64 * 1024  -- bytes

--- Creates an empty buffer.
---@param limit number bytes to keep
---@return table buffer
function output_buffer.new(limit)
  local half = math.floor(limit / 2)
  return setmetatable({
    pieces = {}, count = 0, size = 0,
    head_room = limit - half, head = {},
    tail_limit = half, tail = {}, tail_first = 1, tail_last = 0, tail_size = 0,
    dropped = 0,
  }, Buffer)
end

--- Returns the text that a stdout or stderr event of a command stands for.
---@param text string
---@return string
function output_buffer.line(text)
  return text == "\n" and "\n" or text .. "\n"
end

-- Keeps the last `tail_limit` bytes and a little more: only whole blocks are dropped.
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

--- Appends a piece of output.
---@param piece string
function Buffer:append(piece)
  local count, size = self.count + 1, self.size + #piece
  self.pieces[count] = piece
  self.count, self.size = count, size
  if count == BLOCK_PIECES or size >= BLOCK_SIZE then flush(self) end
end

--- Returns the bytes that were kept, and the number of those dropped between the two halves.
---@return string text
---@return integer dropped
function Buffer:text()
  flush(self)
  local tail = table.concat(self.tail, "", self.tail_first, self.tail_last)
  local excess = math.max(#tail - self.tail_limit, 0)
  if excess > 0 then tail = tail:sub(excess + 1) end
  return table.concat(self.head) .. tail, self.dropped + excess
end

return output_buffer

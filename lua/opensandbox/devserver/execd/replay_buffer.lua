--- The last bytes of a terminal's output, for clients that were away.

local LIMIT = 1024 * 1024 -- bytes

local ReplayBuffer = {}
ReplayBuffer.__index = ReplayBuffer

--- Creates an empty buffer. Its field `total` counts all bytes that were ever appended.
local function new()
  return setmetatable({ chunks = {}, first = 1, last = 0, size = 0, total = 0 }, ReplayBuffer)
end

function ReplayBuffer:append(data)
  self.last = self.last + 1
  self.chunks[self.last] = data
  self.size, self.total = self.size + #data, self.total + #data
  while self.size - #self.chunks[self.first] >= LIMIT do
    self.size = self.size - #self.chunks[self.first]
    self.chunks[self.first] = nil
    self.first = self.first + 1
  end
end

--- Returns the bytes from an offset on, and the offset at which they really begin.
---@param since integer
---@return string bytes
---@return integer offset
function ReplayBuffer:read(since)
  if since >= self.total then return "", self.total end
  local text = table.concat(self.chunks, "", self.first, self.last)
  local offset = math.max(since, self.total - LIMIT, self.total - #text)
  return text:sub(offset - (self.total - #text) + 1), offset
end

return { new = new }

--- A parser of the body of an HTTP/1.1 message: of a known length, in chunks, or until the connection ends.

local MAX_LINE_SIZE = 64 * 1024

local Body = {}
Body.__index = Body

--- Creates a parser.
---@param framing "chunked"|"close"|integer "close": the body ends with the connection; a number: its length in bytes
---@return table parser its `done` is true when the body has ended
local function new(framing)
  local self = setmetatable({ state = "bytes", left = framing, done = framing == 0 }, Body)
  if framing == "chunked" then
    self.state, self.chunked = "size", true
  elseif framing == "close" then
    self.left = math.huge
  end
  return self
end

local steps = {}

function steps.bytes(self, input, on_data)
  if input == "" then return nil end
  local piece = #input > self.left and input:sub(1, self.left) or input
  self.left = self.left - #piece
  if self.left == 0 then
    self.state, self.done = "line_end", not self.chunked
  end
  on_data(piece)
  return input:sub(#piece + 1)
end

function steps.size(self, input)
  local size, last = input:match("^(%x+)[^\r\n]*\r\n()")
  if not size then return nil, #input > MAX_LINE_SIZE or input:find("^[^%x]") ~= nil end
  self.left = tonumber(size, 16)
  self.state = self.left > 0 and "bytes" or "trailer"
  return input:sub(last)
end

function steps.line_end(self, input)
  if #input < 2 then return nil end
  self.state = "size"
  return input:sub(3)
end

function steps.trailer(self, input)
  local line, last = input:match("^([^\r\n]*)\r\n()")
  if not line then return nil, #input > MAX_LINE_SIZE end
  self.done = line == ""
  return input:sub(last)
end

--- Parses the next element of the input, and calls `on_data` when that is a piece of the body.
---@param input string
---@param on_data fun(piece: string)
---@return string? rest of the input; nil when more input is needed
---@return boolean? malformed true when more input would not help
function Body:step(input, on_data)
  return steps[self.state](self, input, on_data)
end

return { new = new }

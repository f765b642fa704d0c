--- The body of an HTTP/1.1 message, taken from the bytes as they arrive: of a known length, in chunks, or all there is.

local LINE_LIMIT = 64 * 1024

local Body = {}
Body.__index = Body

--- @param framing "chunked", "close" (it ends with the connection), or how many bytes it has
-- @treturn table its `done` says whether the body has ended
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
  if not size then return nil, #input > LINE_LIMIT or input:find("^[^%x]") ~= nil end
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
  if not line then return nil, #input > LINE_LIMIT end
  self.done = line == ""
  return input:sub(last)
end

--- Takes one step forward in the input; `on_data` gets a piece of the body, if it was one.
-- @treturn[1] string what is left of the input
-- @treturn[2] nil when more is needed
-- @treturn[2] boolean whether the input is malformed, so that more would not help
function Body:step(input, on_data)
  return steps[self.state](self, input, on_data)
end

return { new = new }

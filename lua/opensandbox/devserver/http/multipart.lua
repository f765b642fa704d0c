--- A streaming parser of multipart bodies: a part of any size needs little memory.

local MAX_HEADER_SIZE = 64 * 1024
local MAX_PARTS = 1000 -- the limit of Go's library, and so of execd

local Parser = {}
Parser.__index = Parser

--- Creates a parser.
---@param boundary string from the Content-Type header
---@param handlers table `part(name, filename)` is called at the start of each part, `data(bytes)`, and `finished()` at its end
local function new(boundary, handlers)
  return setmetatable({
    delimiter = "\r\n--" .. boundary, handlers = handlers, state = "preamble", parts = 0,
    buffer = "\r\n", -- because the first boundary may stand at the very beginning
  }, Parser)
end

local function parameter(disposition, name)
  local value = disposition:match(";%s*" .. name .. '="([^"]*)"') or disposition:match(";%s*" .. name .. "=([^;%s]*)")
  return value and value:gsub("\\(.)", "%1")
end

-- Emits the bytes before the next boundary, and keeps those that may begin one.
function Parser:_until_boundary(emit)
  local first, last = self.buffer:find(self.delimiter, 1, true)
  local count = first and first - 1 or #self.buffer - #self.delimiter + 1
  if emit and count > 0 then self.handlers.data(self.buffer:sub(1, count)) end
  self.buffer = self.buffer:sub((first and last or math.max(count, 0)) + 1)
  return first ~= nil
end

local steps = {}

function steps.preamble(self)
  if not self:_until_boundary(false) then return false end
  self.state = "boundary"
  return true
end

function steps.data(self)
  if not self:_until_boundary(true) then return false end
  self.handlers.finished()
  self.state = "boundary"
  return true
end

function steps.boundary(self)
  if #self.buffer < 2 then return false end
  if self.buffer:sub(1, 2) == "--" then
    self.state = "complete"
    return false
  end
  local blank, line = self.buffer:match("^[ \t]*()(\r\n)")
  if not line then
    if #self.buffer > MAX_HEADER_SIZE or self.buffer:find("^[ \t]*[^ \t\r]") then self.state = "broken" end
    return false
  end
  self.buffer = self.buffer:sub(blank)
  self.state = "headers"
  return true
end

function steps.headers(self)
  -- The buffer still begins with the line end of the boundary, so a part without headers has its blank line here.
  local first, last = self.buffer:find("\r\n\r\n", 1, true)
  if not first then
    if #self.buffer > MAX_HEADER_SIZE then self.state = "broken" end
    return false
  end
  self.parts = self.parts + 1
  if self.parts > MAX_PARTS then
    self.state = "broken"
    return false
  end
  local name, filename
  for line in self.buffer:sub(1, first):gmatch("[^\r\n]+") do
    local value = line:match("^[Cc]ontent%-[Dd]isposition:%s*(.*)$")
    if value then
      name = parameter(value, "name")
      filename = parameter(value, "filename") or parameter(value, "filename%*")
    end
  end
  self.buffer = self.buffer:sub(last + 1)
  self.handlers.part(name or "", filename or "")
  self.state = "data"
  return true
end

function steps.complete() return false end
function steps.broken() return false end

--- Parses the next bytes of the body.
function Parser:feed(data)
  if self.state == "complete" or self.state == "broken" then return end
  self.buffer = self.buffer .. data
  while steps[self.state](self) do end   -- luacheck: ignore 542
end

--- Returns whether the body was complete.
function Parser:finish()
  return self.state == "complete"
end

return { new = new }

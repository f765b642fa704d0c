--- A reader of a download, which holds little in memory, however large the file is.

local options = require "opensandbox.base.options"

local reader = {}

local CHUNK_SIZE = 120 * 1024 -- bytes read at a time: they stay in the processor's cache, and malloc needs no mmap for them

--- A download that is read piece by piece. It holds little in memory, however large the file is.
--- ```lua
--- local reader = assert(sandbox.files:open("/work/big.log"))
--- print(reader.size)
--- for line in reader:lines() do print(line) end
--- ```
---@class opensandbox.Reader
---@field size? integer bytes of the download, if the server announced them
---@field stream opensandbox.DownloadStream internal
---@field buffer string internal: bytes that have arrived
---@field at integer internal: position in the buffer of the first byte that was not returned
---@field err? opensandbox.Error internal: the error of every later read
---@field is_finished? boolean internal: all bytes have arrived
---@field alias? opensandbox.PathAlias internal: to be removed after the download
---@field target? opensandbox.FileTarget internal: held, because the sandbox is deleted when nobody holds it
local Reader = {}
Reader.__index = Reader
Reader.__name = "opensandbox.Reader"

-- Returns the number of bytes in the buffer.
local function buffered(self)
  return #self.buffer - self.at + 1
end

-- Removes the alias that the download needed.
local function release(self)
  if self.alias then self.alias.remove() end
end

-- Receives bytes into the empty buffer. Returns true, false at the end, or nil and an error.
local function fill(self, most)
  if self.err then return nil, self.err end
  if self.is_finished then return false end
  local bytes, err = self.stream:read(most)
  if self.err then return nil, self.err end -- it was closed meanwhile
  if bytes then
    self.buffer, self.at = bytes, 1
    return true
  end
  self.err, self.is_finished = err, not err
  release(self)
  if err then return nil, err end
  return false
end

-- Takes at most `count` bytes out of the buffer.
local function take(self, count)
  local bytes = self.buffer
  if self.at > 1 or count < #bytes then bytes = bytes:sub(self.at, self.at + count - 1) end
  self.at = self.at + #bytes
  if self.at > #self.buffer then self.buffer, self.at = "", 1 end
  return bytes
end

-- Collects bytes until `count` have arrived, or all.
local function collect(self, count)
  local pieces, size = {}, 0
  while size < count do
    if self.buffer == "" then
      local more, err = fill(self, math.min(count - size, CHUNK_SIZE))
      if more == nil then return nil, err end
      if not more then break end
    end
    pieces[#pieces + 1] = take(self, count - size)
    size = size + #pieces[#pieces]
  end
  return table.concat(pieces), nil, size
end

local function read_bytes(self, count)
  if count == 0 then
    if self.buffer == "" and not fill(self, CHUNK_SIZE) then return nil, self.err end
    return ""
  end
  local bytes, err, size = collect(self, count)
  if not bytes then return nil, err end
  return size > 0 and bytes or nil
end

local function read_some(self)
  if self.buffer == "" then
    local more, err = fill(self, CHUNK_SIZE)
    if not more then return nil, err end
  end
  return take(self, buffered(self))
end

local function read_line(self, keeps_end)
  local pieces = {}
  while true do
    local last = self.buffer:find("\n", self.at, true)
    if last then
      pieces[#pieces + 1] = take(self, last - self.at + 1)
      local line = table.concat(pieces)
      return keeps_end and line or line:sub(1, -2)
    end
    if self.buffer ~= "" then pieces[#pieces + 1] = take(self, buffered(self)) end
    local more, err = fill(self, CHUNK_SIZE)
    if more == nil then return nil, err end
    if not more then
      local line = table.concat(pieces)
      return line ~= "" and line or nil
    end
  end
end

--- Reads like a file handle. The formats are a number of bytes (less at the end), "a" for the rest, "l" and "L" for a line without
--- and with its end, and nil for some bytes that have arrived.
--- ```lua
--- local first_line, err = reader:read("l")
--- local chunk = reader:read(4096)
--- local rest = reader:read("a")
--- ```
---@param format? integer|string
---@return string? bytes nil at the end ("" for "a")
---@return opensandbox.Error? err
function Reader:read(format)
  if format == nil then return read_some(self) end
  if type(format) == "string" then format = format:gsub("^%*", "") end
  if format == "a" then
    local bytes, err = collect(self, math.huge)
    return bytes, err
  end
  if format == "l" or format == "L" then return read_line(self, format == "L") end
  if type(format) ~= "number" or format < 0 or format ~= format then
    options.raise("reader:read", "the format must be a count of bytes, \"a\", \"l\" or \"L\"")
  end
  return read_bytes(self, format)
end

--- Returns an iterator over the lines, without their ends. It raises the error of a transfer that breaks, because a loop would hide
--- it.
--- ```lua
--- for line in reader:lines() do print(line) end
--- ```
---@return fun(): string?
function Reader:lines()
  return function()
    local line, err = self:read("l")
    if err then error(err, 0) end
    return line
  end
end

--- Internal: calls a function with the bytes as they arrive. An error that it raises closes the download and is passed on.
---@param take_bytes fun(bytes: string)
---@return true? ok
---@return opensandbox.Error? err
function Reader:for_each(take_bytes)
  local bytes, err = self:read()
  while bytes do
    self.stream.exchange:call_user(take_bytes, bytes)
    bytes, err = self:read()
  end
  if err then return nil, err end
  return true
end

--- Closes the download. Later reads return an error.
--- ```lua
--- reader:close()
--- ```
---@return true
function Reader:close()
  if not self.is_finished and not self.err then
    self.err = self.stream.exchange:error { kind = "closed", code = "closed", message = "the reader is closed" }
  end
  self.stream:close()
  release(self)
  return true
end

Reader.__close = Reader.close

--- Internal: sets an alias that is removed when the download has ended, when it is closed, and when the reader is collected.
---@param alias opensandbox.PathAlias
function Reader:on_close(alias)
  self.alias = alias
end

--- Creates a reader of a stream.
---@param stream opensandbox.DownloadStream
---@return opensandbox.Reader
function reader.new(stream)
  return setmetatable({ stream = stream, buffer = "", at = 1, size = stream:size() }, Reader)
end

return reader

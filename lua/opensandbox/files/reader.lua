--- A reader of a download, which holds little in memory, however large the file is.

local options = require "opensandbox.base.options"

local reader = {}

local CHUNK_SIZE = 120 * 1024    -- bytes returned at a time: they stay in the processor's cache, and malloc needs no mmap for them
local DIRECTORY_LENGTH = 2 ^ 62  -- execd announces 2^63-1 bytes for a directory, and sends none

--- Adds to an error that the path may name a directory, if the announced length shows that.
---@param err opensandbox.Error
---@param announced? number Content-Length
---@return opensandbox.Error err the same
function reader.explain_directory(err, announced)
  if err.code == "cut" and announced and announced >= DIRECTORY_LENGTH then
    err.hint = "The path names a directory: only files can be downloaded"
  end
  return err
end

---@class opensandbox.Reader
---@field size? integer bytes of the download, if the server announced them
---@field exchange table internal: the exchange that carries the response
---@field buffer string internal: bytes that have arrived and were not returned
---@field announced? number internal: the Content-Length of the response
---@field skip? integer internal: bytes to drop, because the server ignored the range
---@field left? integer internal: bytes of the range still to be returned, where the server ignored the range
---@field err? opensandbox.Error internal: the error of every later read
---@field is_finished? boolean internal: all bytes have arrived
local Reader = {}
Reader.__index = Reader
Reader.__name = "opensandbox.Reader"

-- Returns the part of the bytes that is in the range. A server or a proxy may ignore the range and send the whole file.
local function within_range(self, bytes)
  if self.skip > 0 then
    local skipped = math.min(self.skip, #bytes)
    self.skip = self.skip - skipped
    bytes = bytes:sub(skipped + 1)
  end
  if self.left then
    bytes = bytes:sub(1, self.left)
    self.left = self.left - #bytes
    if self.left == 0 then
      self.is_finished = true
      self.exchange:close()
    end
  end
  return bytes
end

-- Receives more bytes into the buffer. Returns true, false at the end, or nil and an error.
local function fill(self, most)
  if self.err then return nil, self.err end
  if self.is_finished then return false end
  local bytes, err = self.exchange:read(most)
  if bytes and self.skip then
    bytes = within_range(self, bytes)
    if bytes == "" then return fill(self, most) end
  end
  if bytes then
    self.buffer = self.buffer == "" and bytes or self.buffer .. bytes
    return true
  end
  if err then
    self.err = reader.explain_directory(err, self.announced)
    return nil, self.err
  end
  self.is_finished = true
  return false
end

-- Takes at most `count` bytes out of the buffer.
local function take(self, count)
  local bytes = self.buffer
  if #bytes <= count then
    self.buffer = ""
    return bytes
  end
  self.buffer = bytes:sub(count + 1)
  return bytes:sub(1, count)
end

local function read_all(self)
  local pieces = { self.buffer }
  self.buffer = ""
  while true do
    local more, err = fill(self, CHUNK_SIZE)
    if more == nil then return nil, err end
    if not more then return table.concat(pieces) end
    pieces[#pieces + 1] = take(self, #self.buffer)
  end
end

local function read_line(self, keep)
  local pieces = {}
  while true do
    local at = self.buffer:find("\n", 1, true)
    if at then
      pieces[#pieces + 1] = take(self, at)
      local line = table.concat(pieces)
      return keep and line or line:sub(1, -2)
    end
    if self.buffer ~= "" then pieces[#pieces + 1] = take(self, #self.buffer) end
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
---@param format? integer|string
---@return string? bytes nil at the end ("" for "a")
---@return opensandbox.Error? err
function Reader:read(format)
  if type(format) == "string" then format = format:gsub("^%*", "") end
  if format == "a" then return read_all(self) end
  if format == "l" or format == "L" then return read_line(self, format == "L") end
  if format ~= nil and (type(format) ~= "number" or format < 0) then
    options.raise("reader:read", "the format must be a count of bytes, \"a\", \"l\" or \"L\"")
  end
  if format == 0 then
    if self.buffer == "" and not fill(self, CHUNK_SIZE) then return nil, self.err end
    return ""
  end
  if self.buffer == "" then
    -- Nothing is concatenated on this path, which a download of a gigabyte takes.
    local more, err = fill(self, math.min(format or CHUNK_SIZE, CHUNK_SIZE))
    if not more then return nil, err end
  end
  while format and #self.buffer < format do
    local more, err = fill(self, math.min(format - #self.buffer, CHUNK_SIZE))
    if more == nil then return nil, err end
    if not more then break end
  end
  return take(self, format or #self.buffer)
end

--- Returns an iterator over the lines, without their ends. It raises the error of a transfer that breaks, because a loop would hide
--- it.
function Reader:lines()
  return function()
    local line, err = self:read("l")
    if err then error(err, 0) end
    return line
  end
end

--- Closes the download. Later reads return an error.
---@return true
function Reader:close()
  if not self.is_finished and not self.err then
    self.err = self.exchange:error { kind = "closed", code = "closed", message = "the reader is closed" }
  end
  self.exchange:close()
  return true
end

Reader.__close = Reader.close

--- Creates a reader of a response.
---@param exchange table whose head has arrived
---@param announced? number its Content-Length
---@param range? { offset: integer, length?: integer } the range that the server ignored
---@return opensandbox.Reader
function reader.new(exchange, announced, range)
  local self = setmetatable({ exchange = exchange, buffer = "", announced = announced }, Reader)
  if range then
    self.skip, self.left = range.offset, range.length
  elseif announced and announced < DIRECTORY_LENGTH then
    self.size = announced
  end
  return self
end

return reader

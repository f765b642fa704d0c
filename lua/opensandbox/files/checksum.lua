--- Checksums: the CRC and the size of a file, as POSIX `cksum` prints them.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local loop = require "opensandbox.loop"

local checksum = {}

local CHUNK_SIZE = 120 * 1024           -- bytes read at a time
local YIELD_INTERVAL = 64 * 1024 * 1024 -- bytes after which other tasks run

---@class opensandbox.Checksum
---@field state integer
---@field size integer bytes so far
local Checksum = {}
Checksum.__index = Checksum

--- Adds bytes.
---@param bytes string
function Checksum:add(bytes)
  self.state, self.size = core.cksum(self.state, bytes), self.size + #bytes
end

--- Returns "CRC SIZE", as cksum prints it.
function Checksum:__tostring()
  return ("%.0f %.0f"):format(core.cksum_final(self.state, self.size), self.size)
end

--- Creates the checksum of no bytes.
---@return opensandbox.Checksum
function checksum.new()
  return setmetatable({ state = 0, size = 0 }, Checksum)
end

--- Returns content for an upload that is added to a checksum while it is read, and that checksum.
---@param content string|file*|fun(): string?
---@return string|fun(): string? content
---@return opensandbox.Checksum sum
function checksum.with_checksum(content)
  local sum = checksum.new()
  if type(content) == "string" then
    sum:add(content)
    return content, sum
  end
  local read = content
  if io.type(content) then
    read = function() return content:read(CHUNK_SIZE) end
  elseif type(content) ~= "function" then
    return content, sum -- upload_files refuses it
  end
  return function()
    local bytes, problem = read()
    if type(bytes) == "string" then sum:add(bytes) end
    return bytes, problem
  end, sum
end

--- Returns the checksum of a local file.
---@param op string
---@param path string
---@return opensandbox.Checksum? sum
---@return opensandbox.Error? err
function checksum.of_file(op, path)
  local handle, problem = io.open(path, "rb")
  local sum, next_yield, err = checksum.new(), YIELD_INTERVAL, nil
  while handle and not err do
    local bytes
    bytes, problem = handle:read(CHUNK_SIZE)
    if not bytes then break end
    sum:add(bytes)
    if sum.size >= next_yield then
      next_yield = next_yield + YIELD_INTERVAL
      err = loop.sleep(op, 0)
    end
  end
  if handle then handle:close() end
  if problem then err = errors.local_file(op, path, problem) end
  if err then return nil, err end
  return sum
end

--- Parses the output of cksum, a line for each file.
---@param text string
---@return string[] sums "CRC SIZE"
function checksum.parse_cksum(text)
  local sums = {}
  for line in text:gmatch("[^\n]+") do -- line by line, so that the time is linear whatever the sandbox prints
    local crc, size = line:match("^(%d+)[ \t]+(%d+)")
    if crc then sums[#sums + 1] = crc .. " " .. size end
  end
  return sums
end

--- Compares the checksums of a local and a remote file.
---@param op string
---@param name string of the file, for the error
---@param local_sum opensandbox.Checksum|string
---@param remote_sum string
---@return true? ok
---@return opensandbox.Error? err
function checksum.compare(op, name, local_sum, remote_sum)
  local_sum = tostring(local_sum)
  if local_sum == remote_sum then return true end
  return nil, errors.new { kind = "state", code = "verify_failed", op = op,
    message = ("%s differs: CRC and size of the local file are %s, those of the file in the sandbox %s"):format(
      name, local_sum, remote_sum),
    hint = "Try again: the file may have changed during the transfer" }
end

return checksum

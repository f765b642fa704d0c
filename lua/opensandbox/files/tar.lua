--- The tar format: converts entries to bytes, and bytes to entries. It reads and writes no files.
--
-- The writer uses GNU's long names and base-256 numbers, because GNU tar, busybox and libarchive read them; busybox ignores pax
-- headers. The reader also accepts pax headers and the prefix of ustar.

local numbers = require "opensandbox.base.numbers"

local tar = {}

local BLOCK = 512
local CHUNK_SIZE = 120 * 1024         -- bytes returned at a time: malloc needs no mmap for them
local MAX_METADATA_SIZE = 1024 * 1024 -- bytes of a long name or a pax header: a longer one is an attack
local MAX_SAFE_INTEGER = 2 ^ 53       -- numbers hold the integers below it exactly
local MAX_TIME = 1e12                 -- Unix seconds, in the year 33658
local LONG_NAME = "././@LongLink"
local TRAILER = ("\0"):rep(2 * BLOCK)

---@class opensandbox.TarEntry
---@field name string relative, without a "/" at its end
---@field kind string "file", "directory" or "symlink"; of a reader also "link" (another name of a file) and "other"
---@field size integer bytes of the content of a file
---@field mode integer permission bits
---@field mtime? number Unix seconds; nil if a reader found none that can be
---@field target? string of a symlink or link

local function padding(size)
  return -size % BLOCK
end

local function floor(value)
  return value - value % 1
end

-- Returns the `count` digits of an integer as bytes. In base 256 it may be negative.
local function digits(value, base, count, zero)
  local list = {}
  for i = count, 1, -1 do
    list[i] = string.char(zero + value % base)
    value = floor(value / base)
  end
  return table.concat(list)
end

-- Returns a numeric field: octal digits, or base 256 if they do not suffice.
local function number(value, width)
  value = floor(value)
  if value >= 0 and value < 8 ^ (width - 1) then return digits(value, 8, width - 1, 48) .. "\0" end
  return (value < 0 and "\255" or "\128") .. digits(value, 256, width - 1, 0)
end

local function field(text, width)
  return text:sub(1, width) .. ("\0"):rep(width - #text)
end

-- Returns the sum of the bytes of a header. Its own field counts as spaces.
local function header_sum(before, after)
  local total = 8 * 32
  for i = 1, #before do total = total + before:byte(i) end
  for i = 1, #after do total = total + after:byte(i) end
  return total
end

local function header_block(name, kind, size, mode, mtime, target)
  local before = field(name, 100) .. number(mode, 8) .. number(0, 8) .. number(0, 8) .. number(size, 12) .. number(mtime, 12)
  local after = kind .. field(target, 100) .. "ustar  \0" .. ("\0"):rep(BLOCK - 265)
  return before .. digits(header_sum(before, after), 8, 6, 48) .. "\0 " .. after
end

-- Returns the extra entry for a name or a target that a header cannot hold, or "".
local function long_name(text, kind)
  if #text <= 100 then return "" end
  text = text .. "\0"
  return header_block(LONG_NAME, kind, #text, 420, 0, "") .. text .. ("\0"):rep(padding(#text)) -- 0644
end

local kinds = { file = "0", directory = "5", symlink = "2" }

local function name_of(entry)
  return entry.kind == "directory" and entry.name .. "/" or entry.name
end

--- Returns the bytes before the content of an entry.
---@param entry opensandbox.TarEntry
---@return string bytes
function tar.header(entry)
  local name, target = name_of(entry), entry.target or ""
  return long_name(target, "K") .. long_name(name, "L")
    .. header_block(name, kinds[entry.kind], entry.kind == "file" and entry.size or 0, entry.mode, entry.mtime, target)
end

--- Returns the size of an archive of these entries.
---@param entries opensandbox.TarEntry[]
---@return number bytes
function tar.size(entries)
  local size = #TRAILER
  for _, entry in ipairs(entries) do
    size = size + BLOCK
    if entry.kind == "file" then size = size + entry.size + padding(entry.size) end
    for _, text in ipairs { name_of(entry), entry.target or "" } do
      if #text > 100 then size = size + BLOCK + #text + 1 + padding(#text + 1) end
    end
  end
  return size
end

--- Returns an archive that is made while it is read.
---@param entries opensandbox.TarEntry[]
---@param open fun(entry: opensandbox.TarEntry): file*?, string? opens the content of a file
---@return fun(): string?, string? next returns the next bytes; nil at the end; nil and a problem
---@return fun() close closes an archive that was not read to its end
function tar.chunks(entries, open)
  local index, handle, left, is_finished = 0, nil, 0, false
  local function close()
    if handle then handle:close() end
    handle, is_finished = nil, true
  end
  -- Returns more bytes: of the open file, or the next header, or at last the trailer.
  local function more_bytes(most)
    local entry = entries[index]
    if handle and left > 0 then
      local bytes, problem = handle:read(math.min(left, most))
      if not bytes then return nil, ("%s: %s"):format(entry.name, problem or "it became shorter while it was read") end
      left = left - #bytes
      return bytes
    elseif handle then
      handle:close()
      handle = nil
      return ("\0"):rep(padding(entry.size))
    end
    index = index + 1
    entry = entries[index]
    if not entry then
      is_finished = true
      return TRAILER
    end
    if entry.kind == "file" and entry.size > 0 then
      local problem
      handle, problem = open(entry)
      if not handle then return nil, problem end
      left = entry.size
    end
    return tar.header(entry)
  end
  return function()
    local chunks, size = {}, 0
    while size < CHUNK_SIZE and not is_finished do
      local bytes, problem = more_bytes(CHUNK_SIZE - size)
      if not bytes then
        close()
        return nil, problem
      end
      chunks[#chunks + 1], size = bytes, size + #bytes
    end
    if size == 0 then return nil end
    return table.concat(chunks)
  end, close
end

---@class opensandbox.TarReader
---@field sink table
---@field buffer string the part of a header that has arrived
---@field left integer bytes of the content still to come
---@field padding integer bytes to ignore after it
---@field overrides table fields of the next entry, from a long name or a pax header
---@field entry? table whose content is read
---@field metadata? string type of the metadata that is read, and in `collected` its bytes
---@field collected? string[]
---@field is_finished? boolean the trailer has arrived
local Reader = {}
Reader.__index = Reader

-- Returns the integer in a field, or nil.
local function parse_number(text)
  local first = text:byte()
  if first ~= 128 and first ~= 255 then
    local octal = text:match("^[ %z]*([0-7]*)[ %z]*$")
    if not octal then return nil end
    return octal == "" and 0 or tonumber(octal, 8)
  end
  local value = first == 255 and -1 or 0
  for i = 2, #text do
    value = value * 256 + text:byte(i)
    if value >= MAX_SAFE_INTEGER or value <= -MAX_SAFE_INTEGER then return nil end
  end
  return value
end

local function text_of(bytes)
  return bytes:match("^[^%z]*")
end

local metadata_types = { x = true, g = true, L = true, K = true }
local read_kinds = { ["0"] = "file", ["\0"] = "file", ["7"] = "file", ["1"] = "link", ["2"] = "symlink", ["5"] = "directory" }

-- Returns the entry of a header, or nil and a problem.
local function parse_header(bytes)
  local check = parse_number(bytes:sub(149, 156))
  if not check or check ~= header_sum(bytes:sub(1, 148), bytes:sub(157)) then return nil, "the checksum of a header is wrong" end
  local name, kind = text_of(bytes:sub(1, 100)), bytes:sub(157, 157)
  if bytes:sub(258, 263) == "ustar\0" then
    local prefix = text_of(bytes:sub(346, 500))
    if prefix ~= "" then name = prefix .. "/" .. name end
  end
  local size, mode, mtime = parse_number(bytes:sub(125, 136)), parse_number(bytes:sub(101, 108)), parse_number(bytes:sub(137, 148))
  if not (size and mode and mtime) or size < 0 or mode < 0 then return nil, "a number in a header is invalid" end
  return { name = name, type = kind, size = size, mode = mode % 4096, mtime = math.abs(mtime) < MAX_TIME and mtime or nil,
    target = text_of(bytes:sub(158, 257)) }
end

local pax_keys = {
  path = function(value) return not value:find("%z") and value or nil end,
  linkpath = function(value) return not value:find("%z") and value or nil end,
  size = function(value)
    local size = value:find("^%d+$") and tonumber(value)
    return size and size < MAX_SAFE_INTEGER and size or nil
  end,
  mtime = function(value)
    local time = value:find("^%-?%d+%.?%d*$") and numbers.parse(value)
    return time and (math.abs(time) < MAX_TIME and time or false)
  end,
}

-- Reads the records of a pax header, "LENGTH KEY=VALUE\n" each. Unknown keys are ignored. Returns true, or nil and a problem.
local function parse_pax(bytes, into)
  local at = 1
  while at <= #bytes do
    local length = tonumber(bytes:match("^(%d+) ", at))
    local record = length and length >= 5 and at + length - 1 <= #bytes and bytes:sub(at, at + length - 1)
    local key, value = (record or ""):match("^%d+ ([^=]+)=(.*)\n$")
    if not key then return nil, "a pax header is invalid" end
    if key:find("^GNU%.sparse") then return nil, "it holds a sparse file, which is not supported" end
    if pax_keys[key] then
      into[key] = pax_keys[key](value)
      if into[key] == nil and value ~= "" then return nil, ("the %s in a pax header is invalid"):format(key) end
    end
    at = at + length
  end
  return true
end

-- Keeps a long name or a pax header for the next entry.
local function set_overrides(self, metadata_type, bytes)
  if metadata_type == "L" then
    self.overrides.path = text_of(bytes)
  elseif metadata_type == "K" then
    self.overrides.linkpath = text_of(bytes)
  elseif metadata_type == "x" then
    return parse_pax(bytes, self.overrides)
  end
  return true -- a global pax header is ignored
end

-- Begins an entry, with the fields of the metadata before it.
local function begin_entry(self, entry)
  local overrides = self.overrides
  self.overrides = {}
  entry.name, entry.target = overrides.path or entry.name, overrides.linkpath or entry.target
  entry.size, entry.mtime = overrides.size or entry.size, overrides.mtime or entry.mtime
  if entry.type == "S" then return nil, "it holds a sparse file, which is not supported" end
  entry.kind = read_kinds[entry.type] or "other"
  if entry.kind == "file" and entry.name:sub(-1) == "/" then entry.kind = "directory" end -- as before ustar
  entry.name = entry.name:match("^.*[^/]") or entry.name:sub(1, 1) -- without slashes at its end, in linear time
  local has_content = entry.kind == "file" or not entry.type:find("^[1-6]$")
  self.left = has_content and entry.size or 0
  self.padding = padding(self.left)
  if entry.kind ~= "file" then entry.size = 0 end
  self.entry = entry
  return self.sink.begin(entry)
end

-- Ends the content of an entry or of metadata.
local function end_content(self)
  local metadata_type, entry = self.metadata, self.entry
  self.metadata, self.entry = nil, nil
  if metadata_type then return set_overrides(self, metadata_type, table.concat(self.collected)) end
  if entry.kind == "file" then return self.sink.finish() end
  return true
end

local function read_header(self, bytes)
  if not bytes:find("[^%z]") then
    self.is_finished = true
    return true
  end
  local entry, problem = parse_header(bytes)
  if not entry then return nil, problem end
  if not metadata_types[entry.type] then
    local ok
    ok, problem = begin_entry(self, entry)
    if not ok then return nil, problem end
  elseif entry.size > MAX_METADATA_SIZE then
    return nil, ("a name or a pax header is longer than %d bytes"):format(MAX_METADATA_SIZE)
  else
    self.metadata, self.collected = entry.type, {}
    self.left, self.padding = entry.size, padding(entry.size)
  end
  if self.left == 0 then return end_content(self) end
  return true
end

local function read_content(self, bytes)
  if self.metadata then
    self.collected[#self.collected + 1] = bytes
  elseif self.entry.kind == "file" then
    return self.sink.data(bytes)
  end
  return true
end

--- Takes the next bytes of the archive, cut anywhere.
---@param bytes string
---@return true? ok
---@return any problem a text about the archive, or the problem that the sink returned
function Reader:feed(bytes)
  local at, last = 1, #bytes
  while at <= last and not self.is_finished do
    local ok, problem = true, nil
    if self.left > 0 then
      local count = math.min(self.left, last - at + 1)
      ok, problem = read_content(self, bytes:sub(at, at + count - 1))
      at, self.left = at + count, self.left - count
      if ok and self.left == 0 then ok, problem = end_content(self) end
    elseif self.padding > 0 then
      local count = math.min(self.padding, last - at + 1)
      at, self.padding = at + count, self.padding - count
    else
      local part = bytes:sub(at, at + BLOCK - #self.buffer - 1)
      at, self.buffer = at + #part, self.buffer .. part
      if #self.buffer == BLOCK then
        local header = self.buffer
        self.buffer = ""
        ok, problem = read_header(self, header)
      end
    end
    if not ok then return nil, problem end
  end
  return true
end

--- Checks that the archive is complete. Call it after the last bytes.
---@return true? ok
---@return string? problem
function Reader:close()
  if self.is_finished then return true end
  return nil, "it ends too early"
end

--- Creates a reader of an archive.
---@param sink table begin(entry) is called for each entry; for the content of a file data(bytes), several times, and finish(). Each returns true, or nil and a problem that stops the reader
---@return opensandbox.TarReader
function tar.reader(sink)
  return setmetatable({ sink = sink, buffer = "", left = 0, padding = 0, overrides = {} }, Reader)
end

return tar

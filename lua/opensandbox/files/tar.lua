--- The tar format, and nothing but the format: entries to bytes, and bytes to entries.
--
-- Written is what GNU tar, busybox and libarchive all read: GNU's long names, and numbers in base 256 where octal digits do not
-- suffice (busybox passes over pax headers). Read are these, pax headers, and ustar's prefix.

local tar = {}

local BLOCK = 512
local PIECE = 120 * 1024        -- bytes handed out at a time: malloc needs no mmap for them
local LONGEST_META = 1024 * 1024 -- bytes of a long name or a pax header: what is longer is an attack
local LARGEST = 2 ^ 53          -- what a number holds exactly
local LONG_NAME = "././@LongLink"
local TRAILER = ("\0"):rep(2 * BLOCK)

---@class opensandbox.TarEntry
---@field name string relative, without a "/" at its end
---@field kind string "file", "directory", "symlink"; when read also "link" (another name of a file) and "other"
---@field size integer bytes of a file's content
---@field mode integer permission bits
---@field mtime number Unix seconds
---@field target? string of a symlink or link

local function padding(size)
  return -size % BLOCK
end

local function floor(value)
  return value - value % 1
end

-- The `count` digits of a whole number, which may be negative in base 256, as bytes.
local function digits(value, base, count, zero)
  local list = {}
  for i = count, 1, -1 do
    list[i] = string.char(zero + value % base)
    value = floor(value / base)
  end
  return table.concat(list)
end

-- A field of octal digits, or of base 256 for what they cannot hold.
local function number(value, width)
  value = floor(value)
  if value >= 0 and value < 8 ^ (width - 1) then return digits(value, 8, width - 1, 48) .. "\0" end
  return (value < 0 and "\255" or "\128") .. digits(value, 256, width - 1, 0)
end

local function field(text, width)
  return text:sub(1, width) .. ("\0"):rep(width - #text)
end

-- The sum of a header's bytes, its own field taken for spaces.
local function sum(before, after)
  local total = 8 * 32
  for i = 1, #before do total = total + before:byte(i) end
  for i = 1, #after do total = total + after:byte(i) end
  return total
end

local function block(name, kind, size, mode, mtime, target)
  local before = field(name, 100) .. number(mode, 8) .. number(0, 8) .. number(0, 8) .. number(size, 12) .. number(mtime, 12)
  local after = kind .. field(target, 100) .. "ustar  \0" .. ("\0"):rep(BLOCK - 265)
  return before .. digits(sum(before, after), 8, 6, 48) .. "\0 " .. after
end

local function long(text, kind)
  if #text <= 100 then return "" end
  text = text .. "\0"
  return block(LONG_NAME, kind, #text, 420, 0, "") .. text .. ("\0"):rep(padding(#text)) -- 0644
end

local kinds = { file = "0", directory = "5", symlink = "2" }

local function name_of(entry)
  return entry.kind == "directory" and entry.name .. "/" or entry.name
end

--- What stands before an entry's content.
---@param entry opensandbox.TarEntry
---@return string bytes
function tar.header(entry)
  local name, target = name_of(entry), entry.target or ""
  return long(target, "K") .. long(name, "L")
    .. block(name, kinds[entry.kind], entry.kind == "file" and entry.size or 0, entry.mode, entry.mtime, target)
end

--- The size of an archive of these entries.
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

--- An archive, made while it is read. The content of a file comes from the handle that `open` gives for its entry.
---@param entries opensandbox.TarEntry[]
---@param open fun(entry: opensandbox.TarEntry): file*?, string?
---@return fun(): string?, string? next the next piece; nil at the end; nil and what went wrong
---@return fun() close for an archive that is not read to its end
function tar.pieces(entries, open)
  local index, handle, left, ended = 0, nil, 0, false
  local function close()
    if handle then handle:close() end
    handle, ended = nil, true
  end
  -- Some more bytes: of the file that is open, else the next header, at last the trailer.
  local function some(most)
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
      ended = true
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
    local pieces, size = {}, 0
    while size < PIECE and not ended do
      local bytes, problem = some(PIECE - size)
      if not bytes then
        close()
        return nil, problem
      end
      pieces[#pieces + 1], size = bytes, size + #bytes
    end
    if size == 0 then return nil end
    return table.concat(pieces)
  end, close
end

-- Reading.

local Reader = {}
Reader.__index = Reader

-- The whole number in a field; nil for what is none.
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
    if value >= LARGEST or value <= -LARGEST then return nil end
  end
  return value
end

local function text_of(bytes)
  return bytes:match("^[^%z]*")
end

local meta_kinds = { x = true, g = true, L = true, K = true }
local read_kinds = { ["0"] = "file", ["\0"] = "file", ["7"] = "file", ["1"] = "link", ["2"] = "symlink", ["5"] = "directory" }

-- Entry by its header; nil and what is wrong.
local function parse_header(bytes)
  local check = parse_number(bytes:sub(149, 156))
  if not check or check ~= sum(bytes:sub(1, 148), bytes:sub(157)) then return nil, "a header's check sum is wrong" end
  local name, kind = text_of(bytes:sub(1, 100)), bytes:sub(157, 157)
  if bytes:sub(258, 263) == "ustar\0" then
    local prefix = text_of(bytes:sub(346, 500))
    if prefix ~= "" then name = prefix .. "/" .. name end
  end
  local size, mode, mtime = parse_number(bytes:sub(125, 136)), parse_number(bytes:sub(101, 108)), parse_number(bytes:sub(137, 148))
  if not (size and mode and mtime) or size < 0 or mode < 0 then return nil, "a header holds a number that is none" end
  return { name = name, type = kind, size = size, mode = mode % 4096, mtime = mtime, target = text_of(bytes:sub(158, 257)) }
end

local pax_keys = {
  path = function(value) return not value:find("%z") and value or nil end,
  linkpath = function(value) return not value:find("%z") and value or nil end,
  size = function(value)
    local size = value:find("^%d+$") and tonumber(value)
    return size and size < LARGEST and size or nil
  end,
  mtime = function(value)
    local time = value:find("^%-?%d+%.?%d*$") and tonumber(value)
    return time and math.abs(time) < 1e12 and time or nil
  end,
}

-- The records of a pax header that we know: "LENGTH KEY=VALUE\n" each. Nil and what is wrong.
local function parse_pax(bytes, into)
  local at = 1
  while at <= #bytes do
    local length = tonumber(bytes:match("^(%d+) ", at))
    local record = length and length >= 5 and at + length - 1 <= #bytes and bytes:sub(at, at + length - 1)
    local key, value = (record or ""):match("^%d+ ([^=]+)=(.*)\n$")
    if not key then return nil, "a pax header is garbled" end
    if key:find("^GNU%.sparse") then return nil, "it holds a sparse file, which is not supported" end
    if pax_keys[key] then
      into[key] = pax_keys[key](value)
      if into[key] == nil and value ~= "" then return nil, ("a pax header's %s is garbled"):format(key) end
    end
    at = at + length
  end
  return true
end

-- Takes a long name or a pax header, which is for the entry that follows.
function Reader:take_meta(kind, bytes)
  if kind == "L" then
    self.more.path = text_of(bytes)
  elseif kind == "K" then
    self.more.linkpath = text_of(bytes)
  elseif kind == "x" then
    return parse_pax(bytes, self.more)
  end
  return true -- a global pax header says nothing that matters here
end

-- The entry proper: what the headers before it said is for it.
function Reader:begin(entry)
  local more = self.more
  self.more = {}
  entry.name, entry.target = more.path or entry.name, more.linkpath or entry.target
  entry.size, entry.mtime = more.size or entry.size, more.mtime or entry.mtime
  if entry.type == "S" then return nil, "it holds a sparse file, which is not supported" end
  entry.kind = read_kinds[entry.type] or "other"
  if entry.kind == "file" and entry.name:sub(-1) == "/" then entry.kind = "directory" end -- as before ustar
  entry.name = entry.name:gsub("(.)/+$", "%1")
  local has_content = entry.kind == "file" or not entry.type:find("^[1-6]$")
  self.left = has_content and entry.size or 0
  self.padding = padding(self.left)
  if entry.kind ~= "file" then entry.size = 0 end
  self.entry = entry
  return self.sink.begin(entry)
end

function Reader:header(bytes)
  if not bytes:find("[^%z]") then
    self.ended = true
    return true
  end
  local entry, problem = parse_header(bytes)
  if not entry then return nil, problem end
  if not meta_kinds[entry.type] then
    local ok
    ok, problem = self:begin(entry)
    if not ok then return nil, problem end
  elseif entry.size > LONGEST_META then
    return nil, ("a name or a pax header is longer than %d bytes"):format(LONGEST_META)
  else
    self.meta, self.collected = entry.type, {}
    self.left, self.padding = entry.size, padding(entry.size)
  end
  if self.left == 0 then return self:complete() end
  return true
end

function Reader:content(bytes)
  if self.meta then
    self.collected[#self.collected + 1] = bytes
  elseif self.entry.kind == "file" then
    return self.sink.data(bytes)
  end
  return true
end

-- The content has come as a whole.
function Reader:complete()
  local meta, entry = self.meta, self.entry
  self.meta, self.entry = nil, nil
  if meta then return self:take_meta(meta, table.concat(self.collected)) end
  if entry.kind == "file" then return self.sink.finish() end
  return true
end

--- Takes the next bytes of the archive, as many as there are.
---@param bytes string
---@return true? ok
---@return any problem what is wrong with the archive, as text; or what the sink returned
function Reader:feed(bytes)
  local at, last = 1, #bytes
  while at <= last and not self.ended do
    local ok, problem = true, nil
    if self.left > 0 then
      local count = math.min(self.left, last - at + 1)
      ok, problem = self:content(bytes:sub(at, at + count - 1))
      at, self.left = at + count, self.left - count
      if ok and self.left == 0 then ok, problem = self:complete() end
    elseif self.padding > 0 then
      local count = math.min(self.padding, last - at + 1)
      at, self.padding = at + count, self.padding - count
    else
      local piece = bytes:sub(at, at + BLOCK - #self.buffer - 1)
      at, self.buffer = at + #piece, self.buffer .. piece
      if #self.buffer == BLOCK then
        piece, self.buffer = self.buffer, ""
        ok, problem = self:header(piece)
      end
    end
    if not ok then return nil, problem end
  end
  return true
end

--- To be called after the last bytes.
---@return true? ok
---@return string? problem when the archive is not complete
function Reader:close()
  if self.ended then return true end
  return nil, "it ends too early"
end

--- Reads an archive that comes piece by piece.
---@param sink table begin(entry) for each; for a file's content data(bytes), some times, and finish(). Each returns true, or nil and a problem that ends the reading
---@return table reader with `feed(bytes)` and `close()`
function tar.reader(sink)
  return setmetatable({ sink = sink, buffer = "", left = 0, padding = 0, more = {} }, Reader)
end

return tar

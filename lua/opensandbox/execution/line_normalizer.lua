--- Converts the bytes that a command wrote into the text that its events would have carried.
--
-- execd splits output at LF, CR and CR LF and removes these terminators. A last line without a terminator looks like any other, and
-- each byte that is not UTF-8 becomes U+FFFD. The converter is used where the events were lost and the bytes are downloaded
-- instead.

local utf8 = require "opensandbox.base.utf8"

local MAX_HELD = 1024 * 1024 -- bytes of a line that are held back until the line is complete

local Normalizer = {}
Normalizer.__index = Normalizer

local function normalize(text)
  return utf8.replace_invalid((text:gsub("\r\n", "\n"):gsub("\r", "\n")))
end

-- Returns the text of the part of a very long line, except for a character that may not be complete.
local function partial_line(self)
  local text = table.concat(self.rest)
  local first = #text
  while first > #text - 3 and text:byte(first) >= 0x80 and text:byte(first) < 0xC0 do first = first - 1 end
  if text:byte(first) < 0x80 then first = #text + 1 end
  self.rest, self.held, self.is_partial = { text:sub(first) }, #text - first + 1, true
  return normalize(text:sub(1, first - 1))
end

--- Takes bytes, cut anywhere, and returns the text of the lines that they complete. A line longer than 1 MiB is returned in parts.
---@param bytes string
---@return string
function Normalizer:feed(bytes)
  if bytes == "" then return "" end
  if self.after_cr and bytes:byte(1) == 10 then bytes = bytes:sub(2) end -- CR has ended the line
  self.after_cr = bytes:byte(-1) == 13
  local has_end = bytes:find("\n", 1, true) or bytes:find("\r", 1, true) -- plain searches, because a line may be megabytes long
  local last = has_end and bytes:match("^.*()[\r\n]")
  if not last then
    self.rest[#self.rest + 1] = bytes
    self.held = self.held + #bytes
    return self.held > MAX_HELD and partial_line(self) or ""
  end
  self.rest[#self.rest + 1] = bytes:sub(1, last)
  local complete = table.concat(self.rest)
  self.rest, self.held, self.is_partial = { bytes:sub(last + 1) }, #bytes - last, false
  return normalize(complete)
end

--- Returns the text of the last line, after the last bytes.
---@return string
function Normalizer:finish()
  local rest = table.concat(self.rest)
  local is_open = rest ~= "" or self.is_partial
  self.rest, self.held, self.is_partial = {}, 0, false
  return is_open and normalize(rest .. "\n") or ""
end

---@return table normalizer
return function()
  return setmetatable({ rest = {}, held = 0, is_partial = false, after_cr = false }, Normalizer)
end

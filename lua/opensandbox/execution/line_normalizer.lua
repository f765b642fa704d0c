--- The text that a command's events would have given, made of the bytes it wrote.
--
-- execd cuts output into lines at LF, CR and CR LF, drops the ends, sends a last line without one like the others, and U+FFFD for each byte
-- that is not UTF-8. Where the events were lost and the bytes are fetched instead, this makes the same text of them.

local utf8 = require "opensandbox.base.utf8"

local Lines = {}
Lines.__index = Lines

local function whole(text)
  return utf8.replace_invalid((text:gsub("\r\n", "\n"):gsub("\r", "\n")))
end

--- Takes bytes, however they are cut, and gives the text of the lines that they complete.
---@param bytes string
---@return string
function Lines:feed(bytes)
  if bytes == "" then return "" end
  if self.after_cr and bytes:byte(1) == 10 then bytes = bytes:sub(2) end -- the line has ended already
  self.after_cr = bytes:byte(-1) == 13
  local has_end = bytes:find("\n", 1, true) or bytes:find("\r", 1, true) -- plain searches: a line may be megabytes long
  local last = has_end and bytes:match("^.*()[\r\n]")
  if not last then
    self.rest[#self.rest + 1] = bytes
    return ""
  end
  self.rest[#self.rest + 1] = bytes:sub(1, last)
  local complete = table.concat(self.rest)
  self.rest = { bytes:sub(last + 1) }
  return whole(complete)
end

--- The rest, at the end of the bytes.
---@return string
function Lines:finish()
  local rest = table.concat(self.rest)
  self.rest = {}
  return rest ~= "" and whole(rest .. "\n") or ""
end

return function()
  return setmetatable({ rest = {}, after_cr = false }, Lines)
end

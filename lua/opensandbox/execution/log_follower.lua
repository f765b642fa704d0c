--- Follows a command in the background until it has ended, by its log and its status.
--
-- A log is read at any byte. An incomplete character at the end of a piece is held back until the next piece, or the end, arrives.

local backoffs = require "opensandbox.loop.backoff"
local loop = require "opensandbox.loop"

local Follower = {}
Follower.__index = Follower

-- Returns the number of bytes at the end of a text that begin a character of UTF-8 and do not complete it.
local function incomplete_length(text)
  for count = 1, math.min(3, #text) do
    local byte = text:byte(-count)
    if byte >= 0xC2 and byte <= 0xF4 then
      local length = byte >= 0xF0 and 4 or byte >= 0xE0 and 3 or 2
      return count < length and count or 0
    end
    if byte < 0x80 or byte > 0xBF then return 0 end
  end
  return 0
end

-- Returns the complete characters of what was held back and of the next piece, and holds back the rest.
local function complete_characters(self, piece)
  local text = self.held .. piece
  local incomplete = incomplete_length(text)
  self.held = text:sub(#text - incomplete + 1)
  return text:sub(1, #text - incomplete)
end

--- Waits for output. After an error it can be called again.
---@return string? text the output since the last call; no character is divided
---@return integer? cursor the byte offset behind it
---@return opensandbox.CommandStatus? status instead of text: the last status, after all output was read
---@return opensandbox.Error? err
function Follower:next()
  local backoff = backoffs.new()
  while true do
    local log, err = self.logs(self.cursor)
    if not log then return nil, nil, nil, err end
    self.cursor = log.cursor
    local text = complete_characters(self, log.text)
    if text ~= "" then return text, log.cursor - #self.held end
    if log.text == "" and self.last_status then
      -- The command had ended before this log was requested, so nothing more will be written.
      text, self.held = self.held, ""
      if text ~= "" then return text, log.cursor end
      return nil, nil, self.last_status
    end
    if not self.last_status then
      local status
      status, err = self.status()
      if not status then return nil, nil, nil, err end
      if not status.running then
        self.last_status = status
      else
        err = loop.sleep(self.op, backoff:next(), nil, self.owner)
        if err then return nil, nil, nil, err end
      end
    end
  end
end

---@param source table op; logs(cursor) and status(), which return what the functions of command_requests.lua return; cursor (where to begin); owner (see loop.wait)
---@return table follower
return function(source)
  source.held = ""
  return setmetatable(source, Follower)
end

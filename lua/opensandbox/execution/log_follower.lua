--- Follows a command in the background until it has ended, by its log and its status.
--
-- A log is read at any byte. An incomplete character at the end of a piece is held back until the next piece, or the end, arrives.

local backoffs = require "opensandbox.loop.backoff"
local loop = require "opensandbox.loop"
local utf8 = require "opensandbox.base.utf8"

local Follower = {}
Follower.__index = Follower

--- Waits for output. After an error it can be called again. A character is not cut: its first bytes are held back until the rest of
--- it has arrived, or until the command has ended.
---@return string? text the output since the last call
---@return integer? cursor the byte offset behind it
---@return opensandbox.CommandStatus? status instead of text: the last status, after all output was read
---@return opensandbox.Error? err nil without any other result: the time limit has passed
function Follower:next()
  local backoff = backoffs.new()
  while true do
    if self.limit and self.limit:has_passed() then return nil end
    local log, err = self.logs(self.cursor)
    if not log then return nil, nil, nil, err end
    self.cursor = log.cursor
    if log.text ~= "" then
      local text = self.held .. log.text
      local incomplete = utf8.incomplete_length(text)
      self.held = text:sub(#text - incomplete + 1)
      if incomplete < #text then return text:sub(1, #text - incomplete), log.cursor - incomplete end
    elseif self.last_status then
      -- The command had ended before this log was requested, so nothing more will be written.
      local rest = self.held
      self.held = ""
      if rest ~= "" then return rest, log.cursor end
      return nil, nil, self.last_status
    end
    if not self.last_status then
      local status
      status, err = self.status()
      if not status then return nil, nil, nil, err end
      if not status.running then
        self.last_status = status
      else
        local delay = backoff:next()
        err = loop.sleep(self.op, self.limit and self.limit:clamp(delay) or delay, nil, self.owner)
        if err then return nil, nil, nil, err end
      end
    end
  end
end

---@param source table op; logs(cursor) and status(), with the results of the functions of command_requests.lua; cursor (where to begin); owner (see loop.wait); limit (a Deadline, to which pauses are cut; the requests have to be limited by it, too)
---@return table follower
return function(source)
  source.held = "" -- the first bytes of a character
  return setmetatable(source, Follower)
end

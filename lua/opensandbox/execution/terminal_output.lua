--- The output of a terminal: bytes that wait to be read, with their offsets, without the marks of the session's shell.
--
-- An offset counts the bytes of the session's whole output, with the marks. After a connection was cut the output continues at an offset.

local terminal_script = require "opensandbox.execution.terminal_script"

local terminal_output = {}

local MAX_BEFORE_START = 64 * 1024 -- bytes of messages of the shell before the first mark
local MAX_EXIT_CODE_LENGTH = 3     -- digits

---@class opensandbox.TerminalOutput
---@field offset integer behind the last byte that was received
---@field size integer bytes that wait to be read
---@field started boolean the first mark has passed, or there is none
---@field exit_code? integer the last mark has arrived; no output follows
local Output = {}
Output.__index = Output

--- Makes the output of a session.
---@param token? string of its marks; nil: it has none
---@param since integer the offset at which it begins
---@return opensandbox.TerminalOutput
function terminal_output.new(token, since)
  return setmetatable({
    offset = since, size = 0, pieces = {},
    started = token == nil or since > 0,
    start_mark = token and terminal_script.start_mark(token), end_mark = token and terminal_script.end_mark(token),
    held = "", -- bytes that may belong to a mark
  }, Output)
end

function Output:_append(text)
  if text == "" then return end
  self.pieces[#self.pieces + 1] = text
  self.size = self.size + #text
end

-- Skips the first mark. Returns the output behind it, or nil while it is missing.
function Output:_skip_start_mark(text)
  local first, last = text:find(self.start_mark, 1, true)
  if not first then
    self.held = text
    return nil
  end
  self.started = true
  self:_append(text:sub(1, first - 1)) -- warnings of the shell
  return text:sub(last + 1)
end

-- Returns the position from which the end of a text may be the beginning of the last mark.
local function partial_mark(text, mark)
  local position = math.max(#text - #mark + 2, 1)
  while true do
    position = text:find("\27", position, true)
    if not position then return nil end
    if mark:sub(1, #text - position + 1) == text:sub(position) then return position end
    position = position + 1
  end
end

--- Adds output.
---@param text string
function Output:add(text)
  self.offset = self.offset + #text
  if self.exit_code then return end -- the echo of the acknowledgement
  if self.held ~= "" then text, self.held = self.held .. text, "" end
  if not self.started then
    text = self:_skip_start_mark(text)
    if not text then return end
  end
  if not self.end_mark then return self:_append(text) end
  local first, last = text:find(self.end_mark, 1, true)
  if not first then
    local partial = partial_mark(text, self.end_mark)
    if partial then text, self.held = text:sub(1, partial - 1), text:sub(partial) end
    return self:_append(text)
  end
  local code = text:match("^(%d+)\27\\", last + 1)
  if code or #text - last > MAX_EXIT_CODE_LENGTH + 2 then
    self.exit_code = tonumber(code) or -1
  else
    self.held = text:sub(first)
  end
  self:_append(text:sub(1, first - 1))
end

--- Adds output that is sent again from an offset.
---@param offset integer
---@param text string
---@return integer? lost bytes between the known output and this one, which execd does not have any more
function Output:replay(offset, text)
  local lost = offset - self.offset
  if lost < 0 then
    text = text:sub(-lost + 1)
  elseif lost > 0 then
    self:flush()
    self.started, self.offset = true, offset
  end
  if text ~= "" then self:add(text) end
  return lost > 0 and lost or nil
end

--- Begins at the end of the output at the latest, before any of it was received. execd sends nothing again from behind the end.
---@param offset integer of the end
function Output:limit_offset(offset)
  self.offset = math.min(self.offset, offset)
end

--- Makes the bytes readable that were held for a mark, because no more will come.
function Output:flush()
  local held = self.held
  self.held = ""
  self:_append(held)
end

--- Returns whether the session's command was ignored: instead of the first mark there is the prompt of a shell.
---@return boolean
function Output:is_foreign()
  return not self.started and (self.held:find("[#$] $") ~= nil or #self.held > MAX_BEFORE_START)
end

--- Returns whether the session belongs to another terminal: its first mark has another token.
---@return boolean
function Output:is_of_another()
  return not self.started and self.held:find("\27_%x+\27\\") ~= nil
end

--- Returns the output that waits to be read, and removes it.
---@return string? bytes nil: there is none
function Output:take()
  if self.size == 0 then return nil end
  local text = self.pieces[2] and table.concat(self.pieces) or self.pieces[1]
  self.pieces, self.size = {}, 0
  return text
end

--- Returns the offset of the first byte that was not read.
---@return integer
function Output:read_offset()
  return self.started and self.offset - #self.held - self.size or 0
end

return terminal_output

--- The events of a stream: JSON written as execd's encoder writes it, and output cut into lines or chunks.

local json = require "opensandbox.base.json"
local time = require "opensandbox.devserver.base.time"
local utf8 = require "opensandbox.base.utf8"

local frames = {}

-- A run of bytes beyond ASCII: invalid ones become U+FFFD each, the two line separators of Unicode are escaped.
local function beyond_ascii(run)
  return utf8.map(run, function(character)
    if not character then return "\\ufffd" end
    if character == "\226\128\168" then return "\\u2028" end
    return character == "\226\128\169" and "\\u2029" or character
  end)
end

local ESCAPES = { ["<"] = "\\u003c", [">"] = "\\u003e", ["&"] = "\\u0026", ["\\/"] = "/" }

--- A string as JSON, whatever bytes it holds.
function frames.quote(text)
  if not text:find("[%c\"\\<>&\127-\255]") then return '"' .. text .. '"' end
  local quoted = json.encode(text):gsub("[<>&]", ESCAPES):gsub("\\[/\\]", ESCAPES)
  return (quoted:gsub("[\128-\255]+", beyond_ascii))
end

--- An event that has a text: init, ping, stdout, stderr.
function frames.text(kind, text, now)
  return ('{"type":"%s","text":%s,"timestamp":%.0f}\n\n'):format(kind, frames.quote(text), now or time.milliseconds())
end

--- The terminal event of success; a time of 0 ms is left out, like every zero.
function frames.complete(milliseconds)
  local spent = (milliseconds or 0) > 0 and ('"execution_time":%.0f,'):format(milliseconds) or ""
  return ('{"type":"execution_complete",%s"timestamp":%.0f}\n\n'):format(spent, time.milliseconds())
end

--- An error event.
-- @param traceback the JSON of a list, or "null"
-- @param text what some errors say besides
function frames.error(name, value, traceback, text)
  return table.concat {
    '{"type":"error",', text and '"text":' .. frames.quote(text) .. "," or "",
    ('"timestamp":%.0f,"error":{"ename":'):format(time.milliseconds()), frames.quote(name), ',"evalue":', frames.quote(value),
    ',"traceback":', traceback, "}}\n\n",
  }
end

--- The terminal event of failure. `value` is the exit code, -1 for a signal, or why the command could not be started.
function frames.failure(value, trace)
  return frames.error("CommandExecError", value, "[" .. frames.quote(trace) .. "]")
end

--- What ends a stream that fails after its first event: no type, and no line end.
function frames.untyped(message)
  return '{"code":"RUNTIME_ERROR","message":' .. frames.quote(message) .. "}"
end

--- An event with a field that is JSON already, written by an encoder that escapes less than execd's.
function frames.field(kind, name, encoded)
  local escaped = encoded:gsub("[<>&]", ESCAPES):gsub("[\128-\255]+", beyond_ascii)
  return ('{"type":"%s","timestamp":%.0f,"%s":'):format(kind, time.milliseconds(), name) .. escaped .. "}\n\n"
end

local Lines = {}
Lines.__index = Lines

--- Cuts bytes into events of one kind, however the bytes are split.
function frames.lines(kind)
  return setmetatable({ kind = kind, partial = {}, skip_lf = false }, Lines)
end

--- Adds the frames of the lines that `data` completes to `list`.
function Lines:feed(data, list)
  local position, now = 1, time.milliseconds()
  local prefix, suffix = '{"type":"' .. self.kind .. '","text":', (',"timestamp":%.0f}\n\n'):format(now)
  local quote, find, byte = frames.quote, string.find, string.byte
  if self.skip_lf and data ~= "" then
    self.skip_lf = false
    if byte(data, 1) == 10 then position = 2 end
  end
  while true do
    local at = find(data, "[\r\n]", position)
    if not at then break end
    local line = data:sub(position, at - 1)
    if self.partial[1] then
      self.partial[#self.partial + 1] = line
      line, self.partial = table.concat(self.partial), {}
    end
    list[#list + 1] = prefix .. quote(line == "" and "\n" or line) .. suffix
    position = at + 1
    if byte(data, at) == 13 then
      local following = byte(data, position)
      if following == 10 then position = position + 1 elseif not following then self.skip_lf = true end
    end
  end
  if position <= #data then self.partial[#self.partial + 1] = data:sub(position) end
end

--- Adds the frame of a last line that has no end.
function Lines:finish(list)
  local rest = table.concat(self.partial)
  self.partial = {}
  if rest ~= "" then list[#list + 1] = frames.text(self.kind, rest) end
end

local Records = {}
Records.__index = Records

local LONGEST_RECORD = 16 * 1024 * 1024

--- Cuts bytes into events as sessions do it: at line feeds only, without blank lines.
function frames.records(kind)
  return setmetatable({ kind = kind, partial = {}, size = 0 }, Records)
end

function Records:_add(line, list)
  if line:sub(-1) == "\r" then line = line:sub(1, -2) end
  if line ~= "" then list[#list + 1] = frames.text(self.kind, line) end
end

--- Adds the frames of the lines that `data` completes to `list`; false when a line is longer than can be.
function Records:feed(data, list)
  local position = 1
  while true do
    local at = data:find("\n", position, true)
    if not at then break end
    self.partial[#self.partial + 1] = data:sub(position, at - 1)
    self:finish(list)
    position = at + 1
  end
  if position <= #data then
    self.partial[#self.partial + 1] = data:sub(position)
    self.size = self.size + #data - position + 1
  end
  return self.size <= LONGEST_RECORD
end

--- Adds the frame of a last line that has no end.
function Records:finish(list)
  local line = table.concat(self.partial)
  self.partial, self.size = {}, 0
  self:_add(line, list)
end

local Chunks = {}
Chunks.__index = Chunks

--- Makes events of bytes as they come, with their line ends; only a character is never cut in two.
function frames.chunks(kind)
  return setmetatable({ kind = kind, rest = "" }, Chunks)
end

-- How many bytes at the end begin a character that is not complete.
local function incomplete(text)
  for back = 1, math.min(3, #text) do
    local byte = text:byte(-back)
    if byte >= 0xC0 then
      local length = byte >= 0xF0 and 4 or byte >= 0xE0 and 3 or 2
      return length > back and back or 0
    elseif byte < 0x80 then
      return 0
    end
  end
  return 0
end

function Chunks:feed(data, list)
  data = self.rest .. data
  local open = incomplete(data)
  self.rest = data:sub(#data - open + 1)
  if #data > open then list[#list + 1] = frames.text(self.kind, data:sub(1, #data - open)) end
end

function Chunks:finish(list)
  if self.rest ~= "" then list[#list + 1] = frames.text(self.kind, self.rest) end
  self.rest = ""
end

return frames

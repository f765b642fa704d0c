--- The events of a stream: JSON as execd's encoder writes it, and output cut into lines or chunks.

local json = require "opensandbox.base.json"
local clock = require "opensandbox.devserver.base.clock"
local utf8 = require "opensandbox.base.utf8"

local events = {}

-- Writes bytes beyond ASCII: each invalid one becomes U+FFFD, and the two line separators of Unicode are escaped.
local function beyond_ascii(run)
  return utf8.map(run, function(character)
    if not character then return "\\ufffd" end
    if character == "\226\128\168" then return "\\u2028" end
    return character == "\226\128\169" and "\\u2029" or character
  end)
end

local ESCAPES = { ["<"] = "\\u003c", [">"] = "\\u003e", ["&"] = "\\u0026", ["\\/"] = "/" }

--- Writes a string of any bytes as JSON.
function events.quote(text)
  if not text:find("[%c\"\\<>&\127-\255]") then return '"' .. text .. '"' end
  local quoted = json.encode(text):gsub("[<>&]", ESCAPES):gsub("\\[/\\]", ESCAPES)
  return (quoted:gsub("[\128-\255]+", beyond_ascii))
end

--- Writes an event with a text: init, ping, stdout, stderr.
function events.text(kind, text, now)
  return ('{"type":"%s","text":%s,"timestamp":%.0f}\n\n'):format(kind, events.quote(text), now or clock.milliseconds())
end

--- Writes the terminal event of success. A time of 0 ms is left out, as Go's encoder leaves out zeros.
function events.complete(milliseconds)
  local spent = (milliseconds or 0) > 0 and ('"execution_time":%.0f,'):format(milliseconds) or ""
  return ('{"type":"execution_complete",%s"timestamp":%.0f}\n\n'):format(spent, clock.milliseconds())
end

--- Writes an error event.
---@param name string
---@param value string
---@param traceback string the JSON of a list, or "null"
---@param text? string a text besides the error
function events.error(name, value, traceback, text)
  return table.concat {
    '{"type":"error",', text and '"text":' .. events.quote(text) .. "," or "",
    ('"timestamp":%.0f,"error":{"ename":'):format(clock.milliseconds()), events.quote(name), ',"evalue":', events.quote(value),
    ',"traceback":', traceback, "}}\n\n",
  }
end

--- Writes the terminal event of failure.
---@param value string the exit code, -1 for a signal, or why the command could not be started
---@param trace string
function events.failure(value, trace)
  return events.error("CommandExecError", value, "[" .. events.quote(trace) .. "]")
end

--- Writes the end of a stream that fails after its first event: it has no type, and no line end.
function events.untyped(message)
  return '{"code":"RUNTIME_ERROR","message":' .. events.quote(message) .. "}"
end

--- Writes an event with a field that is JSON already, by an encoder that escapes less than execd's.
function events.field(kind, name, encoded)
  local escaped = encoded:gsub("[<>&]", ESCAPES):gsub("[\128-\255]+", beyond_ascii)
  return ('{"type":"%s","timestamp":%.0f,"%s":'):format(kind, clock.milliseconds(), name) .. escaped .. "}\n\n"
end

local Lines = {}
Lines.__index = Lines

--- Creates a splitter of bytes into events of one kind, a line each. The bytes may be split anywhere.
function events.lines(kind)
  return setmetatable({ kind = kind, partial = {}, skip_lf = false }, Lines)
end

--- Adds the events of the lines that `data` completes to `list`.
function Lines:feed(data, list)
  local position, now = 1, clock.milliseconds()
  local prefix, suffix = '{"type":"' .. self.kind .. '","text":', (',"timestamp":%.0f}\n\n'):format(now)
  local quote, find, byte = events.quote, string.find, string.byte
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

--- Adds the event of a last line that has no end.
function Lines:finish(list)
  local rest = table.concat(self.partial)
  self.partial = {}
  if rest ~= "" then list[#list + 1] = events.text(self.kind, rest) end
end

local Records = {}
Records.__index = Records

local MAX_RECORD_SIZE = 16 * 1024 * 1024

--- Creates a splitter as sessions have it: it splits at line feeds only, and drops blank lines.
function events.records(kind)
  return setmetatable({ kind = kind, partial = {}, size = 0 }, Records)
end

function Records:_add(line, list)
  if line:sub(-1) == "\r" then line = line:sub(1, -2) end
  if line ~= "" then list[#list + 1] = events.text(self.kind, line) end
end

--- Adds the events of the lines that `data` completes to `list`. Returns false when a line is longer than the limit.
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
  return self.size <= MAX_RECORD_SIZE
end

--- Adds the event of a last line that has no end.
function Records:finish(list)
  local line = table.concat(self.partial)
  self.partial, self.size = {}, 0
  self:_add(line, list)
end

local Chunks = {}
Chunks.__index = Chunks

--- Creates a splitter that makes an event of each piece, with its line ends. It never splits a character.
function events.chunks(kind)
  return setmetatable({ kind = kind, rest = "" }, Chunks)
end

function Chunks:feed(data, list)
  data = self.rest .. data
  local open = utf8.incomplete_length(data)
  self.rest = data:sub(#data - open + 1)
  if #data > open then list[#list + 1] = events.text(self.kind, data:sub(1, #data - open)) end
end

function Chunks:finish(list)
  if self.rest ~= "" then list[#list + 1] = events.text(self.kind, self.rest) end
  self.rest = ""
end

return events

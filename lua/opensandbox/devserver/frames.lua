--- The events of a command's stream: JSON written as execd's encoder writes it, and output cut into lines.

local json = require "opensandbox.json"
local time = require "opensandbox.devserver.time"
local utf8 = require "opensandbox.utf8"

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

--- The terminal event of failure. `value` is the exit code, -1 for a signal, or why the command could not be started.
function frames.failure(value, trace)
  return ('{"type":"error","timestamp":%.0f,"error":{"ename":"CommandExecError","evalue":%s,"traceback":[%s]}}\n\n')
    :format(time.milliseconds(), frames.quote(value), frames.quote(trace))
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

return frames

--- Sends recorded requests to a development server, and compares its answers with the recorded ones.
--
-- Identifiers are chance: each one in a recorded answer is paired with the one at the same place of the server's answer, and later
-- requests that name the first are sent with the second.

local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"
local recordings = require "spec.support.recordings"
local uv_loop = require "spec.support.uv_loop"

local RecordedClient = {}
RecordedClient.__index = RecordedClient

-- Headers that are compared; of `Location`, only whether it exists.
local HEADERS = {
  "accept-ranges", "allow", "cache-control", "content-disposition", "content-range", "content-type", "deprecation",
  "execd-commands-tail-cursor", "execd-isolated-tail-cursor", "location", "transfer-encoding", "vary", "x-accel-buffering",
  "x-content-type-options",
}

-- What differs from run to run, and what stands for it. Each is applied to all text.
local MASKS = {
  { "%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x", "<uuid>" },
  { ("%x"):rep(32), "<id>" }, { "%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.?%d*Z", "<time>" },
  -- The gateway serves all sandboxes; each recorded one has a port of its own.
  { "127%.0%.0%.1:%d+/<uuid>/proxy/", "<gateway>/proxy/" }, { "127%.0%.0%.1:%d+/proxy/", "<gateway>/proxy/" },
  { "10%.88%.1%.1:", "127.0.0.1:" }, { "Container:  " .. ("%x"):rep(12), "Container:  <id>" },
  { "line %d+: +%d+ ", "line <n>: <pid> " }, { "Killed +", "Killed " }, -- bash 5.3 writes more spaces
  { "bash: line %d+:", "bash: line <n>:" }, { "0x%x+", "<address>" },
}
local NUMBERS = { timestamp = true, execution_time = true, contentLength = true }
local ACCOUNTS = { owner = true, group = true }

-- Replaces everything in a text that differs from run to run.
local function mask_text(text)
  for _, mask in ipairs(MASKS) do text = text:gsub(mask[1], mask[2]) end
  return text
end

local function mask(value, key)
  if type(value) == "table" then
    local copy = {}
    for name, item in pairs(value) do copy[name] = mask(item, name) end
    if value.type == "directory" then copy.size = "<number>" end
    return copy
  elseif NUMBERS[key] then
    return "<number>"
  elseif key == "idle_remaining_seconds" then
    return value > 0 and "<positive>" or 0
  elseif ACCOUNTS[key] and value ~= "" then
    return "<account>"
  elseif type(value) == "string" then
    return mask_text(value)
  end
  return value
end

-- The events of a stream without pings and times. Texts of one kind that follow each other are joined, because where output is cut
-- is chance.
local function mask_events(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local event = json.decode(line) or { type = "not JSON", text = line }
    if event.type ~= "ping" then
      event.timestamp, event.execution_time = nil, nil
      event = mask(event)
      local last = list[#list]
      if last and last.type == event.type and (event.type == "stdout" or event.type == "stderr") then
        last.text = last.text .. "\n" .. event.text
      else
        list[#list + 1] = event
      end
    end
  end
  -- Output and errors are two streams, and their order is chance.
  local other, streams = {}, { stdout = {}, stderr = {} }
  for _, event in ipairs(list) do
    if streams[event.type] then table.insert(streams[event.type], event.text) else other[#other + 1] = event end
  end
  return { events = other, stdout = table.concat(streams.stdout, "\n"), stderr = table.concat(streams.stderr, "\n") }
end

local function header_map(list)
  local map = {}
  for _, pair in ipairs(list) do map[pair[1]:lower()] = pair[2] end
  return map
end

-- An answer in a form that can be compared.
local function comparable(status, headers, body)
  local one = { status = status, headers = {} }
  for _, name in ipairs(HEADERS) do one.headers[name] = headers[name] and mask_text(headers[name]) end
  if headers.location then one.headers.location = "<location>" end
  local kind = headers["content-type"] or ""
  if kind:find("event-stream", 1, true) then
    one.body = mask_events(body)
  elseif kind:find("json", 1, true) then
    local value = json.decode_raw(body)
    one.body, one.ending = value ~= nil and mask(value) or mask_text(body), body:match("\n*$")
  else
    one.body = mask_text(body)
  end
  return one
end

-- Pairs the identifiers of two values that are alike.
function RecordedClient:learn_value(expected, actual)
  if type(expected) == "table" and type(actual) == "table" then
    for key, value in pairs(expected) do self:learn_value(value, actual[key]) end
  elseif type(expected) == "string" and type(actual) == "string" then
    for _, pattern in ipairs { MASKS[1][1], MASKS[2][1] } do
      local id, own = expected:match("^" .. pattern .. "$"), actual:match("^" .. pattern .. "$")
      if id and own then self.ids[id] = own end
    end
  end
end

-- The same for bodies: JSON, or events.
function RecordedClient:learn(expected, actual)
  local a, b = json.decode(expected), json.decode(actual)
  if a and b then return self:learn_value(a, b) end
  self:learn_value(json.decode(expected:match("^[^\n]*")), json.decode(actual:match("^[^\n]*")))
end

local function plain(text) return (text:gsub("%p", "%%%0")) end

--- Replaces the recorded identifiers and tokens of a text by the server's.
function RecordedClient:translate(text)
  for id, own in pairs(self.ids) do
    if text:find(id, 1, true) then text = text:gsub(plain(id), (own:gsub("%%", "%%%%"))) end
  end
  return text
end

--- Sends the request of a recording, and returns both answers in a form that can be compared.
---@param name string like "egress/policy-get"
---@param options? table `base` (URL), `path` and `body` (instead of the recorded ones), `headers` (besides the recorded ones), `timeout`
---@return table expected
---@return table actual
---@return table? answer of the server, as it was received
function RecordedClient:play(name, options)
  options = options or {}
  local recording = assert(recordings.load(self.area .. "/" .. name))
  local request, response = recording.request, recording.response
  local headers = {}
  for key, value in pairs(request.headers) do
    local lower = key:lower()
    if lower ~= "host" and lower ~= "content-length" and lower ~= "connection" then headers[key] = self:translate(value) end
  end
  for key, value in pairs(options.headers or self.headers or {}) do headers[key] = value end
  local has_body = request.body ~= "" or request.headers["Content-Length"] ~= nil
  local actual, problem = http_client.request {
    url = (options.base or self.base) .. self:translate(options.path or request.path), method = request.method, headers = headers,
    body = has_body and self:translate(options.body or request.body) or nil, timeout = options.timeout or 10,
  }
  local expected = comparable(response.status, header_map(response.headers), response.body)
  if not actual then return expected, { problem = problem } end
  self:learn(response.body, actual.body)
  return expected, comparable(actual.status, actual.headers, actual.body), actual
end

-- Adds the differences of two values to a list, one line each.
local function compare(expected, actual, where, list)
  if type(expected) == "table" and type(actual) == "table" then
    local keys = {}
    for key in pairs(expected) do keys[key] = true end
    for key in pairs(actual) do keys[key] = true end
    for key in pairs(keys) do compare(expected[key], actual[key], where .. "." .. tostring(key), list) end
  elseif expected ~= actual then
    local function shown(value)
      if type(value) == "table" then value = json.encode(value) end
      return (("%q"):format(tostring(value)):sub(1, 400):gsub("\\\n", "\\n"))
    end
    list[#list + 1] = ("  %s: expected %s, received %s"):format(where, shown(expected), shown(actual))
  end
end

--- Plays a scenario: recordings in their order. Returns the differences as text, "" when there are none.
---@param steps table[] name of the recording, and the options of `play`; a function instead of a step is called. Further options:
--- `change(expected, actual, answer)` alters the compared values; `repeat_until(actual)`: the request is repeated until this is true
---@return string
function RecordedClient:differences(steps)
  local found = {}
  for _, step in ipairs(steps) do
    if type(step) == "string" then step = { step } end
    if type(step) == "function" then
      step(self)
    else
      local expected, actual, answer = self:play(step[1], step)
      uv_loop.wait_until(function()
        if not step.repeat_until or step.repeat_until(actual) then return true end
        expected, actual, answer = self:play(step[1], step)
      end, step[1])
      if step.change then step.change(expected, actual, answer) end
      local list = {}
      compare(expected, actual, "", list)
      if list[1] then found[#found + 1] = step[1] .. "\n" .. table.concat(list, "\n") end
    end
  end
  return table.concat(found, "\n")
end

--- Creates a client.
---@param area string the directory of the recordings
---@param base string URL before the recorded paths
---@param headers? table sent with each request
---@param ids? table the server's identifiers by the recorded ones
local function new(area, base, headers, ids)
  return setmetatable({ area = area, base = base, headers = headers, ids = ids or {} }, RecordedClient)
end

--- Returns the recordings of an area that are in no scenario.
---@param area string
---@param scenarios table[] lists of steps
---@param excused table<string, string> by name why a recording is in none
---@return string[]
local function missing(area, scenarios, excused)
  local found, list = {}, {}
  for _, steps in ipairs(scenarios) do
    for _, step in ipairs(steps) do
      if type(step) ~= "function" then found[type(step) == "table" and step[1] or step] = true end
    end
  end
  for _, name in ipairs(recordings.names(area)) do
    if (found[name] ~= nil) == (excused[name] ~= nil) then
      list[#list + 1] = found[name] and name .. " is excused, and in a scenario" or name
    end
  end
  return list
end

return { new = new, missing = missing }

--- Sandboxes of a development server, used without the library's own client; and the compared parts of a response.

local json = require "opensandbox.base.json"
local api_client = require "spec.support.api_client"
local process = require "spec.support.process"
local recordings = require "spec.support.recordings"

local EXECD_PORT = 44772

local execd_client = {}

local Sandbox = {}
Sandbox.__index = Sandbox

--- Makes a sandbox on a server that `process.devserver` started.
function execd_client.sandbox(server, changes)
  local lifecycle = api_client.new(server)
  local id = lifecycle:create(changes).id
  return setmetatable({ lifecycle = lifecycle, id = id, endpoint = lifecycle:endpoint(id, EXECD_PORT) }, Sandbox)
end

--- A request to the lifecycle API, below /v1/sandboxes.
function Sandbox:api(method, path, body)
  return self.lifecycle:call(method, "/v1/sandboxes" .. path, body)
end

function Sandbox:delete()
  return self:api("DELETE", "/" .. self.id).status
end

--- A request to its execd. A body that is a table is sent as JSON.
function Sandbox:send(method, path, body, options)
  options = options or {}
  return self.endpoint:send(method, path, {
    body = body, headers = options.headers, timeout = options.timeout, on_chunk = options.on_chunk,
  })
end

--- The same in another process, while the test continues: a child with `wait` and `output`.
function Sandbox:begin(method, path, body)
  local argv = { "curl", "-s", "-N", "-X", method, "http://" .. self.endpoint.endpoint .. path }
  for name, value in pairs(self.endpoint.headers) do
    argv[#argv + 1] = "-H"
    argv[#argv + 1] = name .. ": " .. value
  end
  if body then
    argv[#argv + 1] = "-d"
    argv[#argv + 1] = api_client.encoded(body)
  end
  return process.start { argv = argv }
end

--- The events of a stream without pings; an item that is no event has no type.
function execd_client.events(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local event = assert(json.decode(line))
    if event.type ~= "ping" then list[#list + 1] = event end
  end
  return list
end

--- A request whose answer is a stream: its events, and the answer.
function Sandbox:stream(path, body, options)
  local answer = self:send("POST", path, body, options)
  assert(answer.status == 200, answer.body)
  return execd_client.events(answer.body), answer
end

--- The texts of the events of one kind, joined.
function execd_client.text(list, kind, separator)
  local parts = {}
  for _, event in ipairs(list) do
    if event.type == kind then parts[#parts + 1] = event.text end
  end
  return table.concat(parts, separator or "")
end

--- The types of events in order, "-" for one without a type.
function execd_client.kinds(list)
  local names = {}
  for index, event in ipairs(list) do names[index] = event.type or "-" end
  return table.concat(names, " ")
end

-- What differs from run to run, replaced by its kind.
local function normal(value, key)
  if type(value) == "table" then
    local copy = {}
    for name, item in pairs(value) do copy[name] = normal(item, name) end
    return copy
  elseif key == "timestamp" then
    return "<number>"
  elseif type(value) == "string" then
    return (value:gsub("%x+%-%x+%-4%x+%-%x+%-%x+", "<uuid>"):gsub("0x%x+", "<address>"))
  end
  return value
end

-- An answer's body in a form that can be compared: events without pings and times, or a value, or text.
local function comparable(body, kind)
  if not kind then return body end
  if not kind:find("event-stream", 1, true) then return normal(json.decode(body)) end
  local list = normal(execd_client.events(body))
  for _, event in ipairs(list) do event.execution_time = nil end
  return list
end

local COMPARED = { "content-type", "transfer-encoding", "cache-control", "x-accel-buffering" }

--- Repeats a recorded request on another path and returns both answers, each as status, headers that matter, and body.
function execd_client.replay(sandbox, name, path, body)
  local recording = assert(recordings.load("execd/" .. name))
  local request, response = recording.request, recording.response
  local wanted = { headers = {} }
  for _, pair in ipairs(response.headers) do wanted.headers[pair[1]:lower()] = pair[2] end
  local answer = sandbox:send(request.method, path or request.path, body or (request.body ~= "" and request.body or nil))
  local function summary(status, headers, text)
    local one = { status = status, body = comparable(text, headers["content-type"]) }
    for _, header in ipairs(COMPARED) do one[header] = headers[header] end
    return one
  end
  return summary(response.status, wanted.headers, response.body), summary(answer.status, answer.headers, answer.body), answer
end

return execd_client

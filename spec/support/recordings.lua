--- The recorded exchanges in spec/recordings, with their bytes decoded.

local uv = require "luv"
local base64 = require "opensandbox.base.base64"
local json = require "opensandbox.base.json"

local recordings = {}

local directory = debug.getinfo(1, "S").source:gsub("^@", ""):gsub("support/[^/]*$", "") .. "recordings/"

-- Reads the JSON of a recording.
local function read(name)
  if not name:find("^[%w.-]+/[%w-]+$") then return nil, "not the name of a recording: " .. name end
  local file = io.open(directory .. name .. ".json", "rb")
  if not file then return nil, "no recording " .. name end
  local recording, problem = json.decode(file:read("*a"))
  file:close()
  if recording then recording.name = name end
  return recording, problem
end

--- Reads a recording.
-- @tparam string name like "execd/command-echo"
-- @return[1] a table with `name`, `about`, `request` (`method`, `path`, `headers`, `body`) and `response` (`status`,
-- `reason`, `headers` as pairs, `chunks` as {ms, bytes} pairs, `body` with all of them, `end_ms`, `truncated`)
-- @treturn[2] nil
-- @treturn[2] string why it cannot be read
function recordings.load(name)
  local recording, problem = read(name)
  if not recording then return nil, problem end
  local request, response = recording.request, recording.response
  request.body = request.body_base64 and base64.decode(request.body_base64) or request.body or ""
  if not response.chunks then
    response.chunks = (response.body or "") ~= "" and { { 0, response.body } } or {}
  end
  local parts = {}
  for index, chunk in ipairs(response.chunks) do
    if type(chunk[2]) == "table" then chunk[2] = base64.decode(chunk[2].base64) end
    parts[index] = chunk[2]
  end
  response.body, response.end_ms = table.concat(parts), response.end_ms or 0
  return recording
end

-- The payload of a recorded frame: a long one is written as a prefix and a repeated unit.
local function payload_of(frame)
  if frame.payload then return base64.decode(frame.payload) end
  return base64.decode(frame.prefix) .. base64.decode(frame["repeat"]):rep(frame.times)
end

--- Reads a recorded session of WebSockets (see terminal/README.md).
-- @tparam string name like "terminal/echo"
-- @return[1] a table with `name`, `about`, `create`, `connections` (`handshake`, `frames`, `end`) and `after`; the payload of each frame
-- is bytes
-- @treturn[2] nil
-- @treturn[2] string why it cannot be read
function recordings.session(name)
  local session, problem = read(name)
  if not session then return nil, problem end
  for _, connection in ipairs(session.connections) do
    connection.frames = connection.frames or {}
    for _, frame in ipairs(connection.frames) do frame.payload = payload_of(frame) end
  end
  return session
end

--- Returns the names of the recordings of an area, sorted and without the area.
---@param area string
---@return string[]
function recordings.names(area)
  local names, scan = {}, assert(uv.fs_scandir(directory .. area))
  local file = uv.fs_scandir_next(scan)
  while file do
    names[#names + 1] = file:match("^(.*)%.json$")
    file = uv.fs_scandir_next(scan)
  end
  table.sort(names)
  return names
end

--- Returns the names of the recorded sessions, sorted.
function recordings.sessions()
  local names = {}
  for _, name in ipairs(recordings.names("terminal")) do
    if (read("terminal/" .. name)).connections then names[#names + 1] = "terminal/" .. name end
  end
  return names
end

return recordings

--- The recorded exchanges in spec/recordings, with their bytes decoded.

local base64 = require "opensandbox.base.base64"
local json = require "opensandbox.base.json"

local recordings = {}

local directory = debug.getinfo(1, "S").source:gsub("^@", ""):gsub("support/[^/]*$", "") .. "recordings/"

--- Reads a recording.
-- @tparam string name like "execd/command-echo"
-- @return[1] a table with `name`, `about`, `request` (`method`, `path`, `headers`, `body`) and `response` (`status`,
-- `reason`, `headers` as pairs, `chunks` as {ms, bytes} pairs, `body` with all of them, `end_ms`, `truncated`)
-- @treturn[2] nil
-- @treturn[2] string why it cannot be read
function recordings.load(name)
  if not name:find("^[%w-]+/[%w-]+$") then return nil, "not the name of a recording: " .. name end
  local file = io.open(directory .. name .. ".json", "rb")
  if not file then return nil, "no recording " .. name end
  local recording, problem = json.decode(file:read("*a"))
  file:close()
  if not recording then return nil, problem end
  local request, response = recording.request, recording.response
  recording.name = name
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

return recordings

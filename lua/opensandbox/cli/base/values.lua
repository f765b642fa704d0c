--- Values in arguments: converters for argparse, which return nil and a message for a wrong value.

local time = require "opensandbox.base.time"

local values = {}

--- Reads a duration: "90s", "10m", "1h30m", or a number of seconds.
---@param text string
---@return number? seconds
---@return string? problem
function values.duration(text)
  local seconds = time.parse_duration(text) or (text:find("^%d+$") and tonumber(text))
  if seconds and seconds > 0 then return seconds end
  return nil, ("'%s' is not a duration: write 90s, 10m or 1h30m"):format(text)
end

--- Reads a lifetime: a duration, or "never".
---@param text string
---@return number|string|nil lifetime
---@return string? problem
function values.lifetime(text)
  if text == "never" then return text end
  local seconds, problem = values.duration(text)
  return seconds, problem and problem .. ", or never"
end

--- Reads a whole number.
---@param text string
---@return integer? number
---@return string? problem
function values.natural(text)
  if text:find("^%d+$") and #text <= 15 then return math.floor(tonumber(text)) end
  return nil, ("'%s' is not a whole number"):format(text)
end

--- Reads the number of a TCP port.
---@param text string
---@return integer? port
---@return string? problem
function values.port(text)
  local port = values.natural(text)
  if port and port >= 1 and port <= 65535 then return port end
  return nil, ("'%s' is not a port, a number from 1 to 65535"):format(text)
end

--- Checks NAME=VALUE.
---@param text string
---@return string? text
---@return string? problem
function values.pair(text)
  if text:find("^[^=]+=") then return text end
  return nil, ("'%s' is not of the form NAME=VALUE"):format(text)
end

--- Reads an environment variable: NAME=VALUE, or the NAME of one of ours.
---@param text string
---@return string? pair
---@return string? problem
function values.variable(text)
  if text:find("=", 1, true) then return values.pair(text) end
  local value = os.getenv(text)
  if value then return text .. "=" .. value end
  return nil, ("'%s' is not set here: write NAME=VALUE, or the name of a variable of your environment"):format(text)
end

--- Returns pairs of the form NAME=VALUE as a table.
---@param list? string[]
---@return table<string, string>? map nil for an empty list
function values.map(list)
  if not list or #list == 0 then return nil end
  local map = {}
  for _, pair in ipairs(list) do
    local name, value = pair:match("^([^=]+)=(.*)$")
    map[name] = value
  end
  return map
end

--- Reads a user: UID or UID:GID.
---@param text string
---@return { uid: integer, gid?: integer }? user
---@return string? problem
function values.user(text)
  local uid, gid = text:match("^(%d+):(%d+)$")
  uid = uid or text:match("^%d+$")
  if uid and #uid <= 10 and #(gid or "") <= 10 then return { uid = tonumber(uid), gid = gid and tonumber(gid) } end
  return nil, ("'%s' is not a user: write UID or UID:GID"):format(text)
end

--- Reads a local and a remote path: LOCAL:REMOTE, or LOCAL:REMOTE:MODE.
---@param text string
---@return { from: string, to: string, mode: string }? volume
---@return string? problem
function values.volume(text)
  local from, to, mode = text:match("^(.-):(/[^:]*):(%a+)$")
  if not from then from, to = text:match("^(.-):(/[^:]*)$") end
  mode = mode or "rw"
  if from and from ~= "" and (mode == "ro" or mode == "rw" or mode == "out") then return { from = from, to = to, mode = mode } end
  return nil, ("'%s' is not of the form LOCAL:/REMOTE or LOCAL:/REMOTE:MODE, where MODE is ro, rw or out"):format(text)
end

return values

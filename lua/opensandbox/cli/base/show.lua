--- The library's values as people read them: instants, durations, sizes, states, metadata.

local each = require "opensandbox.base.each"
local time = require "opensandbox.base.time"

local show = {}

local STATE_COLORS = {
  Running = "green", Ready = "green", Failed = "red", Terminated = "red", Paused = "yellow", Pending = "yellow",
}

--- Returns the color of a state.
---@param state string
---@return string?
function show.state_color(state)
  return STATE_COLORS[state]
end

local UNITS = { { "d", 86400 }, { "h", 3600 }, { "m", 60 }, { "s", 1 } }

--- Writes a duration with its two largest units: "2d3h", "5m10s", "0s".
---@param seconds number
---@return string
function show.duration(seconds)
  local rest = math.floor(seconds + 0.5)
  if rest <= 0 then return "0s" end
  local parts = {}
  for _, unit in ipairs(UNITS) do
    local count = math.floor(rest / unit[2])
    rest = rest - count * unit[2]
    if count > 0 then
      parts[#parts + 1] = ("%d%s"):format(count, unit[1])
    elseif #parts > 0 then
      break
    end
    if #parts == 2 then break end
  end
  return table.concat(parts)
end

--- Writes how long ago an instant was.
---@param instant? number Unix seconds
---@param now number
---@return string
function show.ago(instant, now)
  return instant and show.duration(now - instant) or ""
end

--- Writes how far ahead an instant is.
---@param instant? number Unix seconds; nil: never
---@param now number
---@return string
function show.until_then(instant, now)
  if not instant then return "never" end
  return instant <= now and "over" or show.duration(instant - now)
end

--- Writes an instant in UTC.
---@param instant? number Unix seconds
---@return string?
function show.instant(instant)
  return instant and time.format(math.floor(instant)) or nil
end

--- Writes a number of bytes: "512 B", "1.5 KiB".
---@param bytes number
---@return string
function show.bytes(bytes)
  local units, index = { "B", "KiB", "MiB", "GiB", "TiB" }, 1
  while bytes >= 1024 and index < #units do
    bytes, index = bytes / 1024, index + 1
  end
  if index == 1 then return ("%d B"):format(bytes) end
  local tenths = math.floor(bytes * 10 + 0.5) -- no "%.1f": its separator depends on the locale
  return ("%d.%d %s"):format(math.floor(tenths / 10), tenths % 10, units[index])
end

--- Writes metadata as "a=b, c=d".
---@param metadata? table<string, string>
---@return string
function show.metadata(metadata)
  local list = {}
  for key, value in each(metadata or {}) do list[#list + 1] = tostring(key) .. "=" .. tostring(value) end
  table.sort(list)
  return table.concat(list, ", ")
end

return show

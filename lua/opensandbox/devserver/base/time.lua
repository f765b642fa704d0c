--- Instants as the APIs write them: RFC 3339 in UTC.

local uv = require "luv"

local time = {}

--- Now, as seconds and microseconds since 1970.
function time.now()
  return uv.gettimeofday()
end

--- Now in milliseconds since 1970.
function time.milliseconds()
  local seconds, microseconds = uv.gettimeofday()
  return seconds * 1000 + math.floor(microseconds / 1000)
end

--- "2026-11-23T21:28:47.713Z"; the fraction is left out when it is zero.
-- @param seconds since 1970
-- @param fraction an integer
-- @param digits how many digits the fraction has (6 for microseconds)
-- @param trim whether trailing zeros of the fraction are left out too
function time.format(seconds, fraction, digits, trim)
  local text = ""
  if fraction and fraction > 0 then
    text = "." .. ("%0" .. digits .. "d"):format(fraction)
    if trim then text = text:gsub("0+$", "") end
  end
  return os.date("!%Y-%m-%dT%H:%M:%S", seconds) .. text .. "Z"
end

-- Days from 1970-01-01 to a date of the Gregorian calendar; years begin in March, so that leap days come last.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era_days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
  return era_days + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

--- Reads an RFC 3339 text, or seconds since 1970; without a zone it is UTC.
-- @treturn[1] number seconds since 1970
-- @treturn[1] number microseconds
-- @treturn[2] nil when it is neither
function time.parse(value)
  if type(value) == "number" then return math.floor(value), math.floor(value % 1 * 1e6) end
  local year, month, day, hour, minute, second, rest =
    value:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt ](%d%d):(%d%d):?(%d*)(.*)$")
  if not year then return nil end
  local fraction, zone = rest:match("^%.?(%d*)(.*)$")
  local seconds = days(tonumber(year), tonumber(month), tonumber(day)) * 86400
    + tonumber(hour) * 3600 + tonumber(minute) * 60 + (tonumber(second) or 0)
  if zone ~= "" and zone:upper() ~= "Z" then
    local sign, zone_hours, zone_minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
    if not sign then return nil end
    local offset = tonumber(zone_hours) * 3600 + tonumber(zone_minutes) * 60
    seconds = sign == "+" and seconds - offset or seconds + offset
  end
  return seconds, tonumber((fraction .. "000000"):sub(1, 6))
end

--- The date of HTTP headers.
function time.http(seconds)
  return os.date("!%a, %d %b %Y %H:%M:%S GMT", seconds)
end

return time

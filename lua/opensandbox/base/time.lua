--- Instants: Unix seconds (fractions allowed) in programs, RFC 3339 on the wire.

local time = {}

-- Days since 1970-01-01 in the proleptic Gregorian calendar, by counting from March, so that the leap day comes last.
local function days_from_civil(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = math.floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5) + day - 1
  local day_of_era = year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100) + day_of_year
  return era * 146097 + day_of_era - 719468
end

--- Reads an RFC 3339 instant, with any number of fraction digits and any zone.
---@param text? string
---@return number? seconds since 1970, nil for a text that is not an instant
function time.parse(text)
  if type(text) ~= "string" then return nil end
  local year, month, day, hour, minute, second, rest = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
  if not year then return nil end
  local digits, zone = rest:match("^%.(%d+)(.*)$")
  zone = zone or rest
  local offset = 0
  if zone ~= "" and zone ~= "Z" and zone ~= "z" then
    local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
    if not sign then return nil end
    offset = (hours * 3600 + minutes * 60) * (sign == "-" and -1 or 1)
  end
  local days = days_from_civil(tonumber(year), tonumber(month), tonumber(day))
  local whole = days * 86400 + hour * 3600 + minute * 60 + second - offset
  -- Not tonumber("0." .. digits), because the decimal point of numbers depends on the locale.
  if digits then return whole + tonumber(digits:sub(1, 15)) / 10 ^ math.min(#digits, 15) end
  return whole
end

--- Writes an instant in UTC with microseconds, which are left out when they are zero.
---@param seconds number since 1970
---@return string
function time.format(seconds)
  local whole = math.floor(seconds)
  local micro = math.floor((seconds - whole) * 1e6 + 0.5)
  if micro >= 1e6 then whole, micro = whole + 1, 0 end
  return os.date("!%Y-%m-%dT%H:%M:%S", whole) .. (micro > 0 and (".%06d"):format(micro) or "") .. "Z"
end

return time

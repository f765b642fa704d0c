--- Instants and durations: seconds (fractions allowed) on our side, RFC 3339 and HTTP dates on the wire, "10m" in options.

local numbers = require "opensandbox.base.numbers"

local time = {}

-- Days since 1970-01-01 in the proleptic Gregorian calendar. The year is counted from March, so that the leap day comes last.
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
---@return number? seconds since 1970, nil if the text is not an instant
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
  if digits then return whole + numbers.parse("0." .. digits) end
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

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

local month_numbers = {}
for number, name in ipairs(MONTHS) do month_numbers[name] = number end

--- Writes an instant as HTTP headers do: "Sun, 06 Nov 1994 08:49:37 GMT".
---@param seconds? integer since 1970; default now
---@return string
function time.format_http_date(seconds)
  local parts = os.date("!*t", seconds) -- the names of os.date's own formats depend on the locale
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(
    DAYS[parts.wday], parts.day, MONTHS[parts.month], parts.year, parts.hour, parts.min, parts.sec)
end

--- Reads the date of an HTTP header: "Sun, 06 Nov 1994 08:49:37 GMT". The two obsolete forms of RFC 9110 are not read.
---@param text? string
---@return integer? seconds since 1970, nil if the text is not such a date
function time.parse_http_date(text)
  if type(text) ~= "string" then return nil end
  local day, month, year, hour, minute, second = text:match("^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not day or not month_numbers[month] then return nil end
  return days_from_civil(tonumber(year), month_numbers[month], tonumber(day)) * 86400 + hour * 3600 + minute * 60 + second
end

local units = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

--- Reads a duration: numbers with units, which are ms, s, m, h or d.
---@param text string for example "90s", "10m", "1.5h" or "1h30m"
---@return number? seconds nil if the text is not a duration
function time.parse_duration(text)
  local total, position = 0, 1
  repeat
    local number, unit, following = text:match("^(%d[%d.]*)(%a+)()", position)
    local value = number and units[unit] and numbers.parse(number)
    if not value then return nil end
    total, position = total + value * units[unit], following
  until position > #text
  return total
end

return time

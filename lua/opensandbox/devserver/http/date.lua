--- The dates of HTTP headers. Not with %a and %b of os.date, because those depend on the locale.

local time = require "opensandbox.base.time"

local date = {}

local DAYS = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local MONTHS = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

local month_numbers = {}
for number, name in ipairs(MONTHS) do month_numbers[name] = number end

--- Writes an instant as "Thu, 26 Nov 2026 12:27:13 GMT".
---@param seconds? integer since 1970; now when absent
---@return string
function date.format(seconds)
  local parts = os.date("!*t", seconds)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(
    DAYS[parts.wday], parts.day, MONTHS[parts.month], parts.year, parts.hour, parts.min, parts.sec)
end

--- Reads such a date.
---@param text string
---@return number? seconds since 1970; nil for any other text
function date.parse(text)
  local day, month, year, clock = text:match("^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d:%d%d:%d%d) GMT$")
  month = month_numbers[month]
  return month and time.parse(("%s-%02d-%sT%sZ"):format(year, month, day, clock))
end

return date

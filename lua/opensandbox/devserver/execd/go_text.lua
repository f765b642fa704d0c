--- Instants and durations as Go's library writes them, and so execd.

local go_text = {}

--- Go's zero time, for an instant that is not known.
go_text.ZERO_TIME = "0001-01-01T00:00:00Z"

--- Writes an instant: up to nine digits of a fraction, without trailing zeros.
---@param seconds? number since 1970
---@param nanoseconds? integer the fraction; that of `seconds`, in microseconds, when it is absent
---@return string? text nil for no instant
function go_text.instant(seconds, nanoseconds)
  if not seconds then return nil end
  local whole = math.floor(seconds)
  nanoseconds = nanoseconds or math.floor((seconds - whole) * 1e6 + 0.5) * 1000
  if nanoseconds >= 1e9 then whole, nanoseconds = whole + 1, 0 end
  local fraction = nanoseconds > 0 and (".%09.0f"):format(nanoseconds):gsub("0+$", "") or ""
  return os.date("!%Y-%m-%dT%H:%M:%S", whole) .. fraction .. "Z"
end

--- Writes a duration: 500ms, 1.5s, 1m0s, 1h0m0s.
---@param milliseconds integer
---@return string
function go_text.duration(milliseconds)
  if milliseconds < 1000 then return ("%.0fms"):format(milliseconds) end
  local minutes, rest = math.floor(milliseconds / 60000), milliseconds % 60000
  local text = ("%.0f"):format(math.floor(rest / 1000))
  if rest % 1000 > 0 then text = text .. ("." .. ("%03.0f"):format(rest % 1000)):gsub("0+$", "") end
  text = text .. "s"
  if minutes > 0 then text = ("%.0fm"):format(minutes % 60) .. text end
  return minutes >= 60 and ("%.0fh"):format(math.floor(minutes / 60)) .. text or text
end

return go_text

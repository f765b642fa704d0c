--- The table of the results: a row for each figure, ours beside curl's, and the bound it has to meet.

local statistics = require "bench.statistics"

local Report = {}
Report.__index = Report

local LAYOUT = "%-52s %9s %9s %9s %9s %7s  %-13s %s"

local function shown(value)
  if not value then return "-" end
  local size = math.abs(value)
  return (size >= 100 and "%.0f" or size >= 10 and "%.1f" or size >= 1 and "%.2f" or "%.3f"):format(value)
end

local function emit(...)
  local line = LAYOUT:format(...):gsub("%s+$", "")
  print(line)
end

function Report.heading(_, title)
  print("")
  emit(title, "ours", "", "curl", "", "ratio", "", "")
  emit("", "best", "median", "best", "median", "best", "bound", "")
end

-- The bound as text, the value it is for, and whether that meets it.
local function judge(row, best, ratio)
  if row.at_most then return "<= " .. row.at_most, best, best <= row.at_most end
  if row.ratio_at_least then return ">= " .. row.ratio_at_least .. " x curl", ratio, ratio >= row.ratio_at_least end
  return "", nil, true
end

--- Adds a row. `name`, `unit`, `ours` and `curl` (lists of values; curl's may be nil), `more_is_better`; a bound for our best value:
--- `at_most`, or `ratio_at_least` times curl's best.
function Report:row(row)
  local best, curl_best = statistics.best(row.ours, row.more_is_better), nil
  if row.curl then curl_best = statistics.best(row.curl, row.more_is_better) end
  local ratio = curl_best and curl_best ~= 0 and best / curl_best or nil
  local bound, value, met = judge(row, best, ratio)
  local name = ("%s, %s"):format(row.name, row.unit)
  emit("  " .. name, shown(best), shown(statistics.median(row.ours)), shown(curl_best),
    row.curl and shown(statistics.median(row.curl)) or "-", ratio and ("%.2f"):format(ratio) or "-", bound,
    met and (bound ~= "" and "ok" or "") or "MISSED")
  io.stdout:flush()
  if not met then self.missed[#self.missed + 1] = ("%s: %s, bound %s"):format(name, shown(value), bound) end
end

function Report.note(_, text)
  print("  " .. text)
end

--- The closing words; true when every bound was met.
function Report:close()
  print("")
  for _, text in ipairs(self.missed) do print("MISSED  " .. text) end
  if #self.missed == 0 then print("Every bound is met.") end
  return #self.missed == 0
end

return { new = function() return setmetatable({ missed = {} }, Report) end }

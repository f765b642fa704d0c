--- The table of the results: a row for each figure, ours beside another program's, and the bound it has to meet.

local statistics = require "bench.statistics"

local Report = {}
Report.__index = Report

local shown = statistics.shown

local LAYOUT = "%-52s %9s %9s %9s %9s %7s  %-13s %s"

local function emit(...)
  local line = LAYOUT:format(...):gsub("%s+$", "")
  print(line)
end

--- Begins a part. `other`: whose figures stand beside ours in it (default curl).
function Report:heading(title, other)
  self.other = other or "curl"
  print("")
  emit(title, "ours", "", self.other, "", "ratio", "", "")
  emit("", "best", "median", "best", "median", "best", "bound", "")
end

-- The bound as text, the value it is for, and whether that meets it.
local function judge(row, best, ratio, other)
  if row.at_most then return "<= " .. row.at_most, best, best <= row.at_most end
  if row.ratio_at_most then return ("<= %g x %s"):format(row.ratio_at_most, other), ratio, ratio <= row.ratio_at_most end
  if row.ratio_at_least then return (">= %g x %s"):format(row.ratio_at_least, other), ratio, ratio >= row.ratio_at_least end
  return "", nil, true
end

--- Adds a row. `name`, `unit`, `ours` and `other` (lists of values; the other's may be nil), `more_is_better`; a bound for our best value:
--- `at_most`, or `ratio_at_least` or `ratio_at_most` times the other's best.
function Report:row(row)
  local best, other_best = statistics.best(row.ours, row.more_is_better), nil
  if row.other then other_best = statistics.best(row.other, row.more_is_better) end
  local ratio = other_best and other_best ~= 0 and best / other_best or nil
  local bound, value, met = judge(row, best, ratio, self.other)
  local name = ("%s, %s"):format(row.name, row.unit)
  emit("  " .. name, shown(best), shown(statistics.median(row.ours)), shown(other_best),
    row.other and shown(statistics.median(row.other)) or "-", ratio and ("%.2f"):format(ratio) or "-", bound,
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

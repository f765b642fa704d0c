--- Best, median and percentiles of a list of numbers, and how a number is shown.

local statistics = {}

local function sorted(values)
  local copy = {}
  for index, value in ipairs(values) do copy[index] = value end
  table.sort(copy)
  return copy
end

--- The value below which the given share (0 to 1) of the values lies; one of the values themselves.
function statistics.quantile(values, share)
  local copy = sorted(values)
  return copy[math.max(math.ceil(share * #copy), 1)]
end

function statistics.median(values)
  return statistics.quantile(values, 0.5)
end

--- The smallest value, or the largest where more is better.
function statistics.best(values, more_is_better)
  local copy = sorted(values)
  return more_is_better and copy[#copy] or copy[1]
end

--- A figure as text, with three digits or so; "-" for none.
function statistics.shown(value)
  if not value then return "-" end
  local size = math.abs(value)
  return (size >= 100 and "%.0f" or size >= 10 and "%.1f" or size >= 1 and "%.2f" or "%.3f"):format(value)
end

return statistics

--- A picture of figures: an SVG with a group of horizontal bars for each row, the longest of a group as wide as the picture.

local statistics = require "bench.statistics"

local chart = {}

local WIDTH, LABEL, BAR, GAP, HEADER = 860, 250, 14, 16, 64 -- pixels
local COLOURS = { "#2b6cb0", "#b7791f", "#718096", "#a0aec0" }

local function escape(text)
  return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

local function text(x, y, value, more)
  return ('<text x="%d" y="%d" %s>%s</text>'):format(x, y, more or "", escape(value))
end

--- Writes the picture. The colours follow the reader's dark or light background.
---@param path string
---@param names string[] of the compared programs
---@param rows table[] `title`, `unit` and `values` by the place in `names`; a value may be missing
function chart.write(path, names, rows)
  local parts, y = {}, HEADER
  local room = WIDTH - LABEL - 90
  for _, row in ipairs(rows) do
    local longest = 0
    for index = 1, #names do longest = math.max(longest, row.values[index] or 0) end
    parts[#parts + 1] = text(0, y + BAR - 2, row.title, 'font-weight="600"')
    parts[#parts + 1] = text(0, y + 2 * BAR, row.unit, 'opacity="0.7"')
    for index = 1, #names do
      local value = row.values[index]
      if value then
        local width = math.max(value / longest * room, 1)
        parts[#parts + 1] = ('<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>'):format(LABEL, y, width, BAR - 2,
          COLOURS[index])
        parts[#parts + 1] = text(math.floor(LABEL + width + 6), y + BAR - 3, statistics.shown(value))
        y = y + BAR
      end
    end
    y = y + GAP
  end
  local legend, x = {}, LABEL
  for index, name in ipairs(names) do
    legend[#legend + 1] = ('<rect x="%d" y="28" width="12" height="12" fill="%s"/>'):format(x, COLOURS[index])
    legend[#legend + 1] = text(x + 18, 38, name)
    x = x + 30 + 7 * #name
  end
  local file = assert(io.open(path, "w"))
  file:write(('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '):format(WIDTH, y, WIDTH, y),
    'font-family="sans-serif" font-size="12" fill="#1a202c">\n',
    "<style>@media (prefers-color-scheme: dark) { text { fill: #e2e8f0 } }</style>\n",
    text(0, 16, ("Shorter is better; %s"):format(os.date "!%Y-%m-%d")), "\n",
    table.concat(legend, "\n"), "\n", table.concat(parts, "\n"), "\n</svg>\n")
  file:close()
end

return chart

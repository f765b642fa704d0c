--- A table as text: columns of the width that their cells need, within the width of the terminal.
--
-- If the columns do not fit, those that may be cut are cut. If that does not suffice, each row becomes a paragraph of lines "NAME: cell", so
-- that ids stay whole and can be copied.

local printable = require "opensandbox.base.printable"

local GAP = "  "
local MIN_WIDTH = 8   -- columns of a cell that is cut
local MAX_CELL = 1000 -- bytes

-- Returns the number of characters of a text. Each is taken for one column wide.
local function width_of(text)
  return #text:gsub("[\128-\191]", "")
end

-- Returns the text with spaces up to a width, or the beginning of a longer one.
local function fit(text, width)
  local missing = width - width_of(text)
  if missing >= 0 then return text .. (" "):rep(missing) end
  local kept, position = 0, 1
  while kept < width - 2 do
    position = text:find("[^\128-\191]", position + 1)
    kept = kept + 1
  end
  return text:sub(1, position - 1) .. ".."
end

-- Reduces the widths of the columns that may be cut until the row fits. Returns whether it fits.
local function reduce(columns, widths, excess)
  while excess > 0 do
    local widest
    for index, column in ipairs(columns) do
      local may_shrink = column.may_cut and widths[index] > MIN_WIDTH
      if may_shrink and (not widest or widths[index] > widths[widest]) then widest = index end
    end
    if not widest then return false end
    widths[widest] = widths[widest] - 1
    excess = excess - 1
  end
  return true
end

-- Returns the rows as paragraphs.
local function paragraphs(columns, rows, paint)
  local lines, longest = {}, 0
  for _, column in ipairs(columns) do longest = math.max(longest, #column.title) end
  for number, row in ipairs(rows) do
    if number > 1 then lines[#lines + 1] = "" end
    for index, column in ipairs(columns) do
      if row[index] ~= "" then
        lines[#lines + 1] = ("%-" .. longest + 1 .. "s %s"):format(column.title .. ":", paint(column, row[index], row[index]))
      end
    end
  end
  return table.concat(lines, "\n") .. (#lines > 0 and "\n" or "")
end

---@class opensandbox.cli.Column
---@field title string
---@field may_cut? boolean its cells can be cut if the terminal is narrow
---@field color? fun(text: string): string? returns the name of a color for a cell

--- Lays out rows.
---@param columns opensandbox.cli.Column[]
---@param rows string[][] foreign text is made printable
---@param terminal_width? integer default: no limit
---@param paint fun(color: string?, text: string): string
---@return string text ends with a newline
return function(columns, rows, terminal_width, paint)
  local widths, total = {}, (#columns - 1) * #GAP
  for index, column in ipairs(columns) do widths[index] = #column.title end
  local cells = {}
  for number, row in ipairs(rows) do
    cells[number] = {}
    for index in ipairs(columns) do
      local cell = printable(tostring(row[index] == nil and "" or row[index]), MAX_CELL)
      cells[number][index] = cell
      widths[index] = math.max(widths[index], width_of(cell))
    end
  end
  local function painted(column, cell, text)
    return paint(column.color and column.color(cell), text)
  end
  for _, width in ipairs(widths) do total = total + width end
  if terminal_width and not reduce(columns, widths, total - terminal_width) then return paragraphs(columns, cells, painted) end
  local lines = {}
  local function add(row, is_title)
    local parts = {}
    for index, column in ipairs(columns) do
      local text = fit(row[index], widths[index])
      if index == #columns then text = text:gsub(" +$", "") end
      parts[index] = is_title and paint("bold", text) or painted(column, row[index], text)
    end
    lines[#lines + 1] = table.concat(parts, GAP)
  end
  local titles = {}
  for index, column in ipairs(columns) do titles[index] = column.title end
  add(titles, true)
  for _, row in ipairs(cells) do add(row) end
  return table.concat(lines, "\n") .. "\n"
end

--- Copies of tables, and lists of their keys.

local each = require "opensandbox.base.each"

local tables = {}

--- Returns a new table with the entries of all given tables. Later entries replace earlier ones.
---@param ... table? nil counts as an empty table
---@return table
function tables.merge(...)
  local merged = {}
  for i = 1, select("#", ...) do
    for name, value in each((select(i, ...)) or {}) do merged[name] = value end
  end
  return merged
end

--- Returns a new list with the items of another.
---@param list? any[] nil counts as an empty list
---@return any[]
function tables.copy_list(list)
  local copy = {}
  for i, item in ipairs(list or {}) do copy[i] = item end
  return copy
end

--- Returns a list of the keys of a table: while the list is traversed, the table may change.
---@param map table
---@return any[]
function tables.keys(map)
  local list = {}
  for key in each(map) do list[#list + 1] = key end
  return list
end

--- Returns the sorted list of the keys of a table, which are all strings, or all numbers.
---@param map table
---@return any[]
function tables.sorted_keys(map)
  local list = tables.keys(map)
  table.sort(list)
  return list
end

return tables

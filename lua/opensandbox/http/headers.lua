--- What may stand in a request's header.

local headers = {}

--- What is wrong with a header, or nil.
---@return string?
function headers.problem(name, value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    return ("'%s' is not a header name"):format(tostring(name))
  end
  if type(value) ~= "string" or value:find("%c") then
    return ("the value of header %s is not a string without control characters"):format(name)
  end
end

--- What is wrong with any header of a table, or nil.
---@return string?
function headers.problem_in(all)
  for name, value in pairs(all) do
    local problem = headers.problem(name, value)
    if problem then return problem end
  end
end

--- A new table with the headers of all given. Later ones win, however their names are written.
function headers.merge(...)
  local merged, spelled = {}, {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do
      local before = spelled[name:lower()]
      if before then merged[before] = nil end
      merged[name], spelled[name:lower()] = value, name
    end
  end
  return merged
end

return headers

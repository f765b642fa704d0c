--- Which options of the client's methods were used: it listens to the checks that all option tables pass.
--
-- Must be loaded before the client, and only once.

local options = require "opensandbox.base.options"

local options_used = {}

local seen = {} -- by known table: { op, used = { name = true } }

local check = options.check
function options.check(op, given, known)
  seen[known] = seen[known] or { op = op, used = {} }
  for name in pairs(given or {}) do seen[known].used[name] = true end
  return check(op, given, known)
end

--- Returns the options that no call has had, as "method: option", sorted.
---@param methods table<string, true> only theirs
---@return string[]
function options_used.unused(methods)
  local list = {}
  for known, record in pairs(seen) do
    for name in pairs(methods[record.op] and known or {}) do
      if not record.used[name] then list[#list + 1] = record.op .. ": " .. name end
    end
  end
  table.sort(list)
  return list
end

return options_used

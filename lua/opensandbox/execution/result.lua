--- The results of executions, as print() shows them.

local numbers = require "opensandbox.base.numbers"
local printable = require "opensandbox.base.printable"

local MAX_SHOWN = 200 -- bytes of each stream

local Result = {}

function Result:__tostring()
  local parts = {}
  if self.timed_out then
    parts[1] = "timed out"
  elseif self.signal then
    parts[1] = "signal " .. tostring(self.signal)
  elseif self.exit_code then
    parts[1] = "exit code " .. numbers.format(self.exit_code)
  end
  for _, name in ipairs { "text", "stdout", "stderr" } do
    local text = self[name]
    if type(text) == "string" and text ~= "" then parts[#parts + 1] = ('%s "%s"'):format(name, printable(text, MAX_SHOWN)) end
  end
  if type(self.error) == "table" and not self.exit_code then
    parts[#parts + 1] = "error " .. printable(tostring(self.error.value), MAX_SHOWN)
  end
  return (self.results and "opensandbox.CodeResult: " or "opensandbox.CommandResult: ") .. table.concat(parts, ", ")
end

--- Gives a result its text for print() and tostring().
---@param result table
---@return table result
return function(result)
  return setmetatable(result, Result)
end

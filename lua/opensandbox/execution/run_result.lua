--- Results of executions: plain tables that print as one line.

local numbers = require "opensandbox.base.numbers"

local MAX_SHOWN = 200 -- bytes of an output

local Result = {}

local function shown(text)
  local is_long = #text > MAX_SHOWN
  text = text:sub(1, MAX_SHOWN):gsub("[%c\\\"\128-\255]", function(c)
    return c == "\n" and "\\n" or c:byte() > 127 and c or ("\\%03d"):format(c:byte())
  end)
  return ("\"%s%s\""):format(text, is_long and "..." or "")
end

function Result:__tostring()
  local parts = {}
  if self.exit_code then parts[#parts + 1] = ("exit code %d"):format(self.exit_code) end
  if self.signal then parts[#parts + 1] = "signal " .. tostring(self.signal) end
  if self.timed_out then parts[#parts + 1] = "timed out" end
  if self.error then parts[#parts + 1] = "error " .. shown(tostring(self.error.value)) end
  if self.text then parts[#parts + 1] = "text " .. shown(self.text) end
  if self.stdout ~= "" then parts[#parts + 1] = "stdout " .. shown(self.stdout) end
  if self.stderr ~= "" then parts[#parts + 1] = "stderr " .. shown(self.stderr) end
  parts[#parts + 1] = numbers.format(math.floor(self.duration * 1000 + 0.5) / 1000) .. " s"
  return "opensandbox result: " .. table.concat(parts, ", ")
end

--- Makes a result of its fields.
---@param fields table stdout, stderr, duration, and the others of opensandbox.CommandResult or opensandbox.CodeResult
---@return table result
return function(fields)
  return setmetatable(fields, Result)
end

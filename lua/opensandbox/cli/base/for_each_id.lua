--- The same operation on several sandboxes, commands or snapshots, several at a time. A failure does not stop the others.

local error_text = require "opensandbox.cli.base.error_text"
local failure = require "opensandbox.cli.base.failure"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"

--- Does the operation, prints the id of each one for which it succeeded, and each error.
---@param ids string[]
---@param operation fun(id: string): any, opensandbox.Error?
---@return integer exit code
return function(ids, operation)
  local results, errors = opensandbox.map(ids, operation)
  if not results then error(errors, 0) end
  local failed = false
  for index, id in ipairs(ids) do
    if errors and errors[index] then
      failed = true
      output.note(("%s: %s"):format(id, error_text.of(errors[index])), "red")
    else
      output.write(id .. "\n")
    end
  end
  return failed and failure.EXIT.FAILED or 0
end

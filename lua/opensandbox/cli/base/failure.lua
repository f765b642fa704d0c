--- How a subcommand fails: it raises one of these values, and the program exits with its code.
--
-- Errors of the library and texts that Lua raised are the other two kinds of values that can be raised.

local failure = {}

--- The exit codes of the program. `run`, `exec` and `shell` exit with the code of the command; 128 and the number of the signal if a signal
--- ended it.
failure.EXIT = {
  FAILED = 1,            -- the operation failed
  USAGE = 2,             -- wrong arguments
  TIMEOUT = 124,         -- a time limit of the user ran out, as with timeout(1)
  CANNOT_RUN = 125,      -- `run`, `exec` and `shell`: opensandbox failed itself, so this is no code of the command
  SIGNAL = 128,          -- and the number of the signal that ended the command or this program
  CLOSED_OUTPUT = 141,   -- the reader of the output has closed it
}

---@class opensandbox.cli.Failure
---@field exit integer
---@field message? string nil: nothing is printed
---@field is_usage? boolean

local Failure = {}
Failure.__index = Failure

function Failure:__tostring() return self.message or "" end

--- Raises a failure.
---@param exit integer
---@param message? string
function failure.raise(exit, message)
  error(setmetatable({ exit = exit, message = message }, Failure), 0)
end

--- Raises a failure for wrong arguments.
---@param message string
function failure.usage(message)
  error(setmetatable({ exit = failure.EXIT.USAGE, message = message, is_usage = true }, Failure), 0)
end

--- Returns whether a value is a failure.
---@param value any
---@return boolean
function failure.is(value)
  return getmetatable(value) == Failure
end

--- Returns the text of an error that the library raised about an argument, without the position in its source and without the method.
---@param value any the raised error
---@return string? problem nil for any other error
function failure.argument_problem(value)
  if type(value) ~= "string" then return nil end
  return value:match("^[^\n]-:%d+: [%w_.]+:?[%w_]*: (.+)$") or value:match("^[%l_]+:?[%l_]*: (.+)$")
end

return failure

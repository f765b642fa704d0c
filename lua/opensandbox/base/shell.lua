--- Quoting for a POSIX shell.

local options = require "opensandbox.base.options"

local shell = {}

--- Quotes one argument, so that the shell passes its bytes unchanged.
--- ```lua
--- sandbox:run("ls -l " .. opensandbox.quote("/work/a directory") .. " | wc -l")
--- ```
---@param argument string
---@return string
function shell.quote(argument)
  if type(argument) ~= "string" then argument = options.argument("quote", "the argument", argument, "text") end
  if argument:find("^[%w@%%+=:,./_-]+$") then return argument end
  return "'" .. argument:gsub("'", "'\\''") .. "'"
end

--- Returns the command line of a program and its arguments.
---@param argv string[]
---@return string
function shell.join(argv)
  local quoted = {}
  for i, argument in ipairs(argv) do quoted[i] = shell.quote(argument) end
  return table.concat(quoted, " ")
end

return shell

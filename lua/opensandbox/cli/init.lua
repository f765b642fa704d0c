--- The program `opensandbox`: reads its arguments, loads the one subcommand, runs it as a task, and cleans up after it.
--
-- A file of command/ returns a table:
--   declare(parser)  adds its arguments and options to a parser of argparse
--   run(context)     does the work; returns the exit code, nil for 0; raises errors
--   example          an example for its help
--   is_local         it needs no server, so it runs without a task and without the library
--   has_no_result    it prints no result of its own, so it has no option --output
--   runs_command     it exits with the code of a command, so its own failures have a code of their own

require "opensandbox.intree" -- first, because the other files need the core
local core = require "opensandbox.core"
assert(core.open_standard_streams()) -- before any file is opened
assert(core.default_signal "INT") -- until session.lua catches it, there is nothing to clean up

local arguments = require "opensandbox.cli.arguments"
local failure = require "opensandbox.cli.base.failure"
local lazy = require "opensandbox.base.lazy"
local output = require "opensandbox.cli.base.output"

local parts = lazy.modules { error_text = "opensandbox.cli.base.error_text" }

local cli = {}

-- Prints an error that a subcommand raised, or that the arguments caused: then there is no name and no command. Returns the exit code.
local function report(value, name, command)
  local prefix = name and name .. ": " or ""
  local exit = command and command.runs_command and failure.EXIT.CANNOT_RUN or failure.EXIT.FAILED
  if failure.is(value) then
    if value.message then output.note(value.message, "red") end
    if value.is_usage then output.note(("'opensandbox %s--help' shows the arguments"):format(name and name .. " " or "")) end
    return value.exit == failure.EXIT.FAILED and exit or value.exit
  end
  if type(value) == "table" then -- an error of the library
    output.note(prefix .. parts.error_text.of(value), "red")
    return value.kind == "timeout" and not (command and command.runs_command) and failure.EXIT.TIMEOUT or exit
  end
  local problem = failure.argument_problem(value)
  output.note(prefix .. (problem or "internal error: " .. tostring(value)), "red")
  return problem and failure.EXIT.USAGE or exit
end

--- Runs the program.
---@param argv string[]
---@return integer exit code
function cli.main(argv)
  local ok, name, args, command = pcall(arguments.parse, argv)
  if not ok then return report(name) end
  if not command then return 0 end -- help was printed
  local context = { args = args, name = name, full_parser = arguments.full_parser }
  local value
  if command.is_local then
    ok, value = pcall(command.run, context)
  else
    local session
    ok, session = pcall(require, "opensandbox.cli.session")
    if ok then ok, value = session.run(command, context) else value = session end
  end
  if ok then return value or 0 end
  return report(value, name, command)
end

return cli

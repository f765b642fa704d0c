--- `opensandbox exec`: a command in an existing sandbox.

local command_arguments = require "opensandbox.cli.base.command_arguments"
local failure = require "opensandbox.cli.base.failure"
local terminal_arguments = require "opensandbox.cli.base.terminal_arguments"
local values = require "opensandbox.cli.base.values"

local exec = { example = "opensandbox exec SANDBOX -- ls -l /work", runs_command = true, has_no_result = true }

function exec.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  command_arguments.declare_command(parser, "*")
  parser:option("-e --env", "Environment variable; NAME alone takes ours."):argname "NAME=VALUE":count "*":convert(values.variable)
  command_arguments.declare(parser)
  command_arguments.declare_streams(parser)
  terminal_arguments.declare(parser)
end

function exec.run(context)
  local args = context.args
  if args.terminal then
    terminal_arguments.check(args)
    local opts = { command = command_arguments.command(args.command), cwd = args.cwd, env = values.map(args.env) }
    return terminal_arguments.run(context:sandbox(args.sandbox), opts) or 0
  end
  if #args.command == 0 then failure.usage("a command is missing: opensandbox exec SANDBOX -- COMMAND") end
  return command_arguments.run(context:sandbox(args.sandbox), args, args.env)
end

return exec

--- `opensandbox exec`: a command in an existing sandbox.

local command_arguments = require "opensandbox.cli.base.command_arguments"
local values = require "opensandbox.cli.base.values"

local exec = { example = "opensandbox exec SANDBOX -- ls -l /work", runs_command = true }

function exec.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  command_arguments.declare_command(parser, "+")
  parser:option("-e --env", "Environment variable; NAME alone takes ours."):argname "NAME=VALUE":count "*":convert(values.variable)
  command_arguments.declare(parser)
  command_arguments.declare_streams(parser)
end

function exec.run(context)
  local args = context.args
  return command_arguments.run(context:sandbox(args.sandbox), args, args.env)
end

return exec

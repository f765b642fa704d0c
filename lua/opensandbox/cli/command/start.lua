--- `opensandbox start`: a command in the background.

local check = require "opensandbox.cli.base.check"
local command_arguments = require "opensandbox.cli.base.command_arguments"
local output = require "opensandbox.cli.base.output"
local values = require "opensandbox.cli.base.values"

local start = { example = "opensandbox start SANDBOX -- npm run dev" }

function start.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  command_arguments.declare_command(parser, "+")
  parser:option("-e --env", "Environment variable; NAME alone takes ours."):argname "NAME=VALUE":count "*":convert(values.variable)
  command_arguments.declare(parser)
end

function start.run(context)
  local args = context.args
  local sandbox = context:sandbox(args.sandbox)
  local opts = command_arguments.options(args, args.env)
  local command = check(sandbox:start(command_arguments.command(args.command), opts))
  if context:wants_json() then
    output.json { id = command.id, sandbox_id = sandbox.id }
  else
    output.write(command.id .. "\n")
  end
end

return start

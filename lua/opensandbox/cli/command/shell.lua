--- `opensandbox shell`: a shell of a sandbox in our terminal.

local failure = require "opensandbox.cli.base.failure"
local terminal_arguments = require "opensandbox.cli.base.terminal_arguments"
local values = require "opensandbox.cli.base.values"

local shell = { example = "opensandbox shell SANDBOX", runs_command = true, has_no_result = true }

function shell.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:option("-e --env", "Environment variable; NAME alone takes ours."):argname "NAME=VALUE":count "*":convert(values.variable)
  parser:option("-w --cwd", "Directory in which the shell starts."):argname "DIR"
  parser:option("--attach", "Attach to a terminal that was detached with Ctrl-P Ctrl-Q."):argname "TERMINAL"
end

function shell.run(context)
  local args = context.args
  terminal_arguments.check(args)
  if args.attach and (args.cwd or #args.env > 0) then failure.usage("--attach does not go with -e and -w") end
  local opts = args.attach and { id = args.attach, takeover = true } or { cwd = args.cwd, env = values.map(args.env) }
  return terminal_arguments.run(context:sandbox(args.sandbox), opts) or 0
end

return shell

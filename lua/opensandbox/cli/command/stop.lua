--- `opensandbox stop`: ends commands in the background.

local for_each_id = require "opensandbox.cli.base.for_each_id"

local stop = { example = "opensandbox stop SANDBOX COMMAND", has_no_result = true }

function stop.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:argument("commands", "Ids of commands, of start."):argname "COMMAND":args "+"
end

function stop.run(context)
  local sandbox = context:sandbox(context.args.sandbox)
  return for_each_id(context.args.commands, function(id) return sandbox:command(id):kill() end)
end

return stop

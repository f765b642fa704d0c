--- `opensandbox logs`: the output of a command in the background.

local check = require "opensandbox.cli.base.check"
local output = require "opensandbox.cli.base.output"
local values = require "opensandbox.cli.base.values"

local logs = { example = "opensandbox logs -f SANDBOX COMMAND", has_no_result = true }

function logs.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:argument("command", "Id of the command, of start."):argname "COMMAND"
  parser:flag("-f --follow", "Continue until the command ends.")
  parser:option("--cursor", "Byte offset at which to begin. Default: 0."):argname "BYTES":convert(values.natural)
end

function logs.run(context)
  local args = context.args
  local command = context:sandbox(args.sandbox):command(args.command)
  if args.follow then
    local events = command:events { cursor = args.cursor }
    local event, err = events:next()
    while event do
      if event.text then output.write(event.text) end
      event, err = events:next()
    end
    if err then error(err, 0) end
    return
  end
  local text, cursor = check(command:logs(args.cursor))
  while text ~= "" do
    output.write(text)
    text, cursor = check(command:logs(cursor))
  end
end

return logs

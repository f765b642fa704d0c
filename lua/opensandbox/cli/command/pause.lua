--- `opensandbox pause`

local each_sandbox = require "opensandbox.cli.base.each_sandbox"
local values = require "opensandbox.cli.base.values"

local pause = { example = "opensandbox pause SANDBOX" }

function pause.declare(parser)
  parser:argument("sandboxes", "Ids of sandboxes."):argname "SANDBOX":args "+"
  parser:option("--timeout", "How long to wait for it."):argname "DURATION":convert(values.duration)
end

function pause.run(context)
  return each_sandbox(context.args.sandboxes, function(id)
    return context:sandbox(id):pause { timeout = context.args.timeout }
  end)
end

return pause

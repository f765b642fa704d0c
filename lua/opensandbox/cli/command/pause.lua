--- `opensandbox pause`

local for_each_id = require "opensandbox.cli.base.for_each_id"
local values = require "opensandbox.cli.base.values"

local pause = { example = "opensandbox pause SANDBOX" }

function pause.declare(parser)
  parser:argument("sandboxes", "Ids of sandboxes."):argname "SANDBOX":args "+"
  parser:option("--timeout", "How long to wait for it."):argname "DURATION":convert(values.duration)
end

function pause.run(context)
  return for_each_id(context.args.sandboxes, function(id)
    return context:sandbox(id):pause { timeout = context.args.timeout }
  end)
end

return pause

--- `opensandbox resume`

local for_each_id = require "opensandbox.cli.base.for_each_id"
local values = require "opensandbox.cli.base.values"

local resume = { example = "opensandbox resume SANDBOX" }

function resume.declare(parser)
  parser:argument("sandboxes", "Ids of sandboxes."):argname "SANDBOX":args "+"
  parser:option("--timeout", "How long to wait for it."):argname "DURATION":convert(values.duration)
end

function resume.run(context)
  return for_each_id(context.args.sandboxes, function(id)
    return context:sandbox(id):resume { timeout = context.args.timeout }
  end)
end

return resume

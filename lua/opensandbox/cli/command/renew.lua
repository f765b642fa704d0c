--- `opensandbox renew`

local check = require "opensandbox.cli.base.check"
local output = require "opensandbox.cli.base.output"
local show = require "opensandbox.cli.base.show"
local values = require "opensandbox.cli.base.values"

local renew = { example = "opensandbox renew SANDBOX 30m" }

function renew.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:argument("lifetime", "Its new lifetime, from now: 90s, 10m, 1h30m."):argname "DURATION":convert(values.duration)
end

function renew.run(context)
  local expires_at = check(context:client():renew_sandbox(context.args.sandbox, context.args.lifetime))
  if context:wants_json() then
    output.json { id = context.args.sandbox, expires_at = expires_at }
  else
    output.write("expires " .. show.instant(expires_at) .. "\n")
  end
end

return renew

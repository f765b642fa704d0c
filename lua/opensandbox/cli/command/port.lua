--- `opensandbox port`: the URL of a port of a sandbox.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local output = require "opensandbox.cli.base.output"
local values = require "opensandbox.cli.base.values"

local port = { example = "opensandbox port SANDBOX 8080" }

function port.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:argument("port", "The port."):argname "PORT":convert(values.port)
  parser:option("--signed", "Ask for a URL that is valid for some time without headers."):argname "DURATION"
    :convert(values.duration)
end

function port.run(context)
  local args = context.args
  local opts = { expires = args.signed and math.floor(core.wall_clock() + args.signed) }
  local endpoint = check(context:sandbox(args.sandbox):endpoint(args.port, opts))
  if context:wants_json() then return output.json(endpoint) end
  output.write(endpoint.url .. "\n")
  for name, value in each(endpoint.headers) do output.note(("requests need the header %s: %s"):format(name, value)) end
end

return port

--- The options of a new sandbox, which `create` and `run` share.

local failure = require "opensandbox.cli.base.failure"
local opensandbox = require "opensandbox"
local values = require "opensandbox.cli.base.values"

local create_arguments = {}

--- Declares the options.
---@param parser table of argparse
---@param lifetime string the names of the option for the lifetime
function create_arguments.declare(parser, lifetime)
  parser:option("-e --env", "Environment variable of the sandbox; NAME alone takes ours."):argname "NAME=VALUE":count "*"
    :convert(values.variable)
  parser:option("-m --metadata", "Metadata, for example for filters."):argname "NAME=VALUE":count "*":convert(values.pair)
  parser:option(lifetime, "Lifetime of the sandbox: 90s, 10m, 1h30m, never. Default: 10m."):argname "DURATION":target "lifetime"
    :convert(values.lifetime)
  parser:option("--cpu", "Limit of processors. Default: 1."):argname "COUNT"
  parser:option("--memory", "Limit of memory. Default: 2Gi."):argname "SIZE"
  parser:option("--allow", "Host or preset (pypi, npm, github ...) that the sandbox can reach; all others are denied.")
    :argname "HOST":count "*"
  parser:option("--entrypoint", "A word of the sandbox's main process; repeat it for each. Default: one that only waits.")
    :argname "WORD":count "*"
end

local function limits(args)
  if not args.cpu and not args.memory then return nil end
  return { cpu = args.cpu or "1", memory = args.memory or "2Gi" }
end

--- Returns the options for client:create.
---@param args table
---@return opensandbox.CreateOpts
function create_arguments.options(args)
  local policy
  if #args.allow > 0 then
    local ok, value = pcall(opensandbox.egress.only, args.allow)
    if not ok then failure.usage(failure.argument_problem(value) or tostring(value)) end
    policy = value
  end
  local lifetime = args.lifetime
  if lifetime == "never" then lifetime = false end
  return {
    image = args.image, env = values.map(args.env), metadata = values.map(args.metadata), timeout = lifetime,
    resource_limits = limits(args), network_policy = policy, entrypoint = #args.entrypoint > 0 and args.entrypoint or nil,
  }
end

return create_arguments

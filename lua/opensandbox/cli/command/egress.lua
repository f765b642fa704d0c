--- `opensandbox egress`: the network policy of a running sandbox.

local check = require "opensandbox.cli.base.check"
local output = require "opensandbox.cli.base.output"

local egress = { example = "opensandbox egress SANDBOX --allow pypi --remove example.com" }

function egress.declare(parser)
  parser:argument("sandbox", "Id of the sandbox, which was created with --allow."):argname "SANDBOX"
  parser:option("--allow", "Host or preset (pypi, npm, github ...) that it can reach from now on."):argname "HOST":count "*"
  parser:option("--deny", "Host or preset that it cannot reach any more."):argname "HOST":count "*"
  parser:option("--remove", "Host or preset whose rule is removed."):argname "HOST":count "*"
end

function egress.run(context)
  local args = context.args
  local policies = context:sandbox(args.sandbox).egress
  for _, change in ipairs { "remove", "deny", "allow" } do
    if #args[change] > 0 then check(policies[change](policies, args[change])) end
  end
  local policy = check(policies:policy())
  if context:wants_json() then return output.json(policy) end
  local rows = {}
  for index, rule in ipairs(policy.egress) do rows[index] = { tostring(rule.action), tostring(rule.target or "") } end
  rows[#rows + 1] = { tostring(policy.default_action or ""), "everything else" }
  output.table({ { title = "ACTION" }, { title = "TARGET" } }, rows)
end

return egress

--- `opensandbox kill`

local check = require "opensandbox.cli.base.check"
local for_each_id = require "opensandbox.cli.base.for_each_id"
local failure = require "opensandbox.cli.base.failure"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"

local kill = { example = "opensandbox kill -m project=demo" }

function kill.declare(parser)
  parser:argument("sandboxes", "Ids of sandboxes."):argname "SANDBOX":args "*"
  sandbox_table.declare_filter(parser)
  parser:flag("--all", "All sandboxes that the key can see.")
end

function kill.run(context)
  local args, ids = context.args, context.args.sandboxes
  local filter = sandbox_table.filter(args)
  local is_filtered = filter.metadata or filter.states
  local ways = (#ids > 0 and 1 or 0) + (is_filtered and 1 or 0) + (args.all and 1 or 0)
  if ways ~= 1 then failure.usage("either ids of sandboxes, or filters, or --all is needed") end
  local client = context:client()
  if #ids == 0 then
    for index, info in ipairs(check(client:list_sandboxes(filter))) do ids[index] = info.id end
  end
  return for_each_id(ids, function(id) return client:delete_sandbox(id) end)
end

return kill

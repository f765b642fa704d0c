--- `opensandbox ls`

local check = require "opensandbox.cli.base.check"
local json = require "opensandbox.base.json"
local output = require "opensandbox.cli.base.output"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"

local ls = { example = "opensandbox ls --state Running -m project=demo" }

function ls.declare(parser)
  sandbox_table.declare_filter(parser)
  parser:flag("-q --quiet", "Print only the ids.")
end

function ls.run(context)
  local list = check(context:client():list_sandboxes(sandbox_table.filter(context.args)))
  if context.args.quiet then
    local ids = {}
    for index, info in ipairs(list) do ids[index] = info.id .. "\n" end
    output.write(table.concat(ids))
  elseif context:wants_json() then
    local plain = json.array {}
    for index, info in ipairs(list) do plain[index] = sandbox_table.plain(info) end
    output.json(plain)
  else
    sandbox_table.print(list)
  end
end

return ls

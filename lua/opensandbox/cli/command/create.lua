--- `opensandbox create`

local check = require "opensandbox.cli.base.check"
local create_arguments = require "opensandbox.cli.base.create_arguments"
local failure = require "opensandbox.cli.base.failure"
local output = require "opensandbox.cli.base.output"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"

local create = { example = "opensandbox create python:3.12 --lifetime 1h -m project=demo --allow pypi" }

function create.declare(parser)
  parser:argument("image", "Image of the sandbox."):argname "IMAGE":args "?"
  parser:option("--snapshot", "Snapshot to restore, instead of an image."):argname "ID"
  parser:option("--template", "Template to start from, instead of an image."):argname "ID"
  create_arguments.declare(parser, "--lifetime --timeout")
  parser:flag("--no-wait", "Do not wait until commands can run.")
end

function create.run(context)
  local args = context.args
  local sources = (args.image and 1 or 0) + (args.snapshot and 1 or 0) + (args.template and 1 or 0)
  if sources ~= 1 then
    failure.usage("an IMAGE, --snapshot or --template is needed, and only one")
  end
  local opts = create_arguments.options(args)
  opts.snapshot_id, opts.template_id = args.snapshot, args.template
  if args.no_wait then opts.wait = false end
  local sandbox = check(context:client():create(opts))
  if context:wants_json() then
    output.json(sandbox_table.plain(check(sandbox:info())))
  else
    output.write(sandbox.id .. "\n")
  end
  sandbox:detach() -- last: a sandbox whose id was not printed is deleted
end

return create

--- `opensandbox wait`

local check = require "opensandbox.cli.base.check"
local failure = require "opensandbox.cli.base.failure"
local output = require "opensandbox.cli.base.output"
local values = require "opensandbox.cli.base.values"

local wait = { example = "opensandbox wait SANDBOX --port 8080 --timeout 1m" }

function wait.declare(parser)
  parser:argument("sandbox", "Id of the sandbox. Without an option, wait until commands can run in it."):argname "SANDBOX"
  parser:option("--port", "Wait until a process listens on this port."):argname "PORT":convert(values.port)
  parser:option("--file", "Wait until this path exists."):argname "PATH"
  parser:option("--command", "Wait until this command in the background ends; its exit code is printed."):argname "COMMAND"
  parser:option("--timeout", "How long to wait; then the exit code is 124. Default: 30s, for a command no limit.")
    :argname "DURATION":convert(values.duration)
end

function wait.run(context)
  local args = context.args
  local opts, ways = { timeout = args.timeout }, 0
  for _, way in ipairs { "port", "file", "command" } do ways = ways + (args[way] and 1 or 0) end
  if ways > 1 then failure.usage("only one of --port, --file and --command can be waited for") end
  local sandbox = context:sandbox(args.sandbox)
  if args.port then
    check(sandbox:wait_for_port(args.port, opts))
  elseif args.file then
    if args.file == "" then failure.usage("the path is empty") end
    check(sandbox:wait_for_file(args.file, opts))
  elseif args.command then
    local ended = check(sandbox:command(args.command):wait(opts))
    if context:wants_json() then return output.json(ended) end
    output.write((ended.exit_code and ("%d"):format(ended.exit_code) or "unknown") .. "\n")
  else
    check(context:client():wait_ready(args.sandbox, opts))
  end
end

return wait

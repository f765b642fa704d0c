--- `opensandbox diagnose`: everything that the server knows about a sandbox. A part that the server does not have does not hide the others.

local error_text = require "opensandbox.cli.base.error_text"
local failure = require "opensandbox.cli.base.failure"
local output = require "opensandbox.cli.base.output"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"
local info_command = require "opensandbox.cli.command.info"

local diagnose = { example = "opensandbox diagnose SANDBOX" }

function diagnose.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
end

local function content(diagnostics)
  return diagnostics.content or diagnostics.content_url or ""
end

function diagnose.run(context)
  local client, id = context:client(), context.args.sandbox
  local found, failed = {}, {}
  local function ask(name, value, err)
    found[name], failed[name] = value, err and error_text.of(err) or nil
  end
  ask("info", client:get_sandbox(id))
  local execd, err = client:discover_execd(id)
  if execd then ask("execd", client:ping(execd)) else ask("execd", nil, err) end
  ask("events", client:get_diagnostic_events(id, "all"))
  ask("logs", client:get_diagnostic_logs(id, "all"))
  local exit = found.info and 0 or failure.EXIT.FAILED
  if context:wants_json() then
    output.json { info = found.info and sandbox_table.plain(found.info), execd_answers = found.execd or false,
      events = found.events, logs = found.logs, errors = next(failed) and failed or nil }
    return exit
  end
  if found.info then info_command.print(found.info) end
  output.facts { { "execd", found.execd and "answers" or nil, color = "green" } }
  for _, name in ipairs { "info", "execd", "events", "logs" } do
    if failed[name] then output.note(("%s: %s"):format(name, failed[name]), "red") end
  end
  for _, name in ipairs { "events", "logs" } do
    if found[name] then output.write(("\n%s:\n%s\n"):format(name, output.printable_lines(content(found[name])))) end
  end
  return exit
end

return diagnose

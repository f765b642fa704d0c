--- `opensandbox status`: commands in the background by their ids; without ids, the processes of a sandbox.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local error_text = require "opensandbox.cli.base.error_text"
local failure = require "opensandbox.cli.base.failure"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local output = require "opensandbox.cli.base.output"
local show = require "opensandbox.cli.base.show"

local status = { example = "opensandbox status SANDBOX COMMAND" }

-- execd has no list of its commands, and not every image has ps.
local PROCESSES = [[for d in /proc/[0-9]*; do
  c=$(tr '\0' ' ' <"$d/cmdline" 2>/dev/null) && [ -n "$c" ] && echo "${d#/proc/} $c"
done; :]]

local COMMANDS = {
  { title = "ID" }, { title = "STATE", color = function(state) return state == "running" and "green" or nil end },
  { title = "CODE" }, { title = "TIME" }, { title = "COMMAND", may_cut = true },
}

function status.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:argument("commands", "Ids of commands, of start. Without them, the processes of the sandbox are shown.")
    :argname "COMMAND":args "*"
end

local function print_processes(context, sandbox)
  local result = check(sandbox:run(PROCESSES))
  local rows, list = {}, json.array {}
  for pid, line in result.stdout:gmatch("(%d+) ([^\n]*)\n") do
    rows[#rows + 1] = { pid, line }
    list[#list + 1] = { pid = tonumber(pid), command = line }
  end
  if context:wants_json() then return output.json(list) end
  output.table({ { title = "PID" }, { title = "COMMAND", may_cut = true } }, rows)
end

local function row(id, found)
  local duration = found.started_at and (found.finished_at or core.wall_clock()) - found.started_at
  return { id, found.running and "running" or "ended", found.exit_code and ("%d"):format(found.exit_code) or "",
    duration and show.duration(duration) or "", found.command or "" }
end

function status.run(context)
  local sandbox, ids = context:sandbox(context.args.sandbox), context.args.commands
  if #ids == 0 then return print_processes(context, sandbox) end
  local rows, list, failed = {}, json.array {}, false
  local found, errors = opensandbox.map(ids, function(id) return sandbox:command(id):status() end)
  if not found then error(errors, 0) end
  for index, id in ipairs(ids) do
    if found[index] then
      rows[#rows + 1], list[#list + 1] = row(id, found[index]), found[index]
    else
      failed = true
      output.note(("%s: %s"):format(id, error_text.of(errors[index])), "red")
    end
  end
  if context:wants_json() then output.json(list) else output.table(COMMANDS, rows) end
  return failed and failure.EXIT.FAILED or 0
end

return status

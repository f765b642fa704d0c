--- `opensandbox info`

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local output = require "opensandbox.cli.base.output"
local sandbox_table = require "opensandbox.cli.base.sandbox_table"
local show = require "opensandbox.cli.base.show"

local info = { example = "opensandbox info SANDBOX -o json" }

function info.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
end

--- Prints the facts about a sandbox.
---@param facts opensandbox.SandboxInfo
function info.print(facts)
  local expiry = show.instant(facts.expires_at)
  local rest = show.until_then(facts.expires_at, core.wall_clock())
  output.facts {
    { "id", facts.id },
    { "state", facts.state, color = show.state_color(facts.state) },
    { "reason", facts.reason },
    { "message", facts.message },
    { "image", facts.image },
    { "snapshot", facts.snapshot_id },
    { "platform", facts.platform and ("%s/%s"):format(tostring(facts.platform.os), tostring(facts.platform.arch)) },
    { "entrypoint", type(facts.entrypoint) == "table" and table.concat(facts.entrypoint, " ") or nil },
    { "created", show.instant(facts.created_at) },
    { "expires", expiry and ("%s (%s)"):format(expiry, rest) or rest },
    { "metadata", show.metadata(facts.metadata) },
  }
end

function info.run(context)
  local facts = check(context:client():get_sandbox(context.args.sandbox))
  if context:wants_json() then output.json(sandbox_table.plain(facts)) else info.print(facts) end
end

return info

--- `opensandbox snapshot create`, `ls`, `info` and `rm`

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local for_each_id = require "opensandbox.cli.base.for_each_id"
local json = require "opensandbox.base.json"
local output = require "opensandbox.cli.base.output"
local show = require "opensandbox.cli.base.show"
local values = require "opensandbox.cli.base.values"

local snapshot = { example = "opensandbox snapshot create SANDBOX --name ready" }

local COLUMNS = {
  { title = "ID" }, { title = "STATE", color = show.state_color }, { title = "NAME", may_cut = true }, { title = "AGE" },
  { title = "SANDBOX", may_cut = true },
}

function snapshot.declare(_, add_action)
  local create = add_action("create", "make a snapshot of a sandbox, and wait until it is ready")
  create:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  create:option("--name", "Name of the snapshot."):argname "NAME"
  create:option("--timeout", "How long to wait. Default: 15m."):argname "DURATION":convert(values.duration)
  local ls = add_action("ls", "list snapshots")
  ls:option("--sandbox", "Only snapshots of this sandbox."):argname "SANDBOX"
  ls:option("--name", "Only snapshots of this name."):argname "NAME"
  add_action("info", "show a snapshot"):argument("snapshot", "Id of the snapshot."):argname "SNAPSHOT"
  add_action("rm", "delete snapshots"):argument("snapshots", "Ids of snapshots."):argname "SNAPSHOT":args "+"
end

local actions = {}

local function print_one(context, info)
  if context:wants_json() then return output.json(info) end
  output.facts {
    { "id", info.id }, { "state", info.state, color = show.state_color(info.state) }, { "name", info.name },
    { "sandbox", info.sandbox_id }, { "created", show.instant(info.created_at) }, { "reason", info.reason },
    { "message", info.message },
  }
end

function actions.create(context)
  local args = context.args
  local info = check(context:sandbox(args.sandbox):snapshot(args.name, { timeout = args.timeout }))
  if context:wants_json() then output.json(info) else output.write(info.id .. "\n") end
end

function actions.ls(context)
  local args, now = context.args, core.wall_clock()
  local list = check(context:client():list_snapshots { sandbox_id = args.sandbox, name = args.name })
  if context:wants_json() then return output.json(json.array(list)) end
  local rows = {}
  for index, info in ipairs(list) do
    rows[index] = { info.id, info.state, info.name or "", show.ago(info.created_at, now), info.sandbox_id or "" }
  end
  output.table(COLUMNS, rows)
end

function actions.info(context)
  print_one(context, check(context:client():get_snapshot(context.args.snapshot)))
end

function actions.rm(context)
  local client = context:client()
  return for_each_id(context.args.snapshots, function(id) return client:delete_snapshot(id) end)
end

function snapshot.run(context)
  return actions[context.args.action](context)
end

return snapshot

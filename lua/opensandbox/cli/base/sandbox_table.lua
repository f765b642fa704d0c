--- Sandboxes as rows of a table, and as JSON; and the filters that choose them.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local output = require "opensandbox.cli.base.output"
local show = require "opensandbox.cli.base.show"
local values = require "opensandbox.cli.base.values"

local sandbox_table = {}

local COLUMNS = {
  { title = "ID" }, { title = "STATE", color = show.state_color }, { title = "IMAGE", may_cut = true }, { title = "AGE" },
  { title = "EXPIRES" }, { title = "METADATA", may_cut = true },
}

--- Returns a value of the library without the decoded response, for JSON.
---@param info table
---@return table
function sandbox_table.plain(info)
  local copy = {}
  for name, value in each(info) do
    if name ~= "raw" then copy[name] = value end
  end
  return copy
end

--- Prints sandboxes.
---@param list opensandbox.SandboxInfo[]
function sandbox_table.print(list)
  local now, rows = core.wall_clock(), {}
  for index, info in ipairs(list) do
    rows[index] = {
      info.id, info.state, info.image or (info.snapshot_id and "snapshot " .. info.snapshot_id) or "",
      show.ago(info.created_at, now), show.until_then(info.expires_at, now), show.metadata(info.metadata),
    }
  end
  output.table(COLUMNS, rows)
end

--- Declares the filters.
---@param parser table of argparse
function sandbox_table.declare_filter(parser)
  parser:option("-m --metadata", "Only sandboxes with this metadata."):argname "NAME=VALUE":count "*":convert(values.pair)
  parser:option("-s --state", "Only sandboxes in this state, for example Running; repeat it for several."):argname "STATE":count "*"
end

--- Returns the filter for the library.
---@param args table
---@return opensandbox.SandboxFilter
function sandbox_table.filter(args)
  return { metadata = values.map(args.metadata), states = #args.state > 0 and args.state or nil }
end

return sandbox_table

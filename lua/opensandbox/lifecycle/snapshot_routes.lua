--- Snapshots: a client method for each route. A snapshot keeps a sandbox's files; it outlives the sandbox, and `create` with
--- `snapshot_id` makes a new one of it. Servers from 0.1.13.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local pages = require "opensandbox.lifecycle.pagination"
local poll = require "opensandbox.loop.polling"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local snapshots = {}

local DEFAULT_WAIT = 900 -- seconds: what the server gives it on Kubernetes
local FIRST_PAUSE = 0.05 -- seconds
local LONGEST_PAUSE = 2  -- seconds

---@class opensandbox.SnapshotInfo
---@field id string
---@field sandbox_id string
---@field name? string
---@field state string `Creating`, `Ready`, `Failed`, `Deleting`: an open set
---@field reason? string
---@field message? string
---@field created_at? number Unix seconds
---@field last_transition_at? number Unix seconds

local function snapshot_info(answer)
  if type(answer) ~= "table" or type(answer.id) ~= "string" then return nil, "snapshot" end
  local status = type(answer.status) == "table" and answer.status or {}
  return {
    id = answer.id, sandbox_id = answer.sandboxId, name = answer.name,
    state = type(status.state) == "string" and status.state or "Unknown", reason = status.reason, message = status.message,
    created_at = time.parse(answer.createdAt), last_transition_at = time.parse(status.lastTransitionAt),
  }
end

local function snapshot_path(op, id)
  return "/snapshots/" .. url.escape(options.identifier(op, "the snapshot id", id))
end

local create_options = { name = "text" }

--- Begins a snapshot of a running sandbox: POST /sandboxes/{id}/snapshots. It is made in the background: see wait_snapshot.
---@param self opensandbox.Client
---@param sandbox_id string
---@param opts? table name
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function snapshots.create_snapshot(self, sandbox_id, opts)
  local op = self.op or "create_snapshot"
  opts = options.check(op, opts, create_options)
  local path = "/sandboxes/" .. url.escape(options.identifier(op, "the sandbox id", sandbox_id)) .. "/snapshots"
  return self.http:call { op = op, method = "POST", path = path, sandbox_id = sandbox_id,
    json = opts.name and { name = opts.name } or nil, decode = snapshot_info }
end

--- One snapshot: GET /snapshots/{id}.
---@param self opensandbox.Client
---@param id string
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function snapshots.get_snapshot(self, id)
  local op = self.op or "get_snapshot"
  return self.http:call { op = op, method = "GET", path = snapshot_path(op, id), decode = snapshot_info }
end

local filter_options = { sandbox_id = "text", name = "text", states = "list", page = "count", page_size = "count" }

--- The snapshots: GET /snapshots, newest first; every page of them unless `page` is given.
---@param self opensandbox.Client
---@param filter? table sandbox_id, name, states (any may match), page (from 1), page_size (at most 200)
---@return opensandbox.SnapshotInfo[]? list
---@return opensandbox.Error? err
function snapshots.list_snapshots(self, filter)
  local op = self.op or "list_snapshots"
  filter = options.check(op, filter, filter_options)
  local query = { { "sandboxId", filter.sandbox_id }, { "name", filter.name } }
  for _, state in ipairs(filter.states or {}) do query[#query + 1] = { "state", state } end
  local list, err = pages.all(self, { op = op, path = "/snapshots" }, query, filter, snapshot_info)
  if not list or not filter.name then return list, err end
  local named = {}
  for _, info in ipairs(list) do -- older servers pass over the name
    if info.name == filter.name then named[#named + 1] = info end
  end
  return named
end

--- Removes a snapshot: DELETE /snapshots/{id}. One that is gone already is a success.
---@param self opensandbox.Client
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function snapshots.delete_snapshot(self, id)
  local op = self.op or "delete_snapshot"
  local _, err = self.http:call { op = op, method = "DELETE", path = snapshot_path(op, id), shielded = true }
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

local wait_options = { timeout = "seconds" }

--- Waits until a snapshot is Ready.
---@param self opensandbox.Client
---@param id string
---@param opts? table timeout (seconds, default 900)
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function snapshots.wait_snapshot(self, id, opts)
  local op = self.op or "wait_snapshot"
  opts = options.check(op, opts, wait_options)
  local timeout = opts.timeout or DEFAULT_WAIT
  local function look()
    local info, err = self:get_snapshot(id)
    if not info then
      err.op = op
      return nil, err
    end
    if info.state == "Ready" then return info end
    if info.state == "Creating" then return nil end
    return nil, errors.new { kind = "state", code = "snapshot_" .. info.state:lower(), op = op,
      message = ("the snapshot is %s: %s"):format(info.state, info.message or info.reason or "no reason given") }
  end
  local info, err = poll(op, { first = FIRST_PAUSE, longest = LONGEST_PAUSE, deadline = core.now() + timeout }, look)
  if info or err then return info, err end
  return nil, errors.timeout { op = op, code = "not_ready", text = "the snapshot is not Ready", option = "timeout",
    seconds = timeout }
end

return snapshots

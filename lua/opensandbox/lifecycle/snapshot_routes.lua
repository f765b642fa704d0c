--- Snapshots: a client method for each route. A snapshot holds a sandbox's files and outlives the sandbox. `create` with `snapshot_id`
--- restores it as a new sandbox. Servers from 0.1.13.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local fields = require "opensandbox.base.fields"
local options = require "opensandbox.base.options"
local pagination = require "opensandbox.lifecycle.pagination"
local readiness = require "opensandbox.lifecycle.readiness"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local snapshot_routes = {}

--- A snapshot, as the server knows it.
--- ```lua
--- local info = assert(sandbox:snapshot("with-dependencies"))
--- print(info.id, info.sandbox_id, info.name, info.state, info.reason, info.message, info.created_at, info.last_transition_at)
--- ```
---@class opensandbox.SnapshotInfo
---@field id string its name, for `client:create { snapshot_id = }`
---@field sandbox_id string the sandbox that it was made of
---@field name? string the name that it was given
---@field state string `Creating`, `Ready`, `Failed`, `Deleting`: an open set
---@field reason? string the cause of the state, for programs
---@field message? string the cause of the state, for people
---@field created_at? number Unix seconds
---@field last_transition_at? number Unix seconds

local function snapshot_info(object)
  if type(object) ~= "table" or not url.is_segment(object.id) then return nil, "snapshot" end
  local status = fields.object(object.status) or {}
  return {
    id = object.id, sandbox_id = fields.text(object.sandboxId), name = fields.text(object.name),
    state = fields.text(status.state) or "Unknown", reason = fields.text(status.reason), message = fields.text(status.message),
    created_at = time.parse(object.createdAt), last_transition_at = time.parse(status.lastTransitionAt),
  }
end

local function snapshot_path(op, id)
  return "/snapshots/" .. url.escape(options.path_segment(op, "the snapshot id", id))
end

local create_options = { name = "nonempty string", timeout = "seconds" }

--- Starts a snapshot of a running sandbox: POST /sandboxes/{id}/snapshots. The server makes it in the background: see wait_snapshot. A
--- sandbox restored from it also has the metadata that this one had at any time, deleted keys included.
--- ```lua
--- local info = assert(client:create_snapshot(id, { name = "with-dependencies" }))
--- ```
---@param sandbox_id string
---@param opts? { name?: string, timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function snapshot_routes:create_snapshot(sandbox_id, opts)
  local op = self.op or "create_snapshot"
  opts = options.check(op, opts, create_options)
  return self.http:call { op = op, method = "POST", path = sandbox_requests.path(op, sandbox_id, "/snapshots"),
    sandbox_id = sandbox_id, timeout = opts.timeout, json = opts.name and { name = opts.name } or nil, decode = snapshot_info }
end

local call_options = { timeout = "seconds" }

--- Returns one snapshot: GET /snapshots/{id}.
--- ```lua
--- print(assert(client:get_snapshot(id)).state)
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err
function snapshot_routes:get_snapshot(id, opts)
  local op = self.op or "get_snapshot"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = snapshot_path(op, id), timeout = opts.timeout, decode = snapshot_info }
end

--- Which snapshots a list has.
--- ```lua
--- local filter = { sandbox_id = id, name = "with-dependencies", states = { "Ready" }, page = 1, page_size = 50, timeout = 10 }
--- for _, info in ipairs(assert(client:list_snapshots(filter))) do print(info.id) end
--- ```
---@class opensandbox.SnapshotFilter
---@field sandbox_id? string those of one sandbox
---@field name? string those of one name
---@field states? string[] a snapshot in any of them matches
---@field page? integer from 1; default: all pages
---@field page_size? integer at most 200
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local filter_options = {
  sandbox_id = "nonempty string", name = "nonempty string", states = "string list", page = "natural", page_size = "natural",
  timeout = "seconds",
}

--- Returns the snapshots that match a filter, newest first: GET /snapshots.
--- ```lua
--- for _, info in ipairs(assert(client:list_snapshots { states = { "Ready" } })) do print(info.id, info.name) end
--- ```
---@param filter? opensandbox.SnapshotFilter
---@return opensandbox.SnapshotInfo[]? list
---@return opensandbox.Error? err
function snapshot_routes:list_snapshots(filter)
  local op = self.op or "list_snapshots"
  filter = options.check(op, filter, filter_options)
  local query = { { "sandboxId", filter.sandbox_id }, { "name", filter.name } }
  for _, state in ipairs(filter.states or {}) do query[#query + 1] = { "state", state } end
  local list, err = pagination.all(self, { op = op, path = "/snapshots" }, query, filter, snapshot_info)
  if not list or not filter.name then return list, err end
  local named = {}
  for _, info in ipairs(list) do -- older servers ignore the name
    if info.name == filter.name then named[#named + 1] = info end
  end
  return named
end

--- Deletes a snapshot: DELETE /snapshots/{id}. The call succeeds for a snapshot that does not exist any more.
--- ```lua
--- assert(client:delete_snapshot(id))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function snapshot_routes:delete_snapshot(id, opts)
  local op = self.op or "delete_snapshot"
  opts = options.check(op, opts, call_options)
  return errors.ignore_absence(self.http:call { op = op, method = "DELETE", path = snapshot_path(op, id), timeout = opts.timeout,
    shielded = true })
end

--- Waits until a snapshot is Ready: GET /snapshots/{id}.
--- ```lua
--- assert(client:wait_snapshot(id, { timeout = 300 }))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 900
---@return opensandbox.SnapshotInfo? info
---@return opensandbox.Error? err kind `state` when it has failed, kind `timeout` and code `not_ready` when it was not Ready in time
function snapshot_routes:wait_snapshot(id, opts)
  local op = self.op or "wait_snapshot"
  opts = options.check(op, opts, call_options)
  return readiness.wait_snapshot(self, op, id, deadline.new(opts.timeout or readiness.BUILD_TIMEOUT))
end

return snapshot_routes

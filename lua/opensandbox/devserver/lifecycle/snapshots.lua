--- Snapshots: copies of the directories of sandboxes.

local uv = require "luv"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local random = require "opensandbox.base.random"
local clock = require "opensandbox.devserver.base.clock"

local Snapshots = {}
Snapshots.__index = Snapshots

--- Creates a store.
---@param directory string for the copies
local function new(directory)
  return setmetatable({ directory = directory, by_id = {}, count = 0 }, Snapshots)
end

function Snapshots:get(id)
  return self.by_id[id]
end

local function settle(snapshot, problem)
  snapshot.changed = clock.now()
  if problem then
    snapshot.state, snapshot.reason = "Failed", "snapshot_runtime_failed"
    snapshot.message = "Docker snapshot image could not be created: " .. problem
  else
    snapshot.state, snapshot.reason = "Ready", "snapshot_runtime_ready"
    snapshot.message = "Docker snapshot image created successfully."
  end
end

--- Begins to copy a sandbox's files. A snapshot keeps the metadata that the sandbox was created with, as Docker's labels do.
function Snapshots:create(sandbox, name)
  local now = clock.now()
  local id = random.uuid()
  self.count = self.count + 1
  local snapshot = {
    id = id, number = self.count, sandbox_id = sandbox.id, name = name, created = now, changed = now,
    directory = self.directory .. "/" .. id, metadata = sandbox.metadata_at_create,
    is_fast = sandbox.is_fast,
    state = "Creating", reason = "snapshot_accepted", message = "Snapshot creation accepted.",
  }
  self.by_id[id] = snapshot
  uv.fs_mkdir(self.directory, 448) -- 0700; it exists after the first snapshot
  assert(uv.fs_mkdir(snapshot.directory, 448))
  filesystem.copy_all(sandbox.root, snapshot.directory, safe_callback.wrap(function(problem) settle(snapshot, problem) end))
  return snapshot
end

function Snapshots:remove(snapshot)
  self.by_id[snapshot.id] = nil
  local ok, code, where = filesystem.remove_all(snapshot.directory)
  if not ok then safe_callback.log(("cannot remove %s: %s"):format(where, code)) end
end

--- Removes all of them, and the directory they were in.
function Snapshots:close()
  filesystem.remove_all(self.directory)
end

return { new = new }

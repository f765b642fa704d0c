--- Snapshots: copies of the directories of sandboxes, and the routes for them.

local uv = require "luv"
local json = require "opensandbox.base.json"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local guard = require "opensandbox.devserver.base.safe_callback"
local random = require "opensandbox.devserver.base.random"
local time = require "opensandbox.devserver.base.time"
local validation = require "opensandbox.devserver.http.validation"

local Snapshots = {}
Snapshots.__index = Snapshots

--- @param directory where they will live
local function new(directory)
  return setmetatable({ directory = directory, by_id = {}, made = 0 }, Snapshots)
end

function Snapshots:get(id)
  return self.by_id[id]
end

local function settle(snapshot, problem)
  snapshot.changed = { time.now() }
  if problem then
    snapshot.state, snapshot.reason = "Failed", "snapshot_runtime_failed"
    snapshot.message = "Docker snapshot image could not be created: " .. problem
  else
    snapshot.state, snapshot.reason = "Ready", "snapshot_runtime_ready"
    snapshot.message = "Docker snapshot image created successfully."
  end
end

--- Begins to copy a sandbox's files.
function Snapshots:create(sandbox, name)
  local now = { time.now() }
  local id = random.uuid()
  self.made = self.made + 1
  local snapshot = {
    id = id, number = self.made, sandbox_id = sandbox.id, name = name, created = now, changed = now,
    directory = self.directory .. "/" .. id, request = sandbox.request,
    state = "Creating", reason = "snapshot_accepted", message = "Snapshot creation accepted.",
  }
  self.by_id[id] = snapshot
  uv.fs_mkdir(self.directory, 448) -- 0700; there since the first
  assert(uv.fs_mkdir(snapshot.directory, 448))
  filesystem.copy_all(sandbox.root, snapshot.directory, guard.wrap(function(problem) settle(snapshot, problem) end))
  return snapshot
end

function Snapshots:remove(snapshot)
  self.by_id[snapshot.id] = nil
  local ok, code, where = filesystem.remove_all(snapshot.directory)
  if not ok then guard.log(("cannot remove %s: %s"):format(where, code)) end
end

--- Removes all of them, and the directory they were in.
function Snapshots:close()
  filesystem.remove_all(self.directory)
end

local function description(snapshot)
  return {
    id = snapshot.id, sandboxId = snapshot.sandbox_id, name = snapshot.name,
    status = { state = snapshot.state, reason = snapshot.reason, message = snapshot.message,
      lastTransitionAt = time.format(snapshot.changed[1], snapshot.changed[2], 6) },
    createdAt = time.format(snapshot.created[1], snapshot.created[2], 6),
  }
end

local routes = {}

-- The snapshot of the path; a request for one that is not there is answered here.
local function named(call)
  local id = call.parameters.id
  local snapshot = call.snapshots:get(id)
  if snapshot then return snapshot end
  call.response:fail(404, "SNAPSHOT::NOT_FOUND", ("Snapshot %s not found"):format(id))
end

routes["POST /sandboxes/{id}/snapshots"] = function(call)
  call:text(function(text)
    local body, answer = {}, nil
    if text ~= "" then body, answer = validation.body(text, call.request.headers["content-type"]) end
    if answer then return call:answer(answer) end
    local name = type(body) == "table" and body.name or nil
    if name == json.null then name = nil end
    if name ~= nil and type(name) ~= "string" then
      return call:answer(validation.unprocessable {
        validation.entry("string_type", { "body", "name" }, "Input should be a valid string", name),
      })
    elseif name == "" then
      return call:answer(validation.unprocessable {
        validation.entry("string_too_short", { "body", "name" }, "String should have at least 1 character", name,
          { min_length = 1 }),
      })
    end
    local sandbox = call:sandbox()
    if not sandbox then return end
    if sandbox:status().state ~= "Running" then
      return call.response:fail(409, "SNAPSHOT::INVALID_SOURCE_STATE", "Snapshot can only be created from a Running sandbox.")
    end
    local snapshot = call.snapshots:create(sandbox, name)
    call.response:header("location", "/v1/snapshots/" .. snapshot.id)
    call.response:json(202, description(snapshot))
  end)
end

routes["GET /snapshots"] = function(call)
  local sandbox_id, name, states = call:parameter("sandboxId"), call:parameter("name"), call.query.state
  call:page(function()
    local list = {}
    for _, snapshot in pairs(call.snapshots.by_id) do
      local fits = not states
      for _, state in ipairs(states or {}) do fits = fits or state == snapshot.state end
      fits = fits and (not sandbox_id or snapshot.sandbox_id == sandbox_id) and (not name or snapshot.name == name)
      if fits then list[#list + 1] = snapshot end
    end
    table.sort(list, function(a, b) return a.number > b.number end)
    return list
  end, description)
end

routes["GET /snapshots/{id}"] = function(call)
  local snapshot = named(call)
  if snapshot then call.response:json(200, description(snapshot)) end
end

routes["DELETE /snapshots/{id}"] = function(call)
  local snapshot = named(call)
  if not snapshot then return end
  if snapshot.state == "Creating" then
    return call.response:fail(409, "SNAPSHOT::INVALID_STATE", ("Snapshot %s is being created."):format(snapshot.id))
  end
  call.snapshots:remove(snapshot)
  call.response:empty(204)
end

return { new = new, routes = routes }

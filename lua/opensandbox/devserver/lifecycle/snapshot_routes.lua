--- The routes of snapshots.

local each = require "opensandbox.base.each"
local time = require "opensandbox.base.time"
local validation = require "opensandbox.devserver.http.validation"

local function description(snapshot)
  return {
    id = snapshot.id, sandboxId = snapshot.sandbox_id, name = snapshot.name,
    status = { state = snapshot.state, reason = snapshot.reason, message = snapshot.message,
      lastTransitionAt = time.format(snapshot.changed) },
    createdAt = time.format(snapshot.created),
  }
end

local routes = {}

-- Returns the snapshot of the path. A request for an unknown one is answered here.
local function named(call)
  local id = call.parameters.id
  local snapshot = call.snapshots:get(id)
  if snapshot then return snapshot end
  call.response:fail(404, "SNAPSHOT::NOT_FOUND", ("Snapshot %s not found"):format(id))
end

local check_create = validation.check.model { { "name", validation.check.nonempty_string } }

routes["POST /sandboxes/{id}/snapshots"] = function(call)
  call:body(check_create, function(body)
    local sandbox = call:sandbox()
    if not sandbox then return end
    if sandbox:status().state ~= "Running" then
      return call.response:fail(409, "SNAPSHOT::INVALID_SOURCE_STATE", "Snapshot can only be created from a Running sandbox.")
    end
    local snapshot = call.snapshots:create(sandbox, body.name)
    call.response:header("location", "/v1/snapshots/" .. snapshot.id)
    call.response:json(202, description(snapshot))
  end, {})
end

routes["GET /snapshots"] = function(call)
  local sandbox_id, name, states = call:parameter("sandboxId"), call:parameter("name"), call.query.state
  call:page(function()
    local list = {}
    for _, snapshot in each(call.snapshots.by_id) do
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

return routes

--- A lifecycle server that keeps a ledger of its sandboxes, for tests with many clients that die: a fault server, whose `state` has
--- `sandboxes` (by id: created, deleted, label; seconds of the clock of core.now()), `alive` and `peak` (sandboxes at a time), `made`.

local fault_server = require "spec.support.fault_server"

local ledger_server = {}

local SOURCE = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local CREATE_MS = %d
  state.sandboxes, state.alive, state.peak, state.made = {}, 0, 0, 0

  local function now() return uv.hrtime() / 1e9 end

  local function answer(connection, status, object)
    connection:respond(status, JSON, object and json.encode(object) or "")
  end

  local function info(id)
    return { id = id, status = { state = "Running" }, metadata = { ["opensandbox-lua-pool"] = state.sandboxes[id].label },
      createdAt = "2026-01-01T00:00:00Z" }
  end

  local function create(request, connection)
    state.made, state.alive = state.made + 1, state.alive + 1
    state.peak = math.max(state.peak, state.alive)
    local id = "s" .. state.made
    local metadata = json.decode(request.body).metadata or {}
    state.sandboxes[id] = { created = now(), label = metadata["opensandbox-lua-pool"] }
    connection:after(CREATE_MS, function() answer(connection, 202, info(id)) end)
  end

  -- Of all living sandboxes, or of the sandbox with the label that the query names.
  local function list(query, connection)
    local label = query:match("opensandbox%%-lua%%-pool%%%%3D(%%x+)")
    local items = {}
    for id, sandbox in pairs(state.sandboxes) do
      if not sandbox.deleted and (not label or label == sandbox.label) then items[#items + 1] = info(id) end
    end
    answer(connection, 200, { items = json.array(items), pagination = { hasNextPage = false } })
  end

  return function(request, connection)
    local path, query = request.path:match("^([^?]*)%%??(.*)$")
    local id = path:match("^/v1/sandboxes/(s%%d+)")
    local sandbox = id and state.sandboxes[id]
    if path == "/v1/sandboxes" then
      if request.method == "POST" then return create(request, connection) end
      return list(query, connection)
    elseif path == "/execd/ping" then
      return answer(connection, 200, {})
    elseif not sandbox or sandbox.deleted then
      return answer(connection, 404, { code = "SANDBOX_NOT_FOUND", message = "there is no such sandbox" })
    elseif request.method == "DELETE" then
      sandbox.deleted, state.alive = now(), state.alive - 1
      return answer(connection, 204)
    elseif path:find("/endpoints/") then
      return answer(connection, 200, { endpoint = request.headers.host .. "/execd" })
    elseif path:find("/renew%%-expiration$") then
      return answer(connection, 200, { expiresAt = json.decode(request.body).expiresAt })
    end
    answer(connection, 200, info(id))
  end
]]

--- Starts a server.
---@param create_ms? integer how long a create takes, in milliseconds, default 0
function ledger_server.start(create_ms)
  return fault_server.start(SOURCE:format(create_ms or 0))
end

return ledger_server

--- The routes of sandboxes and their endpoints, and of telemetry.

local clock = require "opensandbox.devserver.base.clock"
local create_request = require "opensandbox.devserver.lifecycle.create_request"
local each = require "opensandbox.base.each"
local egress = require "opensandbox.devserver.egress.routes"
local gateway = require "opensandbox.devserver.lifecycle.gateway"
local json = require "opensandbox.base.json"
local labels = require "opensandbox.devserver.lifecycle.labels"
local ports = require "opensandbox.lifecycle.ports"
local query = require "opensandbox.devserver.http.query"
local time = require "opensandbox.base.time"
local validation = require "opensandbox.devserver.http.validation"

local function instant(at)
  return at and time.format(at)
end

local function description(sandbox)
  local request = sandbox.request
  local extensions = request.extensions
  return {
    id = sandbox.id, image = request.image and { uri = request.image.uri }, snapshotId = request.snapshotId,
    platform = request.platform, status = sandbox:status(),
    extensions = extensions and next(extensions) and extensions or nil,
    metadata = next(sandbox.metadata) and sandbox.metadata or nil, entrypoint = request.entrypoint,
    expiresAt = instant(sandbox.expires), createdAt = instant(sandbox.created),
  }
end

local routes = {}

-- Returns the snapshot of a request. A request for an unusable one is answered here.
local function snapshot_of(call, request)
  local id = request.snapshotId
  local snapshot = call.snapshots:get(id)
  if not snapshot then
    call.response:fail(404, "SNAPSHOT::NOT_FOUND", ("Snapshot %s not found"):format(id))
  elseif snapshot.state ~= "Ready" then
    call.response:fail(409, "SNAPSHOT::NOT_READY", ("Snapshot %s is not ready"):format(id))
  else
    return snapshot
  end
end

-- Adds to a request the members that its template sets. Returns whether the template can be used. Else the request is answered here.
local function apply_template(call, request)
  local template = call.templates:get(request.templateId)
  if not template or template.phase ~= "Succeeded" then
    call.response:fail(404, "FSB::TEMPLATE_NOT_FOUND", "Template not found.")
    return false
  end
  request.image, request.env = { uri = template.id }, template.spec.env or {}
  request.entrypoint = template.spec.entrypoint or request.entrypoint
  return true
end

routes["POST /sandboxes"] = function(call)
  call:text(function(text)
    local request, answer = create_request(text, call.request.headers["content-type"], call.templates ~= nil)
    if not request then return call:answer(answer) end
    if request.templateId and not apply_template(call, request) then return end
    local snapshot
    if not request.image then
      snapshot = snapshot_of(call, request)
      if not snapshot then return end
    end
    local is_fast = request.templateId ~= nil or (snapshot ~= nil and snapshot.is_fast)
    local sidecar, problem
    if not is_fast then sidecar, problem = egress.new(request.networkPolicy, request.credentialProxy) end
    if problem then
      return call.response:fail(500, "DOCKER::SANDBOX_START_FAILED", "Egress sidecar failed to start: " .. problem)
    end
    call.store:create(request, { snapshot = snapshot, sidecar = sidecar, is_fast = is_fast }, function(sandbox, code, message)
      if not sandbox then return call.response:fail(500, code, message) end
      local created = description(sandbox)
      created.image, created.snapshotId = nil, nil
      created.metadata = request.metadata and next(request.metadata) and request.metadata or nil
      created.status = {
        state = "Running", reason = "CONTAINER_RUNNING", message = "Sandbox container started successfully.",
        lastTransitionAt = instant(sandbox.created),
      }
      call.response:json(202, created)
    end)
  end)
end

-- The pairs of the metadata filter, which is a form inside a query parameter.
local function metadata_filter(text)
  local wanted = {}
  for _, pair in ipairs(query.pairs(text or "")) do
    if not pair[3] then return nil, "Invalid metadata format: bad query field: '" .. pair[1] .. "'" end
    wanted[pair[1]] = pair[2]
  end
  return wanted
end

local function matches(sandbox, states, wanted)
  for key, value in each(wanted) do
    if sandbox.metadata[key] ~= value then return false end
  end
  if not states then return true end
  local state = sandbox:status().state:lower()
  for _, name in ipairs(states) do
    if name:lower() == state then return true end
  end
  return false
end

routes["GET /sandboxes"] = function(call)
  call:page(function()
    local wanted, problem = metadata_filter(call:parameter("metadata"))
    if not wanted then return nil, "INVALID_METADATA_FORMAT", problem end
    local list = {}
    for _, sandbox in ipairs(call.store:list()) do
      if matches(sandbox, call.query.state, wanted) then list[#list + 1] = sandbox end
    end
    return list
  end, description)
end

routes["GET /sandboxes/{id}"] = function(call)
  local sandbox = call:sandbox()
  if sandbox then call.response:json(200, description(sandbox)) end
end

routes["DELETE /sandboxes/{id}"] = function(call)
  local sandbox = call:sandbox()
  if not sandbox then return end
  call.store:delete(sandbox, function(deleted)
    if not deleted then return call:sandbox_not_found() end
    call.response:empty(204)
  end)
end

-- Reads an instant as the real service does, which accepts more than RFC 3339: seconds since 1970, and a time without seconds. The
-- result is cut to microseconds.
local function instant_of(value)
  if type(value) == "number" then return math.floor(value * 1e6) / 1e6 end
  if type(value) ~= "string" then return nil end
  value = value:gsub("^(....%-..%-...%d%d:%d%d)%f[^%d:]", "%1:00"):gsub("(%.%d%d%d%d%d%d)%d+", "%1")
  return time.parse(value)
end

local check = validation.check

local function check_instant(entries, location, value)
  if instant_of(value) then return end
  local why = #tostring(value) < 10 and "input is too short" or "invalid character in year"
  entries[#entries + 1] = validation.entry("datetime_from_date_parsing", location,
    "Input should be a valid datetime or date, " .. why, value, { error = why })
end

local renewal = check.model { { "expiresAt", check_instant, { required = true } } }

routes["POST /sandboxes/{id}/renew-expiration"] = function(call)
  call:body(renewal, function(body)
    local expires, sandbox = instant_of(body.expiresAt), call:sandbox()
    if not sandbox then return end
    if expires <= clock.now() then
      return call.response:fail(400, "DOCKER::INVALID_EXPIRATION", "New expiration time must be in the future.")
    elseif not sandbox.expires then
      return call.response:fail(409, "DOCKER::INVALID_EXPIRATION",
        ("Sandbox %s does not have automatic expiration enabled."):format(sandbox.id))
    end
    call.store:renew(sandbox, expires)
    call.response:json(200, { expiresAt = instant(sandbox.expires) })
  end)
end

-- Metadata whose nulls delete a key.
local function check_patch(entries, location, value)
  if type(value) ~= "table" or validation.is_list(value) and next(value) ~= nil then return check.map(entries, location, value) end
  for key, item in each(value) do
    if item ~= json.null then check.string(entries, { "body", key }, item) end
  end
end

routes["PATCH /sandboxes/{id}/metadata"] = function(call)
  call:body(check_patch, function(patch, text)
    -- An empty array is decoded like an empty object.
    if text:find("^%s*%[") then
      local entries = {}
      entries[1] = validation.entry("dict_type", { "body" }, "Input should be a valid dictionary", json.array {})
      return call:answer(validation.unprocessable(entries))
    end
    local sandbox = call:sandbox()
    if not sandbox then return end
    for key, value in each(patch) do
      local refusal = labels.is_reserved(key) and validation.refusal(400, "INVALID_METADATA_LABEL",
        ("Metadata key '%s' is reserved (opensandbox.io/ prefix)."):format(key))
        or labels.refusal(key, value ~= json.null and value or nil)
      if refusal then return call:answer(refusal) end
    end
    for key, value in each(patch) do sandbox.metadata[key] = value ~= json.null and value or nil end
    call.response:json(200, description(sandbox))
  end)
end

routes["POST /sandboxes/{id}/pause"] = function(call)
  local sandbox = call:sandbox()
  if not sandbox then return end
  if sandbox.exit or sandbox.paused then
    return call.response:fail(409, "DOCKER::SANDBOX_NOT_RUNNING", "Sandbox is not in a running state.")
  end
  sandbox:pause()
  call.response:empty(202)
end

routes["POST /sandboxes/{id}/resume"] = function(call)
  local sandbox = call:sandbox()
  if not sandbox then return end
  if not sandbox.paused then
    return call.response:fail(409, "DOCKER::SANDBOX_NOT_PAUSED", "Sandbox is not in a paused state.")
  end
  sandbox:resume()
  call.response:empty(202)
end

local check_event = check.model {
  { "eventType", check.literal({ "sandbox.create" }, "'sandbox.create'"), { required = true } },
  { "createDurationMs", check.integer(0), { required = true } }, { "success", check.boolean, { required = true } },
  { "sandboxId", check.string }, { "image", check.string },
}

-- Telemetry of client libraries. The route exists under /v1 only, and ignores the body.
routes["POST /metrics/events"] = function(call)
  if call.mount == "" then return call.response:json(404, { detail = "Not Found" }) end
  call:body(check_event, function() call.response:empty(204) end)
end

local TRUE = { ["true"] = true, ["1"] = true, yes = true, on = true, t = true, y = true }
local FALSE = { ["false"] = true, ["0"] = true, no = true, off = true, f = true, n = true }

routes["GET /sandboxes/{id}/endpoints/{port}"] = function(call)
  local response, entries = call.response, {}
  local expires = call:parameter("expires")
  if expires then expires = validation.integer(entries, { "query", "expires" }, expires) end
  local proxy = (call:parameter("use_server_proxy") or "false"):lower()
  if not TRUE[proxy] and not FALSE[proxy] then
    entries[#entries + 1] = validation.entry("bool_parsing", { "query", "use_server_proxy" },
      "Input should be a valid boolean, unable to interpret input", proxy)
  end
  local port = call:port(entries)
  local sandbox = port and call:sandbox()
  if not sandbox then return end
  if expires and TRUE[proxy] then
    return response:fail(400, "SANDBOX::INVALID_PARAMETER",
      "use_server_proxy cannot be combined with expires; signed endpoints require the gateway route.")
  elseif expires then
    return response:fail(400, "SANDBOX::API_NOT_SUPPORTED", "Signed routes (expires parameter) are not supported when "
      .. "runtime.type='docker'. Use the Kubernetes runtime for signed routes.")
  end
  local endpoint = gateway.endpoint(sandbox, port, call.gateway_port)
  if TRUE[proxy] then
    endpoint = ("%s%s/sandboxes/%s/proxy/%d"):format(call.request.headers.host or "", call.mount, sandbox.id, port)
  end
  local headers = port == ports.EXECD and { ["X-EXECD-ACCESS-TOKEN"] = sandbox.token }
    or port == ports.EGRESS and sandbox.egress and { ["OPENSANDBOX-EGRESS-AUTH"] = sandbox.egress.token } or nil
  if sandbox.is_fast then response:header("OPEN-SANDBOX-ORIGIN", "template") end
  response:json(200, { endpoint = endpoint, headers = headers })
end

return routes

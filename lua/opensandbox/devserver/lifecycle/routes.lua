--- The lifecycle API: sandboxes and their endpoints, at `/` and at `/v1`.

local json = require "opensandbox.base.json"
local diagnostics = require "opensandbox.devserver.lifecycle.diagnostics"
local egress = require "opensandbox.devserver.egress.routes"
local ports = require "opensandbox.devserver.lifecycle.gateway"
local random = require "opensandbox.devserver.base.random"
local snapshots = require "opensandbox.devserver.lifecycle.snapshots"
local router = require "opensandbox.devserver.http.router"
local time = require "opensandbox.devserver.base.time"
local url = require "opensandbox.devserver.base.url"
local validation = require "opensandbox.devserver.http.validation"

local BODY_LIMIT = 16 * 1024 * 1024

local Call = {}
Call.__index = Call

function Call:answer(answer)
  self.response:json(answer.status, answer.value)
end

function Call:parameter(name)
  local values = self.query[name]
  return values and values[#values]   -- the last one wins, as in the real service
end

--- Reads the body and passes it on as text.
function Call:text(callback)
  self.request:body(BODY_LIMIT, callback)
end

function Call:sandbox_not_found()
  self.response:fail(404, "DOCKER::SANDBOX_NOT_FOUND", ("Sandbox %s not found."):format(self.parameters.id))
end

--- Returns the sandbox of the path. A request for an unknown one is answered here.
function Call:sandbox()
  local sandbox = self.store:get(self.parameters.id)
  if sandbox then return sandbox end
  self:sandbox_not_found()
end

--- Answers with one page of a list. `find` gives the list, or nil with the code and the message of a bad request.
function Call:page(find, describe)
  local entries = {}
  local page = validation.integer(entries, { "query", "page" }, self:parameter("page") or 1, 1)
  local size = validation.integer(entries, { "query", "pageSize" }, self:parameter("pageSize") or 20, 1, 200)
  if entries[1] then return self:answer(validation.unprocessable(entries)) end
  local list, code, message = find()
  if not list then return self.response:fail(400, code, message) end
  local items, first = json.array {}, (page - 1) * size
  for index = first + 1, math.min(first + size, #list) do items[#items + 1] = describe(list[index]) end
  local pages = math.ceil(#list / size)
  self.response:json(200, { items = items, pagination = {
    page = page, pageSize = size, totalItems = #list, totalPages = pages, hasNextPage = page < pages,
  } })
end

local function instant(at)
  return at and time.format(at[1], at[2], 6)
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

routes["POST /sandboxes"] = function(call)
  call:text(function(text)
    local request, answer = validation.create(text, call.request.headers["content-type"])
    if not request then return call:answer(answer) end
    local snapshot
    if not request.image then
      snapshot = call.snapshots:get(request.snapshotId)
      if not snapshot then
        return call.response:fail(404, "SNAPSHOT::NOT_FOUND", ("Snapshot %s not found"):format(request.snapshotId))
      elseif snapshot.state ~= "Ready" then
        return call.response:fail(409, "SNAPSHOT::NOT_READY", ("Snapshot %s is not ready"):format(snapshot.id))
      end
    end
    local function failed(problem) call.response:fail(500, "DOCKER::SANDBOX_START_FAILED", problem) end
    local sidecar, refusal = egress.new(request.networkPolicy, request.credentialProxy)
    if refusal then return failed("Egress sidecar failed to start: " .. refusal) end
    call.store:create(request, snapshot and snapshot.directory, function(sandbox, problem)
      if not sandbox then return failed(problem) end
      sandbox.egress = sidecar
      local made = description(sandbox)
      made.image, made.snapshotId = nil, nil
      made.status = {
        state = "Running", reason = "CONTAINER_RUNNING", message = "Sandbox container started successfully.",
        lastTransitionAt = instant(sandbox.created),
      }
      call.response:json(202, made)
    end)
  end)
end

-- The pairs of the metadata filter, which is a form inside a query parameter.
local function metadata_filter(text)
  local wanted = {}
  for _, pair in ipairs(url.pairs(text or "")) do
    if not pair[3] then return nil, "Invalid metadata format: bad query field: '" .. pair[1] .. "'" end
    wanted[pair[1]] = pair[2]
  end
  return wanted
end

local function matches(sandbox, states, wanted)
  for key, value in pairs(wanted) do
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

routes["POST /sandboxes/{id}/renew-expiration"] = function(call)
  call:text(function(text)
    local body, answer = validation.body(text, call.request.headers["content-type"])
    if answer then return call:answer(answer) end
    local value, location = type(body) == "table" and body.expiresAt or nil, { "body", "expiresAt" }
    if value == nil then
      return call:answer(validation.unprocessable { validation.entry("missing", location, "Field required", body) })
    end
    local seconds, microseconds
    if type(value) == "string" or type(value) == "number" then seconds, microseconds = time.parse(value) end
    if not seconds then
      local why = #tostring(value) < 10 and "input is too short" or "invalid character in year"
      return call:answer(validation.unprocessable { validation.entry("datetime_from_date_parsing", location,
        "Input should be a valid datetime or date, " .. why, value, { error = why }) })
    end
    local sandbox = call:sandbox()
    if not sandbox then return end
    if seconds <= (time.now()) then
      return call.response:fail(400, "DOCKER::INVALID_EXPIRATION", "New expiration time must be in the future.")
    elseif not sandbox.expires then
      return call.response:fail(409, "DOCKER::INVALID_EXPIRATION",
        ("Sandbox %s does not have automatic expiration enabled."):format(sandbox.id))
    end
    call.store:renew(sandbox, seconds, microseconds)
    call.response:json(200, { expiresAt = instant(sandbox.expires) })
  end)
end

routes["PATCH /sandboxes/{id}/metadata"] = function(call)
  call:text(function(text)
    local patch, answer = validation.body(text, call.request.headers["content-type"])
    if answer then return call:answer(answer) end
    local entries = {}
    if not text:find("^%s*{") then
      entries[1] = validation.entry("dict_type", { "body" }, "Input should be a valid dictionary", patch)
      return call:answer(validation.unprocessable(entries))
    end
    for key, value in pairs(patch) do
      if value ~= json.null and type(value) ~= "string" then
        entries[#entries + 1] =
          validation.entry("string_type", { "body", key }, "Input should be a valid string", value)
      end
    end
    if entries[1] then return call:answer(validation.unprocessable(entries)) end
    local sandbox = call:sandbox()
    if not sandbox then return end
    for key, value in pairs(patch) do
      local refusal = validation.label(key, value ~= json.null and value or nil, "INVALID_METADATA_LABEL")
      if refusal then return call:answer(refusal) end
    end
    for key, value in pairs(patch) do sandbox.metadata[key] = value ~= json.null and value or nil end
    call.response:json(200, description(sandbox))
  end)
end

routes["POST /sandboxes/{id}/pause"] = function(call)
  local sandbox = call:sandbox()
  if not sandbox then return end
  if sandbox.exit then
    return call.response:fail(409, "DOCKER::SANDBOX_NOT_RUNNING", "Sandbox is not in a running state.")
  elseif sandbox.paused then
    return call.response:fail(500, "DOCKER::SANDBOX_PAUSE_FAILED",
      "Failed to pause sandbox container: 409 Conflict: Container is already paused")
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

for _, more in ipairs { diagnostics, snapshots.routes } do
  for route, handler in pairs(more) do routes[route] = handler end
end

-- What only Kubernetes has.
for _, route in ipairs { "GET /pools", "POST /pools", "GET /pools/{id}", "PUT /pools/{id}", "DELETE /pools/{id}" } do
  routes[route] = function(call)
    call.response:fail(501, "KUBERNETES::POOL_NOT_SUPPORTED",
      "Pool management is only available when runtime.type is 'kubernetes'.")
  end
end

-- What client libraries tell about themselves. It is there under /v1 only, and nothing is done with it.
routes["POST /metrics/events"] = function(call)
  if call.mount == "" then return call.response:json(404, { detail = "Not Found" }) end
  call:text(function(text)
    local answer = validation.event(text, call.request.headers["content-type"])
    if answer then return call:answer(answer) end
    call.response:empty(204)
  end)
end

local TRUE = { ["true"] = true, ["1"] = true, yes = true, on = true, t = true, y = true }
local FALSE = { ["false"] = true, ["0"] = true, no = true, off = true, f = true, n = true }

routes["GET /sandboxes/{id}/endpoints/{port}"] = function(call)
  local response, entries = call.response, {}
  local port = validation.integer(entries, { "path", "port" }, call.parameters.port)
  local expires = call:parameter("expires")
  if expires then expires = validation.integer(entries, { "query", "expires" }, expires) end
  local proxy = (call:parameter("use_server_proxy") or "false"):lower()
  if not TRUE[proxy] and not FALSE[proxy] then
    entries[#entries + 1] = validation.entry("bool_parsing", { "query", "use_server_proxy" },
      "Input should be a valid boolean, unable to interpret input", proxy)
  end
  if entries[1] then return call:answer(validation.unprocessable(entries)) end
  if port < 1 or port > 65535 then
    return response:fail(400, "DOCKER::INVALID_PORT", "Port must be between 1 and 65535.")
  end
  local sandbox = call:sandbox()
  if not sandbox then return end
  if expires and TRUE[proxy] then
    return response:fail(400, "SANDBOX::INVALID_PARAMETER", "expires and use_server_proxy cannot be used together.")
  elseif expires then
    return response:fail(400, "SANDBOX::API_NOT_SUPPORTED", "Signed routes (expires parameter) are not supported when "
      .. "runtime.type='docker'. Use the Kubernetes runtime for signed routes.")
  end
  local known = port == ports.EXECD or port == ports.EGRESS
  local endpoint = TRUE[proxy]
    and ("%s%s/sandboxes/%s/proxy/%d"):format(call.request.headers.host or "", call.mount, sandbox.id, port)
    or known and ("127.0.0.1:%d/%s/%d"):format(call.gateway_port, sandbox.id, port) or ("127.0.0.1:%d"):format(port)
  local headers = port == ports.EXECD and { ["X-EXECD-ACCESS-TOKEN"] = sandbox.token }
    or port == ports.EGRESS and sandbox.egress and { ["OPENSANDBOX-EGRESS-AUTH"] = sandbox.egress.token } or nil
  response:json(200, { endpoint = endpoint, headers = headers })
end

local mounted = router.new(routes)

local Lifecycle = {}
Lifecycle.__index = Lifecycle

--- @param options `store`, `snapshots`, `key`, `gateway_port`, `version`
-- @treturn function for `http.listen`
local function handler(options)
  local self = setmetatable(options, Lifecycle)
  return function(request, response) self:handle(request, response) end
end

function Lifecycle:authorized(request, response)
  local given = request.headers["open-sandbox-api-key"]
  if given == self.key then return true end
  if given then
    response:fail(401, "INVALID_API_KEY",
      "Authentication credentials are invalid. Check your API key and try again.")
  else
    response:fail(401, "MISSING_API_KEY",
      "Authentication credentials are missing. Provide API key via OPEN-SANDBOX-API-KEY header.")
  end
end

function Lifecycle:handle(request, response)
  response.json_type = "application/json"
  local id = (request.headers["x-request-id"] or ""):match("^%s*(.-)%s*$")
  response:header("X-Request-ID", id ~= "" and id or random.hex(16))

  local path = request.path
  local sandbox, port, rest = path:gsub("^/v1/", "/"):match("^/sandboxes/([^/]+)/proxy/(%d+)%f[/%z](.*)$")
  if sandbox then return ports.proxied(self.store, sandbox, port, rest, request, response) end
  local get = request.method == "GET"
  if get and path == "/health" then return response:json(200, { status = "healthy" }) end
  if get and path == "/version" then return response:json(200, { version = self.version }) end
  if not self:authorized(request, response) then return end

  local mount = path:find("^/v1/") and "/v1" or ""
  local route = path:sub(#mount + 1)
  local found, parameters = mounted:find(request.method, route)
  if found then
    return found(setmetatable({
      store = self.store, snapshots = self.snapshots, gateway_port = self.gateway_port,
      request = request, response = response, mount = mount, parameters = parameters, query = url.query(request.query),
    }, Call))
  elseif parameters[1] then
    response:header("allow", table.concat(parameters, ", "))
    return response:json(405, { detail = "Method Not Allowed" })
  end
  local shorter = route:match("^(/.+)/$")
  local there, methods = mounted:find(request.method, shorter or "")
  if there or methods[1] then
    local query = request.query ~= "" and "?" .. request.query or ""
    response:header("location", ("http://%s%s%s%s"):format(request.headers.host or "", mount, shorter, query))
    return response:empty(307)
  end
  response:json(404, { detail = "Not Found" })
end

return { handler = handler }

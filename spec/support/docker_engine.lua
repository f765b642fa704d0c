--- A stand-in for the API of a container engine: it has the routes that the real lifecycle server calls, and starts nothing.
--
-- Every image exists. A container has a state, and it changes as requests say. The host ports of an egress sidecar answer like the
-- sidecar: the server waits for that, and passes network policies on to it.
--
--     fault_server.start [[ return require("spec.support.docker_engine") { directory = "..." } ]]

local base64 = require "opensandbox.base.base64"
local http_server = require "spec.support.http_server"
local json = require "opensandbox.base.json"
local query = require "opensandbox.devserver.http.query"
local random = require "opensandbox.base.random"
local tarball = require "spec.support.tarball"
local url = require "opensandbox.base.url"

local API_VERSION = "1.43"
local ADDRESS = "127.0.0.1"
local STARTED_AT = "2026-01-01T00:00:00.000000000Z"
local ZERO_TIME = "0001-01-01T00:00:00Z"
local SIDECAR_LABEL = "opensandbox.io/egress-sidecar-for"

local function answer(connection, status, value)
  connection:respond(status, { ["Content-Type"] = "application/json" }, assert(json.encode(value)))
end

-- The sidecar behind a host port: its health, and its policy, which only the last PUT and the create change.
local function sidecar(policy)
  return function(request, connection)
    if request.method == "PUT" then policy = json.decode_raw(request.body) end
    local is_read = request.method == "GET" and request.path:find("/policy$")
    answer(connection, 200, { status = "ok", mode = "enforcing", enforcementMode = "dns+nft", policy = is_read and policy or nil })
  end
end

local Engine = {}
Engine.__index = Engine

-- The description of a container.
local function inspected(container)
  local config, host = container.config, container.config.HostConfig or {}
  return {
    Id = container.id, Name = "/" .. container.name, Created = STARTED_AT, Image = config.Image, Config = config, HostConfig = host,
    Path = "tail", Args = json.array {},
    State = {
      Status = container.state, Running = container.state == "running" or container.state == "paused",
      Paused = container.state == "paused", StartedAt = container.state == "created" and ZERO_TIME or STARTED_AT,
      FinishedAt = ZERO_TIME, ExitCode = 0, Error = "", OOMKilled = false,
    },
    NetworkSettings = { IPAddress = ADDRESS, Networks = { bridge = { IPAddress = ADDRESS } }, Ports = {} },
  }
end

local function summary(container)
  return { Id = container.id, Names = json.array { "/" .. container.name }, Image = container.config.Image,
    Labels = container.config.Labels or {}, State = container.state }
end

function Engine:container(name)
  for _, container in ipairs(self.containers) do
    if container.id == name or container.name == name then return container end
  end
end

-- Returns whether a container has all of the labels: "name", or "name=value".
local function has_labels(container, wanted)
  local labels = container.config.Labels or {}
  for _, text in ipairs(wanted or {}) do
    local name, value = text:match("^([^=]*)=(.*)$")
    local found = labels[name or text]
    if not found or (value and found ~= value) then return false end
  end
  return true
end

-- Answers at the host ports of a sidecar, as its published ports do.
function Engine:publish(container)
  local config = container.config
  if not (config.Labels or {})[SIDECAR_LABEL] then return end
  local policy = {}
  for _, variable in ipairs(config.Env or {}) do
    policy = json.decode_raw(variable:match("^OPENSANDBOX_EGRESS_RULES=(.*)$") or "") or policy
  end
  local handler = sidecar(policy)
  for _, bindings in pairs(config.HostConfig.PortBindings or {}) do
    for _, binding in ipairs(bindings) do
      container.listeners[#container.listeners + 1] = http_server.listen({ on_request = handler }, tonumber(binding.HostPort))
    end
  end
end

function Engine:remove(container)
  for _, listener in ipairs(container.listeners) do listener.tcp:close() end
  for at, other in ipairs(self.containers) do
    if other == container then return table.remove(self.containers, at) end
  end
end

local routes = {}

routes["GET /_ping"] = function(_, call) call.connection:respond(200, { ["Api-Version"] = API_VERSION }, "OK") end
routes["GET /version"] = function(_, call) answer(call.connection, 200, { ApiVersion = API_VERSION, MinAPIVersion = "1.24" }) end
routes["GET /info"] = function(_, call) answer(call.connection, 200, { OSType = "linux", Architecture = "x86_64" }) end

routes["GET /images/{name}/json"] = function(_, call)
  answer(call.connection, 200, { Id = "sha256:" .. random.hex(32), RepoTags = json.array { call.name }, Os = "linux",
    Architecture = "amd64", Config = {} })
end
routes["DELETE /images/{name}"] = function(_, call) answer(call.connection, 200, json.array {}) end
routes["POST /images/create"] = function(_, call) answer(call.connection, 200, { status = "Pull complete" }) end

routes["POST /containers/create"] = function(self, call)
  local container = { id = random.hex(32), config = call.body, state = "created", listeners = {} }
  container.name = call.query.name and call.query.name[1] or container.id
  table.insert(self.containers, container)
  answer(call.connection, 201, { Id = container.id, Warnings = json.array {} })
end

routes["GET /containers/json"] = function(self, call)
  local filters = json.decode_raw((call.query.filters or {})[1] or "{}")
  local list = json.array {}
  for _, container in ipairs(self.containers) do
    if has_labels(container, filters.label) then list[#list + 1] = summary(container) end
  end
  answer(call.connection, 200, list)
end

routes["GET /containers/{name}/json"] = function(_, call) answer(call.connection, 200, inspected(call.container)) end

-- The requests that move a container to another state.
for action, state in pairs { start = "running", unpause = "running", pause = "paused", kill = "exited", stop = "exited" } do
  routes["POST /containers/{name}/" .. action] = function(self, call)
    call.container.state = state
    if action == "start" then self:publish(call.container) end
    call.connection:respond(204)
  end
end

routes["DELETE /containers/{name}"] = function(self, call)
  self:remove(call.container)
  call.connection:respond(204)
end

routes["POST /containers/{name}/update"] = function(_, call) answer(call.connection, 200, { Warnings = json.array {} }) end
routes["PUT /containers/{name}/archive"] = function(_, call) call.connection:respond(200) end

routes["GET /containers/{name}/archive"] = function(_, call)
  local name = (call.query.path or {})[1]:match("[^/]*$")
  local stat = base64.encode(assert(json.encode { name = name, size = 0, mode = 493, mtime = STARTED_AT, linkTarget = "" }))
  call.connection:respond(200, { ["Content-Type"] = "application/x-tar", ["X-Docker-Container-Path-Stat"] = stat },
    tarball.archive(tarball.entry { name = name, mode = 493 }))
end

routes["GET /containers/{name}/logs"] = function(_, call)
  call.connection:respond(200, { ["Content-Type"] = "application/vnd.docker.raw-stream" }, "")
end

routes["POST /commit"] = function(_, call) answer(call.connection, 201, { Id = "sha256:" .. random.hex(32) }) end

routes["POST /volumes/create"] = function(self, call)
  self.volumes[call.body.Name] = { Name = call.body.Name, Driver = "local", Labels = call.body.Labels or {},
    Mountpoint = self.directory, Scope = "local" }
  answer(call.connection, 201, self.volumes[call.body.Name])
end
routes["GET /volumes/{name}"] = function(self, call)
  local volume = self.volumes[call.name]
  if not volume then return answer(call.connection, 404, { message = "no such volume" }) end
  answer(call.connection, 200, volume)
end
routes["DELETE /volumes/{name}"] = function(self, call)
  self.volumes[call.name] = nil
  call.connection:respond(204)
end

-- Returns the route of a path and the name in it. The name of an image can contain slashes.
local function find(method, path)
  local exact = routes[method .. " " .. path]
  if exact then return exact end
  local kind, name, action = path:match("^/(%l+)/(.+)/(%l+)$")
  local route = kind and routes[("%s /%s/{name}/%s"):format(method, kind, action)]
  if route then return route, name, kind end
  kind, name = path:match("^/(%l+)/(.+)$")
  return kind and routes[("%s /%s/{name}"):format(method, kind)], name, kind
end

function Engine:serve(request, connection)
  local path, parameters = request.path:match("^([^?]*)%??(.*)$")
  local route, name, kind = find(request.method, (path:gsub("^/v%d[%d.]*", "")))
  if not route then error(("the stand-in for the engine has no %s %s"):format(request.method, request.path)) end
  local call = { connection = connection, query = query.values(parameters), name = name and url.unescape(name),
    body = (request.headers["content-type"] or ""):find("json", 1, true) and json.decode_raw(request.body) or nil }
  if kind == "containers" then
    call.container = self:container(name)
    if not call.container then return answer(connection, 404, { message = "No such container: " .. name }) end
  end
  route(self, call)
end

--- Makes the handler.
---@param options table directory: what volumes report as their place
---@return table handler for http_server.listen
return function(options)
  local engine = setmetatable({ containers = {}, volumes = {}, directory = options.directory }, Engine)
  return { on_request = function(request, connection) engine:serve(request, connection) end }
end

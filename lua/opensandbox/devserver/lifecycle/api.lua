--- The lifecycle API at `/` and at `/v1`: authorization, the way to the routes and to the proxy, and the common part of the routes.

local each = require "opensandbox.base.each"
local gateway = require "opensandbox.devserver.lifecycle.gateway"
local json = require "opensandbox.base.json"
local query = require "opensandbox.devserver.http.query"
local random = require "opensandbox.base.random"
local router = require "opensandbox.devserver.http.router"
local validation = require "opensandbox.devserver.http.validation"
local websocket = require "opensandbox.devserver.http.websocket"

local SERVER_VERSION = "1.1.1" -- of the real server that this one behaves like
local MAX_BODY_SIZE = 16 * 1024 * 1024

local Call = {}
Call.__index = Call

function Call:answer(answer)
  self.response:json(answer.status, answer.value)
end

--- Returns the last value of a query parameter, as the real service does.
function Call:parameter(name)
  local values = self.query[name]
  return values and values[#values]
end

--- Reads the body.
---@param callback fun(text: string)
function Call:text(callback)
  self.request:body(MAX_BODY_SIZE, callback)
end

--- Reads the body and checks it. An invalid one is answered here.
---@param check_body fun(entries: table, location: table, value: any)
---@param callback fun(value: any, text: string)
---@param default? any stands for an empty body
function Call:body(check_body, callback, default)
  self:text(function(text)
    if text == "" and default ~= nil then return callback(default, text) end
    local value, answer = validation.body(text, self.request.headers["content-type"], check_body)
    if answer then return self:answer(answer) end
    callback(value, text)
  end)
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

--- Answers with one page of a list.
---@param find fun(): table?, string?, string? returns the list, or nil with code and message of a bad request
---@param describe fun(item: table): table
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

--- Returns the port of the path. An invalid one is answered here.
---@param entries? table[] faults of other parameters, which are answered together
function Call:port(entries)
  entries = entries or {}
  local port = validation.integer(entries, { "path", "port" }, self.parameters.port)
  if entries[1] then
    self:answer(validation.unprocessable(entries))
  elseif port < 1 or port > 65535 then
    self.response:fail(400, "DOCKER::INVALID_PORT", "Port must be between 1 and 65535.")
  else
    return port
  end
end

local routes = {}
for _, name in ipairs {
  "sandbox_routes", "snapshot_routes", "template_routes", "diagnostics_routes", "network_policy_routes", "pool_routes",
} do
  for route, handler in each(require("opensandbox.devserver.lifecycle." .. name)) do routes[route] = handler end
end
local mounted = router.new(routes)

local Lifecycle = {}
Lifecycle.__index = Lifecycle

--- Creates the handler of the API.
---@param options table `store`, `snapshots`, `templates` (nil: the server has none), `key`, `gateway_port`
---@return function handler for `http.listen`
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

function Lifecycle:call(request, response, parameters, mount)
  return setmetatable({
    store = self.store, snapshots = self.snapshots, templates = self.templates, gateway_port = self.gateway_port,
    request = request, response = response, mount = mount, parameters = parameters, query = query.values(request.query),
  }, Call)
end

-- The proxy `/sandboxes/{id}/proxy/{port}/...`, which asks for no key. Returns whether the request was one for it.
function Lifecycle:proxied(request, response)
  local mount = request.path:find("^/v1/") and "/v1" or ""
  local id, port, path = request.path:sub(#mount + 1):match("^/sandboxes/([^/]+)/proxy/([^/]+)%f[/%z](.*)$")
  if not id then return false end
  if websocket.is_requested(request) then
    gateway.proxy_websocket(self.store, id, port, path, request, response)
    return true
  end
  local call = self:call(request, response, { id = id, port = port }, mount)
  if not gateway.PROXIED_METHODS[request.method] then
    response:header("allow", "PATCH, GET, PUT, POST, DELETE")
    response:json(405, { detail = "Method Not Allowed" })
    return true
  end
  local number = call:port()
  local sandbox = number and call:sandbox()
  if sandbox then gateway.proxy(sandbox, number, path, request, response) end
  return true
end

-- Returns the methods that a 405 names: those of the route that is declared first, as in the real server.
local function allowed(route, methods)
  local has = {}
  for _, method in ipairs(methods) do has[method] = true end
  local is_collection = route:find("^/%a+$") ~= nil
  return is_collection and has.POST and "POST" or has.GET and "GET" or methods[1]
end

function Lifecycle:handle(request, response)
  response.json_type = "application/json"
  local id = (request.headers["x-request-id"] or ""):match("^%s*(.-)%s*$")
  response:header("X-Request-ID", id ~= "" and id or random.hex(16))
  response:header("vary", "Origin")

  if self:proxied(request, response) then return end
  local path = request.path
  local get = request.method == "GET"
  if get and path == "/health" then return response:json(200, { status = "healthy" }) end
  if get and path == "/version" then return response:json(200, { version = SERVER_VERSION }) end
  if not self:authorized(request, response) then return end

  local mount = path:find("^/v1/") and "/v1" or ""
  local route = path:sub(#mount + 1)
  local found, parameters = mounted:find(request.method, route)
  if found then
    return found(self:call(request, response, parameters, mount))
  elseif parameters[1] then
    response:header("allow", allowed(route, parameters))
    return response:json(405, { detail = "Method Not Allowed" })
  end
  local shorter = route:match("^(/.+)/$")
  local existing, methods = mounted:find(request.method, shorter or "")
  if existing or methods[1] then
    local parts = request.query ~= "" and "?" .. request.query or ""
    response:header("location", ("http://%s%s%s%s"):format(request.headers.host or "", mount, shorter, parts))
    return response:empty(307)
  end
  response:json(404, { detail = "Not Found" })
end

return { handler = handler }

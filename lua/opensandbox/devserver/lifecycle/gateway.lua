--- The two ways to a port of a sandbox: the gateway, and the proxy of the lifecycle server.
--
-- execd and the egress sidecar are parts of this server. Any other port is one of this machine, because a sandbox has no network of
-- its own.

local core = require "opensandbox.core"
local execd = require "opensandbox.devserver.execd.routes"
local ports = require "opensandbox.lifecycle.ports"
local proxy = require "opensandbox.devserver.http.proxy"
local query = require "opensandbox.devserver.http.query"
local url = require "opensandbox.base.url"
local utf8 = require "opensandbox.base.utf8"

local gateway = {}

local HOST = "127.0.0.1"
local MAX_REASON = 123 -- bytes that fit into a close frame
local MAPPED_PORT = 8080 -- the one port that a real server on Docker maps to a port of its own

gateway.PROXIED_METHODS = { GET = true, POST = true, PUT = true, DELETE = true, PATCH = true }

local NOT_FORWARDED = { "host", "authorization", "cookie", "open-sandbox-api-key" }

--- Returns the endpoint of a port as `host:port/path`. As on a real server, all ports but one are reached through execd's proxy.
---@param sandbox table
---@param port integer
---@param gateway_port integer
---@return string
function gateway.endpoint(sandbox, port, gateway_port)
  if port == MAPPED_PORT then return ("%s:%d"):format(HOST, port) end
  return ("%s:%d/%s/proxy/%d"):format(HOST, gateway_port, sandbox.id, port)
end

-- Answers with an error of the services in front of a sandbox.
local function fail(response, status, code, message)
  response.json_type = "application/json"
  response:fail(status, code, message)
end

--- Answers a request to the gateway, `/{sandbox}/...`: the rest of the path is execd's.
---@param store table
---@return function handler for `http.listen`
function gateway.handler(store)
  return function(request, response)
    local id, path = request.path:match("^/([^/]+)(.*)$")
    local sandbox = id and store:get(id)
    if not sandbox then
      return response:send(404, { { "Content-Type", "text/plain; charset=utf-8" } },
        ("OpenSandbox Ingress: sandbox %s not found"):format(id or ""))
    elseif sandbox.exit then
      return fail(response, 502, "BACKEND_CONNECTION_FAILED",
        ("Could not connect to the backend sandbox %s: All connection attempts failed"):format(id))
    end
    sandbox:answer(request, response, function() execd.handle(sandbox, path == "" and "/" or path, request, response) end)
  end
end

-- Rewrites a query as the real service does: it is read as a form in UTF-8, and the values of a name are written together.
local function rewrite_query(text)
  local names, values = {}, {}
  for _, pair in ipairs(query.pairs(text)) do
    local name = pair[1]
    if not values[name] then
      names[#names + 1], values[name] = name, {}
    end
    table.insert(values[name], pair[2])
  end
  local function form(value) return (url.escape(utf8.replace_invalid(value)):gsub("%%20", "+")) end
  local parts = {}
  for _, name in ipairs(names) do
    for _, value in ipairs(values[name]) do parts[#parts + 1] = form(name) .. "=" .. form(value) end
  end
  return table.concat(parts, "&")
end

local function remove_dot_segments(path)
  local kept = {}
  for segment in (path .. "/"):gmatch("([^/]*)/") do
    if segment == ".." then
      if #kept > 1 then kept[#kept] = nil end
    elseif segment ~= "." then
      kept[#kept + 1] = segment
    end
  end
  return table.concat(kept, "/")
end

-- Rewrites a path as the real service does: it is decoded, and the result is read as a part of a URL. So "%3F" begins a query,
-- everything after "%23" is lost, and "%25" stands for a percent sign that is decoded once more.
---@return string? path nil for a refused path
---@return string query of the path; without a path the problem
local function normalize_forwarded_path(path)
  local decoded = url.unescape(path)
  local bad = decoded:find("[%z\1-\31\127]")
  if bad then return nil, ("Invalid non-printable ASCII character in URL, byte %d."):format(decoded:byte(bad)) end
  local text = decoded:gsub("#.*$", ""):gsub('[ "<>`{}\128-\255]', function(character)
    return ("%%%02X"):format(character:byte())
  end)
  local before, inner_query = text:match("^([^?]*)%??(.*)$")
  before = remove_dot_segments(before)
  return before == "" and "/" or before, inner_query
end

local MESSAGES = {
  BACKEND_CONNECTION_FAILED = "Could not connect to the backend sandbox %s:%d: %s",
  BACKEND_RESPONSE_FAILED = "The backend sandbox %s:%d dropped the connection or sent an invalid response: %s",
  BACKEND_TIMEOUT = "The backend sandbox %s:%d did not answer in time: %s",
}

-- Hands a request to the service at a port.
local function dispatch(sandbox, port, request, response)
  local function failed(status, code, message)
    fail(response, status, code, MESSAGES[code] and MESSAGES[code]:format(HOST, port, message) or message)
  end
  if port == ports.EXECD then
    execd.handle(sandbox, request.path, request, response)
  elseif port ~= ports.EGRESS then
    proxy.forward(request, response, port, failed)
  elseif sandbox.egress then
    sandbox.egress:handle(request, response)
  else
    failed(502, "BACKEND_CONNECTION_FAILED", "All connection attempts failed")
  end
end

-- Accepts a WebSocket and closes it, as the real proxy does for every failure.
local function refuse_websocket(request, response, code, reason)
  local key = request.headers["sec-websocket-key"] or ""
  if #key ~= 24 then return response:empty(400) end
  response:switch({
    { "Upgrade", "websocket" }, { "Connection", "Upgrade" }, { "Sec-WebSocket-Accept", core.websocket_accept(key) },
  }, function() end, function() end)
  response:put(core.websocket_close_frame(code, reason:sub(1, MAX_REASON)))
end

--- Answers a request for a WebSocket to the proxy of the lifecycle server. It needs no API key.
---@param store table
---@param id string of the sandbox, which may be unknown
---@param port string
---@param path string for the service at the port
---@param request table
---@param response table
function gateway.proxy_websocket(store, id, port, path, request, response)
  local sandbox = store:get(id)
  if not sandbox or sandbox.exit then
    local message = "{'code': 'DOCKER::SANDBOX_NOT_FOUND', 'message': 'Sandbox %s not found.'}"
    return refuse_websocket(request, response, 1011, message:format(id))
  end
  for _, name in ipairs(NOT_FORWARDED) do request.headers[name] = nil end
  request.path = ("/%s/proxy/%s%s"):format(id, port, path)
  local function refused(status) refuse_websocket(request, response, status == 502 and 1011 or 1008, "") end
  proxy.forward(request, response, store.gateway_port, refused, { refused = refused, keeps_client = true })
end

--- Answers a request to the proxy of the lifecycle server, `/sandboxes/{id}/proxy/{port}/...`. It needs no API key, and the key is
--- not forwarded.
---@param sandbox table
---@param port integer
---@param path string for the service at the port
---@param request table
---@param response table
function gateway.proxy(sandbox, port, path, request, response)
  local target, inner_query = normalize_forwarded_path(path)
  if not target then
    return response:fail(500, "GENERAL::UNKNOWN_ERROR", "An internal error occurred in the proxy: " .. inner_query)
  elseif sandbox.exit then
    return response:fail(500, "DOCKER::NETWORK_MODE_ENDPOINT_UNAVAILABLE",
      "Container is running but has no assigned IP address.")
  end
  request.path, request.query = target, request.query ~= "" and rewrite_query(request.query) or inner_query
  proxy.add_forwarded_headers(request)
  request.headers["x-forwarded-host"] = request.headers["x-forwarded-host"] or request.headers.host
  for _, name in ipairs(NOT_FORWARDED) do request.headers[name] = nil end
  sandbox:answer(request, response, function() dispatch(sandbox, port, request, response) end)
end

return gateway

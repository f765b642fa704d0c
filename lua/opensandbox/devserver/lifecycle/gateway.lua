--- What answers at a port of a sandbox, and the two ways there: the gateway and the lifecycle server's own proxy.
--
-- execd and the egress sidecar are parts of this server. At any other port it is a program that listens on this machine,
-- for a sandbox has no network of its own.

local execd = require "opensandbox.devserver.execd.routes"
local proxy = require "opensandbox.devserver.http.proxy"
local url = require "opensandbox.devserver.base.url"
local utf8 = require "opensandbox.base.utf8"

local ports = { EXECD = 44772, EGRESS = 18080 }

local METHODS = { GET = true, POST = true, PUT = true, DELETE = true, PATCH = true }
local WITHHELD = { "host", "authorization", "cookie", "open-sandbox-api-key" }

-- Hands a request, whose path is that of the program, to what answers at the port.
local function reach(sandbox, port, request, response)
  local function failed(status, code, message)
    response.json_type = "application/json"
    if code == "BACKEND_CONNECTION_FAILED" then
      message = ("Could not connect to the backend sandbox %s: %s"):format(sandbox.id, message)
    end
    response:fail(status, code, message)
  end
  if sandbox.exit or (port == ports.EGRESS and not sandbox.egress) then
    return failed(502, "BACKEND_CONNECTION_FAILED", "connection refused")
  end
  local function answer()
    sandbox.responses[response] = true
    if port == ports.EXECD then
      execd.handle(sandbox, request.path, request, response)
    elseif port == ports.EGRESS then
      sandbox.egress:handle(request, response)
    else
      proxy.forward(request, response, port, failed)
    end
  end
  if sandbox.paused then return sandbox:hold(request, response, answer) end
  answer()
end

--- Answers requests to the gateway: `/{sandbox}/{port}/...`, handed on as they are.
-- @treturn function for `http.listen`
function ports.gateway(store)
  return function(request, response)
    local id, port, path = request.path:match("^/([^/]+)/(%d+)%f[/%z](.*)$")
    local sandbox = id and store:get(id)
    if not sandbox then
      return response:send(404, { { "Content-Type", "text/plain; charset=utf-8" } },
        ("OpenSandbox Ingress: sandbox %s not found"):format(id or ""))
    end
    request.path = path == "" and "/" or path
    reach(sandbox, tonumber(port), request, response)
  end
end

-- A query as the real service sends it on: read as a form in UTF-8 and written again, the values of a name together.
local function rewritten(query)
  local names, values = {}, {}
  for _, pair in ipairs(url.pairs(query)) do
    local name = pair[1]
    if not values[name] then
      names[#names + 1], values[name] = name, {}
    end
    table.insert(values[name], pair[2])
  end
  local function form(text) return (url.encode(utf8.replace_invalid(text)):gsub("%%20", "+")) end
  local pieces = {}
  for _, name in ipairs(names) do
    for _, value in ipairs(values[name]) do pieces[#pieces + 1] = form(name) .. "=" .. form(value) end
  end
  return table.concat(pieces, "&")
end

local function without_dots(path)
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

-- A path as the real service sends it on: decoded, and what comes out read as a part of a URL. So "%3F" begins a query,
-- what follows "%23" is lost, and "%25" stands for a percent sign that is decoded once more.
-- @treturn[1] string the path
-- @treturn[1] string the query that was in it
-- @treturn[2] nil
-- @treturn[2] string what is wrong with it
local function resent(path)
  local decoded = url.decode(path)
  local bad = decoded:find("[%z\1-\31\127]")
  if bad then return nil, ("Invalid non-printable ASCII character in URL, byte %d."):format(decoded:byte(bad)) end
  local text = decoded:gsub("#.*$", ""):gsub('[ "<>`{}\128-\255]', function(character)
    return ("%%%02X"):format(character:byte())
  end)
  local before, query = text:match("^([^?]*)%??(.*)$")
  before = without_dots(before)
  return before == "" and "/" or before, query
end

--- The lifecycle server's proxy, `/sandboxes/{id}/proxy/{port}/...`: no key is asked for, and none is passed on.
function ports.proxied(store, id, port, path, request, response)
  local function unknown(status, message) response:fail(status, "GENERAL::UNKNOWN_ERROR", message) end
  local sandbox = store:get(id)
  if not METHODS[request.method] then
    return response:json(405, { detail = "Method Not Allowed" })
  elseif not sandbox then
    return response:fail(404, "DOCKER::SANDBOX_NOT_FOUND", ("Sandbox %s not found."):format(id))
  end
  if (request.headers.upgrade or ""):lower() == "websocket" then
    return unknown(400, "The development server's proxy does not carry WebSockets.")
  end
  local target, query = resent(path)
  if not target then return unknown(500, "An internal error occurred in the proxy: " .. query) end
  request.path, request.query = target, request.query ~= "" and rewritten(request.query) or query
  proxy.introduce(request)
  request.headers["x-forwarded-host"] = request.headers["x-forwarded-host"] or request.headers.host
  for _, name in ipairs(WITHHELD) do request.headers[name] = nil end
  reach(sandbox, tonumber(port), request, response)
end

return ports

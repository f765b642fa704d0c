--- The lifecycle API of a development server, and what its endpoints lead to, spoken without the library under test.

local json = require "opensandbox.base.json"
local http_client = require "spec.support.http_client"

local Api = {}
Api.__index = Api

--- @param server as `process.devserver` returns it
local function new(server)
  return setmetatable({ server = server }, Api)
end

-- JSON for a table; a string goes as it is.
local function encoded(body)
  return type(body) == "table" and assert(json.encode(body)) or body
end

--- One request with the key. The answer has its decoded body as `value`, if it is JSON.
function Api:call(method, path, body, headers)
  local all = { ["OPEN-SANDBOX-API-KEY"] = self.server.key }
  for name, value in pairs(headers or {}) do all[name] = value end
  if body and not all["Content-Type"] then all["Content-Type"] = "application/json" end
  local answer = assert(http_client.request { url = self.server.url .. path, method = method, body = encoded(body), headers = all })
  answer.value = json.decode(answer.body)
  return answer
end

--- The answer to a request for a new sandbox.
function Api:try_create(changes)
  local body = {
    image = { uri = "any" }, resourceLimits = json.decode "{}", entrypoint = { "tail", "-f", "/dev/null" },
  }
  for name, value in pairs(changes or {}) do body[name] = value or nil end
  return self:call("POST", "/v1/sandboxes", body)
end

--- Makes a sandbox and returns the server's description of it.
function Api:create(changes)
  local answer = self:try_create(changes)
  assert(answer.status == 202, answer.body)
  return answer.value
end

local Endpoint = {}
Endpoint.__index = Endpoint

--- An endpoint of a sandbox, with the method `send`.
-- @param query such as "?use_server_proxy=true"
function Api:endpoint(id, port, query)
  local answer = self:call("GET", ("/v1/sandboxes/%s/endpoints/%d%s"):format(id, port, query or ""))
  assert(answer.status == 200, answer.body)
  return setmetatable(answer.value, Endpoint)
end

--- One request to the endpoint with its headers. The answer has its decoded body as `value`, if it is JSON.
-- @param options `headers`, `body`, `on_chunk`, `timeout`
function Endpoint:send(method, path, options)
  options = options or {}
  local headers = {}
  for _, source in ipairs { self.headers or {}, options.headers or {} } do
    for name, value in pairs(source) do headers[name] = value end
  end
  local body = options.body
  if type(body) == "table" and not options.chunked then body = encoded(body) end
  local answer = assert(http_client.request {
    url = "http://" .. self.endpoint .. path, method = method, headers = headers, body = body, on_chunk = options.on_chunk,
    timeout = options.timeout or 20,
  })
  answer.value = json.decode(answer.body)
  return answer
end

return { new = new, encoded = encoded }

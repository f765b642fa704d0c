--- The client's options about where requests go and what they carry: hosts of endpoints, the key's header and its destinations, hooks.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local KEY = "key-of-the-server"

-- The lifecycle server and the sandboxes. The id is the host of the endpoint and, after "_", its path.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local refusals = 0
  return function(request, connection)
    local id = request.path:match("^/v1/sandboxes/([^/?]+)/endpoints/")
    if id then
      id = id:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
      local host, path = id:match("^([^_]+)(.*)$")
      local port = request.headers.host:match("%d+$")
      return connection:respond(200, JSON, json.encode { endpoint = host .. ":" .. port .. path:gsub("_", "/"),
        headers = { ["X-Route"] = "r1" } })
    elseif request.path == "/version" then
      refusals = refusals + 1
      if refusals % 3 ~= 0 then return connection:respond(503, { ["Retry-After"] = "0" }, "no") end
      return connection:respond(200, JSON, '{"version":"1.1.1"}')
    elseif request.path == "/v1/sandboxes/echo" then
      return connection:respond(400, JSON, json.encode { code = "X", message = "you sent " .. request.headers.traceparent })
    end
    connection:respond(200, JSON, '{"id":"s","status":{"state":"Running"}}')
  end
]]

local server, other, client

setup(function() server, other = fault_server.start(SERVER), fault_server.start(SERVER) end)
teardown(function()
  server:stop()
  other:stop()
end)
after_each(function()
  if client then client:close() end
  client = nil
end)

local function new(opts, key)
  opts = opts or {}
  opts.retry = opts.retry or false
  client = opensandbox.new(server.url, key or KEY, opts)
  return client
end

local function last_request(of)
  local requests = (of or server):requests()
  return requests[#requests]
end

local function raises(expected, fn)
  local ok, message = pcall(fn)
  assert.is_false(ok, "nothing was raised")
  assert.truthy(tostring(message):find(expected, 1, true), message)
  assert.truthy(tostring(message):find("client_options_spec.lua:%d+: "), message)
end

describe("endpoint_hosts", function()
  it("replaces the host of an endpoint, and neither its port nor its path", function()
    new { endpoint_hosts = { ["Host.Docker.Internal"] = "localhost", ["10.0.0.5"] = "127.0.0.1" } }
    local endpoint = assert(client:get_endpoint("host.docker.internal_some_path", 80))
    assert.equal(("http://localhost:%d/some/path"):format(server.port), endpoint.url)
    assert.same({ "localhost", server.port, { ["X-Route"] = "r1" } }, { endpoint.host, endpoint.port, endpoint.headers })
    assert.equal(("http://127.0.0.1:%d"):format(server.port), assert(client:get_endpoint("10.0.0.5", 80)).url)
    assert.equal(("http://10.0.0.6:%d"):format(server.port), assert(client:get_endpoint("10.0.0.6", 80)).url)
    assert.equal(("http://not.host.docker.internal:%d"):format(server.port),
      assert(client:get_endpoint("not.host.docker.internal", 80)).url)
    assert(client:ping(assert(client:discover_execd("HOST.docker.internal"))))
  end)

  it("takes IPv6 addresses in brackets", function()
    new { endpoint_hosts = { ["[fd00::1]"] = "[::1]" } }
    assert.equal(("http://[::1]:%d/a"):format(server.port), assert(client:get_endpoint("[fd00::1]_a", 80)).url)
  end)

  it("takes the proxy of the server for that of the server after the change", function()
    new { endpoint_hosts = { ["host.docker.internal"] = "127.0.0.1" }, use_server_proxy = true }
    assert(client:ping(assert(client:discover_execd("host.docker.internal"))))
    assert.equal(KEY, last_request().headers["open-sandbox-api-key"])
  end)

  it("raises for what is no host", function()
    for _, wrong in ipairs { "http://localhost", "localhost:80", "a/b", "user@host", "::1", "a b" } do
      raises("option 'endpoint_hosts'", function() new { endpoint_hosts = { ["a.example"] = wrong } } end)
      raises("option 'endpoint_hosts'", function() new { endpoint_hosts = { [wrong] = "a.example" } } end)
    end
    raises("option 'endpoint_hosts'", function() new { endpoint_hosts = { "localhost" } } end)
  end)
end)

describe("the key", function()
  it("goes by the name of key_header, and by no other", function()
    new({ key_header = "X-Gateway-Key" })
    assert(client:get_sandbox("s"))
    local sent = last_request().headers
    assert.same({ KEY, nil }, { sent["x-gateway-key"], sent["open-sandbox-api-key"] })
    raises("option 'key_header': \"two words\" is not a header name", function() new { key_header = "two words" } end)
  end)

  it("goes to no sandbox and to no proxy of another origin", function()
    new { key_header = "X-Gateway-Key" }
    local endpoint = { url = other.url, headers = {}, proxied = true }
    assert(client:ping(endpoint))
    assert.is_nil(last_request(other).headers["x-gateway-key"])
    new { proxy_origins = { other.url } }
    assert(client:ping { url = other.url, headers = {} }) -- no proxy
    assert.is_nil(last_request(other).headers["open-sandbox-api-key"])
  end)

  it("goes to the proxies of the origins that the user has named", function()
    new { proxy_origins = { "https://proxy.example", other.url .. "/" } }
    local headers = { ["open-sandbox-API-key"] = "of the endpoint" }
    assert(client:ping { url = other.url .. "/proxy/44772", headers = headers, proxied = true })
    assert.equal(KEY, last_request(other).headers["open-sandbox-api-key"])
    assert(client:ping { url = server.url, headers = {}, proxied = true })
    assert.equal(KEY, last_request().headers["open-sandbox-api-key"])
  end)

  it("needs an origin that is one", function()
    for _, wrong in ipairs {
      "proxy.example", "https://proxy.example/path", "https://a:b@proxy.example", "ftp://proxy.example", "",
    } do
      raises("option 'proxy_origins'", function() new { proxy_origins = { wrong } } end)
    end
  end)
end)

describe("on_request", function()
  it("can add headers to requests to the server and to sandboxes, and sees which they are", function()
    local seen = {}
    new { headers = { Tracestate = "of the client" }, on_request = function(request)
      seen[#seen + 1] = request.op .. " to the " .. request.destination
      request.headers.traceparent = "00-trace-" .. #seen
      request.headers.TraceState = "of the hook"
    end }
    assert(client:get_sandbox("s"))
    local sent = last_request().headers
    assert.same({ "00-trace-1", "of the hook" }, { sent.traceparent, sent.tracestate })
    assert(client:ping(other.url))
    assert.equal("00-trace-2", last_request(other).headers.traceparent)
    assert.same({ "get_sandbox to the server", "ping to the sandbox" }, seen)
  end)

  it("cannot change what the library sets, and its values are in no error", function()
    new { on_request = function(request)
      request.headers["open-sandbox-api-key"], request.headers["Content-Type"] = "mine", "text/plain"
      request.headers.traceparent = "a-secret-of-the-hook"
    end }
    assert(client:patch_metadata("s", { a = "b" }))
    local sent = last_request().headers
    assert.same({ KEY, "application/json" }, { sent["open-sandbox-api-key"], sent["content-type"] })
    local _, err = client:get_sandbox("echo")
    assert.equal("you sent ***", err.message)
  end)

  it("raises for headers that are not valid, before anything is sent", function()
    local headers
    new { on_request = function(request) request.headers = headers end }
    local before = #server:requests()
    for _, wrong in ipairs { { ["a b"] = "x" }, { a = "x\r\nInjected: y" }, { "x" }, { a = {} }, { ["Content-Length"] = "5" },
      { host = "x" }, { ["Transfer-Encoding"] = "chunked" } } do
      headers = wrong
      raises("get_sandbox: the headers that on_request adds", function() client:get_sandbox("s") end)
    end
    headers = false
    raises("get_sandbox: the headers that on_request adds", function() client:get_sandbox("s") end)
    assert.equal(before, #server:requests())
  end)
end)

describe("on_retry", function()
  it("is called before each new attempt, with the last error", function()
    local seen = {}
    new { retry = { base_delay = 0.01 }, on_retry = function(retry) seen[#seen + 1] = retry end }
    assert.equal("1.1.1", assert(client:get_version()))
    assert.equal(2, #seen)
    for i, retry in ipairs(seen) do
      assert.same({ "get_version", "GET", server.url .. "/version", "server", i, 503 },
        { retry.op, retry.method, retry.url, retry.destination, retry.attempt, retry.error.status })
      assert.is_true(retry.delay >= 0 and retry.delay < 1)
    end
  end)

  it("can stop the call by an error, which reaches the caller", function()
    new { retry = { base_delay = 0.01 }, on_retry = function() error("no more", 0) end }
    local ok, message = pcall(client.get_version, client)
    assert.same({ false, "no more" }, { ok, message })
    client.http.retry.max_attempts = 1
    local _, err = client:get_version()
    assert.equal(503, err.status)
  end)
end)

--- Creates and deletes that take their time, as those of real servers do: `--create-delay`, `--delete-delay`.

local uv = require "luv"
local json = require "opensandbox.base.json"
local list_directory = require "opensandbox.devserver.base.list_directory"
local http_client = require "spec.support.http_client"
local process = require "spec.support.process"
local raw_socket = require "spec.support.raw_socket"
local uv_loop = require "spec.support.uv_loop"

local BODY = json.encode {
  image = { uri = "python:3.12" }, resourceLimits = { cpu = "1" }, entrypoint = { "tail", "-f", "/dev/null" },
}

local server
before_each(function() server = process.devserver { grace = 0, args = { "--create-delay", "0.4", "--delete-delay", "0.3" } } end)
after_each(function() server:stop() end)

local function request(method, path, body)
  local headers = { ["OPEN-SANDBOX-API-KEY"] = server.key, ["Content-Type"] = body and "application/json" or nil }
  return assert(http_client.request { url = server.url .. path, method = method, body = body, headers = headers })
end

local function listed()
  return json.decode(request("GET", "/v1/sandboxes").body).items
end

-- Sends a create and does not wait for its answer.
local function send_create()
  local socket = raw_socket.connect(tonumber(server.url:match("%d+$")))
  socket:send(("POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nOPEN-SANDBOX-API-KEY: %s\r\nContent-Type: application/json\r\n"
    .. "Content-Length: %d\r\n\r\n%s"):format(server.key, #BODY, BODY))
  return socket
end

describe("a create that takes its time", function()
  it("is answered after that time, and lists the sandbox from half of it on", function()
    local began = uv.hrtime()
    local answer = request("POST", "/v1/sandboxes", BODY)
    assert.equal(202, answer.status)
    assert.is_true(uv.hrtime() - began >= 0.4e9)
    assert.equal(1, #listed())
  end)

  it("makes the sandbox although its client has gone", function()
    local socket = send_create()
    assert.same({}, listed())
    socket:close()
    uv_loop.wait_until(function() return #listed() == 1 end)
  end)

  it("makes none when the server stops meanwhile, and leaves no file", function()
    local root = server.child:stderr_text():match("files in (%S+)")
    local socket = send_create()
    assert.same({}, listed())
    server.child:kill("sigterm")
    assert.same({ 0, 0 }, { server.child:wait(10) })
    socket:close()
    assert.is_nil(list_directory(root))
  end)
end)

describe("a delete that takes its time", function()
  it("is answered after that time, and the sandbox is there until then", function()
    local id = json.decode(request("POST", "/v1/sandboxes", BODY).body).id
    local socket = raw_socket.connect(tonumber(server.url:match("%d+$")))
    local began = uv.hrtime()
    socket:send(("DELETE /v1/sandboxes/%s HTTP/1.1\r\nHost: x\r\nOPEN-SANDBOX-API-KEY: %s\r\n\r\n"):format(id, server.key))
    assert.equal("Running", json.decode(request("GET", "/v1/sandboxes/" .. id).body).status.state)
    uv_loop.wait_until(function() return request("GET", "/v1/sandboxes/" .. id).status == 404 end)
    assert.is_true(uv.hrtime() - began >= 0.3e9)
    socket:close()
  end)

  it("finds nothing when another one was quicker", function()
    local id = json.decode(request("POST", "/v1/sandboxes", BODY).body).id
    local socket = raw_socket.connect(tonumber(server.url:match("%d+$")))
    socket:send(("DELETE /v1/sandboxes/%s HTTP/1.1\r\nHost: x\r\nOPEN-SANDBOX-API-KEY: %s\r\n\r\n"):format(id, server.key))
    request("GET", "/health")
    assert.equal(404, request("DELETE", "/v1/sandboxes/" .. id).status)
    socket:close()
  end)
end)

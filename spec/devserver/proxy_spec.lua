--- The ways to a sandbox's ports through the development server: its gateway, the lifecycle server's proxy, execd's proxy.

local uv = require "luv"
local json = require "opensandbox.base.json"
local api_client = require "spec.support.api_client"
local fault_server = require "spec.support.fault_server"
local http_client = require "spec.support.http_client"
local multipart = require "spec.support.multipart"
local process = require "spec.support.process"

-- A program in a sandbox: it says what it was asked, or does what the path says.
local PROGRAM = [[
  local actions = {}

  function actions.reply(_, connection)
    connection:respond(207, { { "X-Kind", "one" }, { "X-Kind", "two" }, { "Content-Encoding", "none" }, { "Keep-Alive", "5" } },
      "a\0b")
  end
  function actions.none(_, connection) connection:respond(204, { ["X-Kind"] = "none" }, "") end
  function actions.missing(_, connection) connection:respond(404, { ["Content-Type"] = "text/plain" }, "no such page") end
  function actions.early(_, connection) connection:start(103, {}):respond(200, {}, "late") end
  function actions.stream(_, connection)
    connection:start(200, { ["Content-Type"] = "text/event-stream" }):chunk("first"):silence()
  end
  function actions.cut(_, connection) connection:start(200, { ["Content-Length"] = "10" }):chunk("abc"):close() end
  function actions.halfchunk(_, connection) connection:start(200, {}):chunk("abc"):close() end
  function actions.untilend(_, connection) connection:send("HTTP/1.0 200 OK\r\n\r\nall there is"):close() end
  function actions.hangup(_, connection) connection:close() end
  function actions.garbage(_, connection) connection:send("SSH-2.0-x\r\n\r\n"):close() end
  function actions.large(_, connection)
    connection:start(200, {})
    for index = 1, 64 do connection:chunk((("%08d"):format(index)):rep(16384)) end
    connection:finish()
  end

  function actions.huge(_, connection)
    connection:start(200, {})
    for _ = 1, 32 do connection:chunk(("y"):rep(1024 * 1024)) end
    connection:finish()
  end

  return {
    on_headers = function(request, connection)
      if request.path == "/slow" then connection:pause_reading():after(500, connection.resume_reading) end
    end,
    on_request = function(request, connection)
      if request.path == "/slow" then return connection:respond(200, {}, tostring(request.body_bytes)) end
      local action = actions[request.path:match("^/([a-z]+)$")]
      if action then return action(request, connection) end
      local heads = {}
      for name, value in pairs(request.headers) do heads[name] = value end
      connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode {
        method = request.method, target = request.path, headers = heads, body = request.body,
      })
    end,
    on_close = function(_, who) state.closed_by = who end,
  }
]]

local NAMES = {
  "with space", "per%cent", "%41", "a+b", "hash#tag", "question?mark", "am&per=sand", [[quo"te's]], "new\nline", "tab\tbed",
  "grüße-世界", "semi;colon,comma", "back\\slash", "star*[x]{y}", "~tilde", "dot.", "<angle>|^`",
}

local function escaped(text)
  return (text:gsub("[^%w%-._~]", function(character) return ("%%%02X"):format(character:byte()) end))
end

describe("the development server's way to a port", function()
  local server, program, lifecycle, id

  setup(function()
    server = process.devserver { grace = 0.05 }
    program = fault_server.start(PROGRAM)
    lifecycle = api_client.new(server)
    id = lifecycle:create({ networkPolicy = json.decode "{}" }).id
  end)
  teardown(function()
    server:stop()
    program:stop()
  end)

  local function proxied()
    return lifecycle:endpoint(id, program.port, "?use_server_proxy=true")
  end

  -- The gateway leads to every port, although only execd's and the egress endpoint need it.
  local function gateway()
    local execd = lifecycle:endpoint(id, 44772)
    local endpoint = lifecycle:endpoint(id, 44772)
    endpoint.endpoint, endpoint.headers = execd.endpoint:gsub("44772$", tostring(program.port)), nil
    return endpoint
  end

  local function inner()
    local endpoint = lifecycle:endpoint(id, 44772)
    endpoint.endpoint = ("%s/proxy/%d"):format(endpoint.endpoint, program.port)
    return endpoint
  end

  for name, way in pairs { ["the server's proxy"] = proxied, ["the gateway"] = gateway, ["execd's proxy"] = inner } do
    describe("through " .. name, function()
      it("carries method, path, query, headers and body there", function()
        for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE" } do
          local body = method ~= "GET" and "b\0dy" or nil
          local got = way():send(method, "/some/path%20x?a=1&b=2", { body = body, headers = { ["X-Own"] = "v" } }).value
          assert.same({ method, "/some/path%20x?a=1&b=2", body or "", "v" },
            { got.method, got.target, got.body, got.headers["x-own"] })
          assert.equal(body and "4", got.headers["content-length"])
        end
      end)

      it("streams a body of unknown length", function()
        local pieces = {}
        for index = 1, 40 do pieces[index] = (("%04d"):format(index)):rep(10000) end
        local got = way():send("POST", "/x", { body = pieces, chunked = true }).value
        assert.equal(table.concat(pieces), got.body)
        assert.equal("chunked", got.headers["transfer-encoding"])
      end)

      it("brings status, headers and body back", function()
        local answer = way():send("GET", "/reply")
        assert.same({ 207, "a\0b", "3" }, { answer.status, answer.body, answer.headers["content-length"] })
        assert.equal("one, two", answer.headers["x-kind"])
        assert.equal("none", answer.headers["content-encoding"])
        assert.is_nil(answer.headers["keep-alive"])
        answer = way():send("GET", "/none")
        assert.same({ 204, "none", "" }, { answer.status, answer.headers["x-kind"], answer.body })
        answer = way():send("GET", "/missing")
        assert.same({ 404, "no such page" }, { answer.status, answer.body })
        assert.equal("all there is", way():send("GET", "/untilend").body)
      end)

      it("brings eight mebibytes back whole", function()
        local expected = {}
        for index = 1, 64 do expected[index] = (("%08d"):format(index)):rep(16384) end
        assert.is_true(table.concat(expected) == way():send("GET", "/large").body)
      end)

      it("brings the beginning of an answer before its end, and tells the program when the client has gone", function()
        local seen
        local answer = way():send("GET", "/stream", { on_chunk = function(text)
          seen = text
          return false
        end })
        assert.same({ "first", true }, { seen, answer.aborted })
        local deadline = os.time() + 10
        while program:connections().open > 0 do assert.is_true(os.time() < deadline) end
        assert.truthy(program:state().closed_by:find("^client"))
      end)

      it("cuts an answer that was cut", function()
        for _, path in ipairs { "/cut", "/halfchunk" } do
          local answer = way():send("GET", path)
          assert.same({ 200, "abc", true }, { answer.status, answer.body, answer.cut })
        end
      end)

      it("answers 502 when the program does not", function()
        for _, path in ipairs { "/hangup", "/garbage" } do
          local answer = way():send("GET", path)
          assert.equal(502, answer.status)
          -- That code would say that the request was not delivered.
          assert.is_nil(answer.body:find("BACKEND_CONNECTION_FAILED", 1, true))
        end
      end)
    end)
  end

  it("holds little of what a slow side has not taken", function()
    if not process.rss() then return pending("no /proc here") end
    local endpoint = proxied()
    endpoint:send("GET", "/large")
    local base = process.rss(server.pid).peak
    local size = 32 * 1024 * 1024
    assert.equal(tostring(size), endpoint:send("POST", "/slow", { body = ("x"):rep(size) }).body)
    local first = true
    local answer = endpoint:send("GET", "/huge", { on_chunk = function()
      if first then uv.sleep(600) end   -- reads nothing meanwhile
      first = false
    end })
    assert.equal(size, #answer.body)
    local grown = process.rss(server.pid).peak - base
    assert.is_true(grown < 16 * 1024, grown .. " KiB")
  end)

  it("answers 502 where nothing listens, with a code that says so", function()
    local closed = fault_server.start "return function() end"
    local port = closed.port
    closed:stop()
    local answer = lifecycle:endpoint(id, port, "?use_server_proxy=true"):send("POST", "/", { body = "x" })
    assert.equal(502, answer.status)
    assert.equal("BACKEND_CONNECTION_FAILED", answer.value.code)
    assert.truthy(answer.value.message:find("^Could not connect to the backend sandbox 127%.0%.0%.1:" .. port))
    local execd = lifecycle:endpoint(id, 44772)
    answer = execd:send("GET", ("/proxy/%d/"):format(port))
    assert.same({ 502, "Bad Gateway\n" }, { answer.status, answer.body })
    answer = execd:send("GET", "/proxy/")
    assert.same({ 400, "port is required\n" }, { answer.status, answer.body })
    execd.headers = nil
    assert.equal(502, execd:send("GET", ("/proxy/%d/"):format(port)).status)
    assert.equal(401, execd:send("GET", "/proxy/44772/ping").status)
    assert.equal(401, execd:send("GET", "/ping").status)
  end)

  it("answers for itself: methods, WebSockets, unknown sandboxes", function()
    local endpoint = proxied()
    assert.equal(405, endpoint:send("OPTIONS", "/").status)
    assert.equal(405, endpoint:send("HEAD", "/").status)
    local url = server.url .. "/v1/sandboxes/none/proxy/" .. program.port
    local answer = http_client.request { url = url .. "/x" }
    assert.same({ 404, "DOCKER::SANDBOX_NOT_FOUND" }, { answer.status, json.decode(answer.body).code })
    assert.equal(404, gateway():send("GET", "/missing").status)
  end)

  it("keeps to itself what the server's proxy withholds, and adds who asked", function()
    local endpoint = proxied()
    local host = server.url:gsub("^http://", "")
    local got = endpoint:send("GET", "/", { headers = {
      Authorization = "Bearer x", Cookie = "a=b", ["OPEN-SANDBOX-API-KEY"] = server.key, TE = "trailers",
      ["Proxy-Authorization"] = "x", ["X-Request-ID"] = "r1", ["User-Agent"] = "me",
    } }).value.headers
    assert.same({
      host = "127.0.0.1:" .. program.port, connection = "close", ["x-forwarded-proto"] = "http",
      ["x-forwarded-host"] = host, ["x-forwarded-for"] = "127.0.0.1", ["x-request-id"] = "r1", ["user-agent"] = "me",
    }, got)
    got = endpoint:send("GET", "/", { headers = {
      ["X-Forwarded-Proto"] = "https", ["X-Forwarded-Host"] = "h", ["X-Forwarded-For"] = "192.0.2.1",
    } }).value.headers
    assert.same({ "https", "h", "192.0.2.1" }, { got["x-forwarded-proto"], got["x-forwarded-host"], got["x-forwarded-for"] })
    assert.equal("/", endpoint:send("GET", "").value.target)
  end)

  it("writes queries and paths anew in the server's proxy", function()
    for sent, arrives in pairs {
      ["/?a=1&b=2&a=3&c"] = "/?a=1&a=3&b=2&c=", ["/?q=a%20b+c%2Bd"] = "/?q=a+b+c%2Bd", ["/?&&x=%C3%BC~"] = "/?x=%C3%BC~",
      ["/a%20b/%C3%BC"] = "/a%20b/%C3%BC", ["/a%2Fb"] = "/a/b", ["/a%3Fb=c"] = "/a?b=c", ["/a%3Fb=c?d=e"] = "/a?d=e",
      ["/a%23b"] = "/a", ["/a%2541"] = "/a%41", ["/a/./b/../c"] = "/a/c", ["/x//y/"] = "/x//y/", ["/a+b"] = "/a+b",
      ["/a%3Fb=c%20%C3%BC"] = "/a?b=c%20%C3%BC",
    } do
      assert.equal(arrives, proxied():send("GET", sent).value.target, sent)
    end
    local answer = proxied():send("GET", "/new%0Aline")
    assert.same({ 500, "GENERAL::UNKNOWN_ERROR" }, { answer.status, answer.value.code })
  end)

  it("leaves queries alone in execd's proxy, and decodes the slashes of paths", function()
    for sent, arrives in pairs {
      ["/%3F%23%25?a=1&b=2&a=3&c&q=x%20y+z"] = "/%3F%23%25?a=1&b=2&a=3&c&q=x%20y+z", ["/new%0Aline"] = "/new%0Aline",
      ["/a%2Fb%3F%25?a=1&b&a=%20"] = "/a/b%3F%25?a=1&b&a=%20",
    } do
      assert.equal(arrives, gateway():send("GET", sent).value.target)
      assert.equal(arrives, inner():send("GET", sent).value.target)
    end
  end)

  for name, query in pairs { ["the gateway"] = "", ["the server's proxy"] = "?use_server_proxy=true" } do
    it("keeps every name of a file through " .. name, function()
      local execd = lifecycle:endpoint(id, 44772, query)
      for index, file in ipairs(NAMES) do
        local path = ("/work/%s/%s"):format(index .. file, file)
        local content = "content of " .. file .. "\0"
        local body = table.concat {
          '--B\r\nContent-Disposition: form-data; name="metadata"; filename="m"\r\n\r\n', json.encode { path = path },
          '\r\n--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n', content, "\r\n--B--\r\n",
        }
        assert.is_truthy(multipart.parse(body, "multipart/form-data; boundary=B"))
        local answer = execd:send("POST", "/files/upload", {
          body = body, headers = { ["Content-Type"] = "multipart/form-data; boundary=B" },
        })
        assert.equal(200, answer.status, answer.body)
        answer = execd:send("GET", "/files/download?path=" .. escaped(path))
        assert.same({ 200, content }, { answer.status, answer.body }, path)
        answer = execd:send("GET", ("/files/info?path=%s&path=%s"):format(escaped(path), (escaped("/work"))))
        assert.equal("file", answer.value[path].type)
        assert.equal("directory", answer.value["/work"].type)
        answer = execd:send("GET", ("/directories/list?depth=1&path=%s"):format(escaped("/work/" .. index .. file)))
        assert.equal(path, answer.value[1].path)
        assert.equal(200, execd:send("DELETE", "/files?path=" .. escaped(path)).status)
        assert.equal(404, execd:send("GET", "/files/info?path=" .. escaped(path)).status)
      end
    end)
  end
end)

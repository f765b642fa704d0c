--- Errors as data: what a caller learns from each way in which a call can go wrong.

local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local TEXT = { ["Content-Type"] = "text/plain" }
local JSON = { ["Content-Type"] = "application/json" }
local PAGE = { ["Content-Type"] = "text/html; charset=utf-8" }

-- Answers by name: status, headers, body; and what the error must say.
local answers = {
  structured = { 404, JSON, '{"code":"DOCKER::SANDBOX_NOT_FOUND","message":"Sandbox x not found."}',
    code = "DOCKER::SANDBOX_NOT_FOUND", message = "Sandbox x not found." },
  codeless = { 400, JSON, '{"message":"only words"}', code = "HTTP_400", message = "only words" },
  wordless = { 400, JSON, '{"code":"ONLY_CODE"}', code = "ONLY_CODE", message = "the server returned an error without a message" },
  nested = { 409, JSON, '{"detail":{"code":"X::Y","message":"in a detail"}}', code = "X::Y", message = "in a detail" },
  validation = { 422, JSON, [[{"detail":[
      {"type":"missing","loc":["body","image"],"msg":"Field required","input":{"secret":"hunter2"}},
      {"type":"int","loc":["body","ports",3],"msg":"not a number","input":"hunter2","ctx":{"x":"hunter2"}},
      {"msg":"without a place"}]}]],
    code = "VALIDATION", message = "image: Field required; ports.3: not a number; without a place" },
  ["validation-odd"] = { 422, JSON, '{"detail":[1,"x",null,{"loc":"image","msg":"odd place"},{"msg":null}]}',
    code = "VALIDATION", message = "odd place" },
  ["validation-none"] = { 422, JSON, '{"detail":[]}', code = "HTTP_422",
    message = "the server returned an error without a message" },
  route = { 404, JSON, '{"detail":"Not Found"}', code = "HTTP_404", message = "Not Found", hint = "does not know this route" },
  short = { 500, JSON, '{"error":"something broke"}', code = "HTTP_500", message = "something broke" },
  text = { 500, TEXT, "Internal Server Error", code = "HTTP_500", message = "Internal Server Error" },
  overload = { 418, TEXT, "too much\n\tof it\r\n\0\7", code = "HTTP_418", message = "too much of it ??" },
  long = { 500, TEXT, ("word "):rep(100000), code = "HTTP_500", message = ("word "):rep(60) .. "..." },
  page = { 500, PAGE, "<!DOCTYPE html>\n<html><head><title>\n 500 Oh\n no </title></head><body>x</body></html>",
    code = "HTTP_500", message = "the response is an HTML page: 500 Oh no" },
  untitled = { 500, PAGE, "<html><body>secret stack</body></html>", code = "HTTP_500", message = "the response is an HTML page" },
  ["page-as-text"] = { 500, TEXT, " <html><title>x</title>", code = "HTTP_500", message = "the response is an HTML page: x" },
  ["text-as-page"] = { 500, PAGE, "no tags at all", code = "HTTP_500", message = "the response is an HTML page" },
  empty = { 500, {}, "", code = "HTTP_500", message = "the server returned an error without a message" },
  blank = { 500, JSON, " \n ", code = "HTTP_500", message = "the server returned an error without a message" },
  latin = { 500, TEXT, "caf\233 \255\254", code = "HTTP_500", message = "caf? ??" },
  half = { 500, JSON, '{"code":"X","mess', code = "HTTP_500" },
  array = { 500, JSON, '["a"]', code = "HTTP_500" },
  object = { 500, JSON, "{}", code = "HTTP_500", message = "the server returned an error without a message" },
  numbers = { 500, JSON, '{"code":5,"message":{"a":1},"detail":7,"error":false}',
    code = "HTTP_500", message = "the server returned an error without a message" },
  nulls = { 500, JSON, '{"code":null,"message":null,"detail":null,"error":null}',
    code = "HTTP_500", message = "the server returned an error without a message" },
  descriptors = { 502, { ["Content-Type"] = "text/plain" }, "Proxy error: dial tcp 127.0.0.1:44772: socket: too many open files",
    code = "HTTP_502", message = "Proxy error: dial tcp 127.0.0.1:44772: socket: too many open files" },
  key = { 401, JSON, '{"code":"UNAUTHORIZED","message":"bad key"}', code = "UNAUTHORIZED", message = "bad key", hint = "API key" },
  forbidden = { 403, JSON, '{"code":"X","message":"no"}', code = "X", message = "no", hint = "API key" },
  lines = { 500, JSON, '{"code":"X","message":"first\\nsecond\\r\\nthird"}', code = "X", message = "first second third" },
}

-- Answers with status 200 that are not what any route gives.
local surprises = {
  ["is-empty"] = "", ["is-blank"] = "  \n", ["is-half"] = '{"id":"a","status":{"sta', ["is-text"] = "Welcome",
  ["is-page"] = "<html></html>", ["is-array"] = "[]", ["is-list"] = '["a"]', ["is-string"] = '"a"', ["is-number"] = "5",
  ["is-null"] = "null", ["is-true"] = "true",
  ["has-no-id"] = '{"status":{"state":"Running"}}', ["has-null-id"] = '{"id":null}', ["has-number-id"] = '{"id":5}',
  ["has-empty-id"] = '{"id":""}', ["is-invalid"] = '{"id":"\255"', ["is-nan"] = '{"id":NaN}',
}

local server, client

local SOURCE = [[
  local answers, surprises = json.decode(ANSWERS), json.decode(SURPRISES)
  local special = {}
  function special.huge(connection, status)
    connection:start(status, { ["Content-Type"] = "application/json", ["X-Request-ID"] = "r1" })
    local piece = (" "):rep(1024 * 1024)
    local function more(left)
      if left == 0 or connection.gone then return end
      connection:chunk(piece)
      connection:after(0, function() more(left - 1) end)
    end
    more(200)
  end
  function special.cut(connection, status)
    local head = ("HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n"):format(status)
    connection:send(head .. '{"code":"A'):close()
  end
  function special.garbage(connection) connection:send("220 mail server ready\r\n"):close() end
  function special.close(connection) connection:close() end
  function special.reset(connection) connection:reset() end
  function special.silence(connection) connection:silence() end
  return function(request, connection)
    local name, status = request.path:match("/case%-([%l-]+)(%d*)")
    local answer = answers[name]
    if answer then
      local headers = answer.headers
      headers["X-Request-ID"] = "req-" .. name
      return connection:respond(answer.status, headers, answer.body)
    elseif surprises[name] then
      return connection:respond(200, { ["Content-Type"] = "application/json", ["X-Request-ID"] = "req" }, surprises[name])
    elseif special[name] then
      return special[name](connection, tonumber(status))
    end
    connection:respond(200, { ["Content-Type"] = "application/json" }, request.path:match("raw=([^&]*)") or "{}")
  end
]]

local function quoted(value)
  return "[=====[" .. assert(json.encode(value)) .. "]=====]"
end

-- The error of a call, which took no longer than a second.
local function failure_of(method, first, second, third)
  local began = core.now()
  local value, err = client[method](client, first, second, third)
  assert.is_nil(value, "there was no error")
  assert.is_true(opensandbox.is_error(err), "not an error of the library: " .. tostring(err))
  assert.is_true(core.now() - began < 1, ("%s took %g s"):format(tostring(err), core.now() - began))
  assert.is_string(err.kind)
  assert.is_string(err.code)
  assert.is_string(err.message)
  assert.equal(method, err.op)
  assert.is_boolean(err.retryable)
  local text = tostring(err)
  assert.equal(method .. ": ", text:sub(1, #method + 2))
  assert.is_falsy(text:find("[%c]"), text)
  assert.is_truthy(text:find(err.message, 1, true), text)
  return err
end

setup(function()
  local served = {}
  for name, answer in pairs(answers) do served[name] = { status = answer[1], headers = answer[2], body = answer[3] } end
  local source = SOURCE:gsub("ANSWERS", function() return quoted(served) end)
  server = fault_server.start((source:gsub("SURPRISES", function() return quoted(surprises) end)))
end)

teardown(function() server:stop() end)
before_each(function() client = opensandbox.new(server.url, "some-key", { retry = { max_attempts = 2, base_delay = 0.001 } }) end)
after_each(function() client:close() end)

describe("an answer that says no", function()
  for name, answer in pairs(answers) do
    it(("is understood: %s"):format(name), function()
      local err = failure_of("get_sandbox", "case-" .. name)
      assert.equal("http", err.kind)
      assert.equal(answer.code, err.code)
      if answer.message then assert.equal(answer.message, err.message) end
      assert.equal(answer[1], err.status)
      assert.equal("req-" .. name, err.request_id)
      assert.equal("case-" .. name, err.sandbox_id)
      assert.equal("GET " .. server.url .. "/v1/sandboxes/case-" .. name, err.url)
      assert.is_falsy(tostring(err):find("hunter2", 1, true))
      assert.is_truthy(tostring(err):find("HTTP " .. answer[1], 1, true))
      assert.is_true(#tostring(err) < 1000)
      if answer.hint then assert.is_truthy(err.hint:find(answer.hint, 1, true), err.hint) end
    end)
  end

  it("is understood from execd as well, by every kind of call", function()
    local endpoint = { url = server.url .. "/case-structured", headers = {}, sandbox_id = "box" }
    for _, call in ipairs {
      { "ping", endpoint }, { "run_command", endpoint, "x" }, { "search_files", endpoint, "/" }, { "file_info", endpoint, "/a" },
      { "download_file", endpoint, "/a" }, { "upload_files", endpoint, { { path = "/a", content = "x" } } },
      { "delete_files", endpoint, "/a" }, { "list_directory", endpoint, "/" }, { "get_command_status", endpoint, "c" },
      { "get_command_logs", endpoint, "c" }, { "interrupt_command", endpoint, "c" }, { "delete_directories", endpoint, "/a" },
    } do
      local err = failure_of(call[1], call[2], call[3])
      assert.equal("http", err.kind)
      assert.equal("DOCKER::SANDBOX_NOT_FOUND", err.code)
      assert.equal(404, err.status)
      assert.equal("box", err.sandbox_id)
      assert.equal("req-structured", err.request_id)
      assert.is_falsy(err.url:find("?", 1, true))
    end
    local err = failure_of("ping", server.url .. "/case-key")
    assert.is_truthy(err.hint:find("headers", 1, true), "a sandbox does not want the API key")
    err = failure_of("ping", server.url .. "/case-descriptors")
    assert.is_truthy(err.hint:find("use_server_proxy", 1, true), "execd's own proxy keeps descriptors")
  end)

  it("stays one line, whatever code the server gives it", function()
    local odd = fault_server.start [[
      return function(_, connection)
        connection:respond(500, { ["Content-Type"] = "application/json" }, '{"code":"A\\nB","message":"x"}')
      end
    ]]
    finally(function() odd:stop() end)
    local other = opensandbox.new(odd.url, "")
    finally(function()
      other:close()
      odd:stop()
    end)
    local _, err = other:get_sandbox "a"
    assert.is_falsy(tostring(err):find("%c"), tostring(err))
  end)

  it("whose body was cut keeps its status", function()
    local err = failure_of("get_sandbox", "case-cut500")
    assert.equal("http", err.kind)
    assert.equal("HTTP_500", err.code)
    assert.equal(500, err.status)
  end)
end)

describe("an answer that is not what the route gives", function()
  for name, body in pairs(surprises) do
    it(("is a protocol error: one that %s"):format(name:gsub("-", " ")), function()
      for _, method in ipairs { "get_sandbox", "wait_ready" } do
        local err = failure_of(method, "case-" .. name)
        assert.equal("protocol", err.kind, body)
        assert.equal("unexpected_response", err.code)
        assert.equal(200, err.status)
        assert.equal("req", err.request_id)
        assert.is_false(err.retryable)
      end
    end)
  end

  local echoing -- a server that answers every request with its header X-Body
  setup(function()
    echoing = fault_server.start [[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, request.headers["x-body"])
      end
    ]]
  end)
  teardown(function() echoing:stop() end)

  -- Calls a function with a client of a server that answers every request with this body.
  local function answered(body, call)
    local headers = { ["X-Body"] = body }
    client:close()
    client = opensandbox.new(echoing.url, "", { retry = false, headers = headers })
    local ok, value, err = pcall(call, client, { url = echoing.url, headers = headers })
    assert.is_true(ok, ("%s raised %s"):format(body, tostring(value)))
    return value, err
  end

  local function all_protocol(bodies, call)
    for _, body in ipairs(bodies) do
      local value, err = answered(body, call)
      assert.is_nil(value, body)
      assert.equal("protocol", err.kind, body)
      assert.equal("unexpected_response", err.code, body)
    end
  end

  it("is a protocol error for an endpoint too", function()
    all_protocol({ "{}", '{"endpoint":null}', '{"endpoint":5}', '{"endpoint":""}', '{"endpoint":"http://"}', '{"endpoint":"a b"}',
      '{"endpoint":{"url":"x"}}', '{"endpoint":"h:1","headers":{"A":{}}}' },
      function(one) return one:get_endpoint("a", 80) end)
  end)

  it("is a protocol error for a list too, and nothing is raised for odd entries", function()
    all_protocol({ "{}", '{"items":null}', '{"items":"x"}', '{"items":5}', "[]" }, function(one) return one:list_sandboxes() end)
    for _, body in ipairs { '{"items":["x"]}', '{"items":[5]}', '{"items":[null]}', '{"items":[true]}', '{"items":[{}]}' } do
      local list, err = answered(body, function(one) return one:list_sandboxes() end)
      if list then assert.same({}, list) else assert.equal("protocol", err.kind) end
    end
    local _, err = answered('{"items":[{"id":"a"},{"id":5}]}', function(one) return one:list_sandboxes() end)
    assert.equal("protocol", err.kind, "half a list is not the list")
    assert.equal(1, #assert(answered('{"items":[{"id":"a"}],"pagination":7}', function(one) return one:list_sandboxes() end)))
  end)

  it("is no crash for the lists of execd", function()
    for _, body in ipairs { "[5]", '["x"]', "[null]", "[true]", "[[]]" } do
      for _, call in ipairs {
        function(one, url) return one:search_files(url, "/") end,
        function(one, url) return one:list_directory(url, "/") end,
      } do
        local list, err = answered(body, call)
        assert.is_true(list ~= nil or err.kind == "protocol", body)
      end
    end
    for _, body in ipairs { '{"/a":5}', '{"/a":"x"}', '{"/a":true}' } do
      local infos, err = answered(body, function(one, url) return one:file_info(url, "/a") end)
      assert.is_true(infos ~= nil or err.kind == "protocol", body)
    end
  end)

  it("is no crash for fields of other types in a sandbox", function()
    local info = assert(answered('{"id":"a","status":"x","metadata":5,"image":"y","createdAt":5,"expiresAt":{},"entrypoint":1}',
      function(one) return one:get_sandbox "a" end))
    assert.equal("Unknown", info.state)
    assert.same({}, info.metadata)
    assert.is_nil(info.created_at)
    assert.is_nil(info.expires_at)
    info = assert(answered('{"id":"a","status":{"state":5,"lastTransitionAt":[]}}', function(one) return one:get_sandbox "a" end))
    assert.equal("Unknown", info.state)
  end)

  it("is a protocol error for the state of a command", function()
    all_protocol({ "{}", '{"running":"yes"}', '{"running":null}', "[]" },
      function(one, url) return one:get_command_status(url, "c") end)
  end)
end)

describe("an answer beyond all size", function()
  it("is given up at 64 MiB", function()
    local began = core.now()
    local value, err = client:get_sandbox("case-huge200")
    assert.is_nil(value)
    assert.equal("protocol", err.kind)
    assert.equal("body_too_large", err.code)
    assert.equal(200, err.status)
    assert.equal("r1", err.request_id)
    assert.is_true(core.now() - began < 8)
  end)

  it("is read up to 1 MiB when its status is an error", function()
    local value, err = client:get_sandbox("case-huge500")
    assert.is_nil(value)
    assert.equal("http", err.kind)
    assert.equal("HTTP_500", err.code)
    assert.equal("r1", err.request_id)
  end)
end)

describe("no answer at all", function()
  it("is a transport error of one of a few kinds", function()
    for name, code in pairs { close = "receive_failed", reset = "receive_failed" } do
      local err = failure_of("get_sandbox", "case-" .. name)
      assert.equal("transport", err.kind)
      assert.equal(code, err.code)
      assert.is_nil(err.status)
      assert.is_true(err.retryable)
    end
    local err = failure_of("get_sandbox", "case-cut200")
    assert.equal("stream", err.kind)
    assert.equal("cut", err.code)
    assert.equal(200, err.status)
    err = failure_of("get_sandbox", "case-garbage")
    assert.equal("protocol", err.kind)
    assert.equal("bad_response", err.code)
    assert.is_truthy(err.hint)
  end)

  it("is a timeout that names its clock when time ran out", function()
    client:close()
    client = opensandbox.new(server.url, "", { timeout = 0.2 })
    local err = failure_of("get_sandbox", "case-silence")
    assert.equal("timeout", err.kind)
    assert.equal("timeout", err.code)
    assert.equal("timeout", err.timeout_option)
    assert.is_truthy(tostring(err):find("timeout of 0.2 s", 1, true), tostring(err))
    err = failure_of("ping", server.url .. "/case-silence", { timeout = 0.1 })
    assert.equal("timeout", err.timeout_option)
    assert.is_truthy(tostring(err):find("0.1 s", 1, true), tostring(err))
    err = failure_of("run_command", server.url .. "/case-silence", "x", { idle_timeout = 0.1 })
    assert.equal("idle_timeout", err.timeout_option)
  end)

  it("of a refused port says so at once, and where to look", function()
    client:close()
    client = opensandbox.new("http://127.0.0.1:1", "")
    local err = failure_of("get_sandbox", "a")
    assert.equal("transport", err.kind)
    assert.equal("connect_failed", err.code)
    assert.equal("GET http://127.0.0.1:1/v1/sandboxes/a", err.url)
    assert.is_nil(err.status)
    assert.is_nil(err.request_id)
    assert.is_truthy(err.hint:find("OPEN_SANDBOX_DOMAIN", 1, true))
    err = failure_of("run_command", "http://127.0.0.1:1", "x")
    assert.equal("connect_failed", err.code)
  end)

  it("of an unknown host says so", function()
    client:close()
    client = opensandbox.new("http://no-such-host.invalid", "", { retry = false })
    local value, err = client:get_sandbox "a"
    assert.is_nil(value)
    assert.equal("transport", err.kind)
    assert.equal("resolve_failed", err.code)
    assert.is_truthy(tostring(err):find("no-such-host.invalid", 1, true))
    assert.is_truthy(err.hint:find("OPEN_SANDBOX_DOMAIN", 1, true))
  end)
end)

describe("an error", function()
  it("is raised by assert as it is", function()
    -- In a process of its own: the test library has another assert.
    local child = process.start { env = process.module_paths(), argv = { process.lua(), "-e", ([[
      local opensandbox = require "opensandbox"
      local client = opensandbox.new(%q)
      local _, err = client:get_sandbox "case-structured"
      local _, thrown = pcall(assert, nil, {})
      -- In Lua 5.1 and 5.2 assert takes no message but a string.
      local raise = type(thrown) == "table" and assert or function(_, object) error(object, 0) end
      local ok, caught = pcall(function() raise(nil, err) end)
      io.write(tostring(ok), " ", tostring(caught == err), " ", tostring(opensandbox.is_error(caught)))
    ]]):format(server.url) } }
    child:wait(10)
    local output = child:output()
    child:stop()
    assert.equal("false true true", output)
  end)

  it("is known from everything else", function()
    local err = failure_of("get_sandbox", "case-text")
    assert.is_true(opensandbox.is_error(err))
    assert.is_true(opensandbox.is_error(errors.new {}))
    for _, other in ipairs { "text", 5, {}, true, setmetatable({}, { __tostring = function() return "x" end }), print } do
      assert.is_false(opensandbox.is_error(other))
    end
    assert.is_false(opensandbox.is_error(nil))
  end)

  it("prints with as little as it knows", function()
    assert.equal("unknown error", tostring(errors.new {}))
    assert.equal("op: text", tostring(errors.new { op = "op", message = "text" }))
    assert.equal("op: text [HTTP 500]. Do this", tostring(errors.new {
      op = "op", message = "text", status = 500, code = "HTTP_500", hint = "Do this" }))
    assert.equal("op: text [HTTP 500, CODE, GET http://h, request r]", tostring(errors.new {
      op = "op", message = "text", status = 500, code = "CODE", url = "GET http://h", request_id = "r" }))
  end)

  it("of a command stays one line, though the server reports several", function()
    local lines = fault_server.start [[
      return function(request, connection)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c" }
        if request.path:find("untyped", 1, true) then
          connection:chunk('{"code":"RUNTIME_ERROR","message":"one\\ntwo"}'):finish()
        else
          connection:event { type = "error", error = { ename = "E", evalue = "one\ntwo\nthree" } }
        end
      end
    ]]
    finally(function() lines:stop() end)
    for _, path in ipairs { "/untyped", "/typed" } do
      local result, err = client:run_command(lines.url .. path, "x")
      assert.is_nil(result)
      assert.is_falsy(tostring(err):find("%c"), tostring(err))
    end
  end)
end)

--- The client: where it sends its requests, what they carry, and what its options may be.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local KEY = "k3y+with/special=chars%and.more"

local clients = {}

local function new(url, key, options)
  local client = opensandbox.new(url, key or "", options)
  clients[#clients + 1] = client
  return client
end

local function close_clients()
  for _, client in ipairs(clients) do client:close() end
  clients = {}
end

-- Asserts that a call written on one line raises at that line, and gives the message without its position.
local function raises(fn, ...)
  local ok, message = pcall(fn)
  assert.is_false(ok, "nothing was raised")
  assert.is_string(message)
  local line, text = message:match("client_spec%.lua:(%d+): (.*)$")
  assert.is_truthy(line, "no position of this file in: " .. message)
  assert.equal(debug.getinfo(fn, "S").linedefined, tonumber(line), message)
  for i = 1, select("#", ...) do
    local wanted = select(i, ...)
    assert.is_truthy(text:find(wanted, 1, true), ("%q is not in: %s"):format(wanted, text))
  end
  return text
end

-- Every string in a value, at any depth.
local function strings_of(value, found, seen)
  found, seen = found or {}, seen or {}
  if type(value) == "string" then found[#found + 1] = value end
  if type(value) == "table" and not seen[value] then
    seen[value] = true
    for name, item in pairs(value) do
      strings_of(name, found, seen)
      strings_of(item, found, seen)
    end
  end
  return found
end

local function assert_hidden(secret, err, what)
  for _, text in ipairs(strings_of(err)) do
    assert.is_falsy(text:find(secret, 1, true), ("%s shows the secret: %s"):format(what or "the error", text))
  end
  assert.is_falsy(tostring(err):find(secret, 1, true), tostring(err))
end

local function has(request, text)
  for _, pair in ipairs(request.raw_headers) do
    if pair[1]:find(text, 1, true) or pair[2]:find(text, 1, true) then return true end
  end
  return request.path:find(text, 1, true) ~= nil or request.body:find(text, 1, true) ~= nil
end

-- A server that answers everything with a JSON error, so that any call is one request.
local REFUSING = [[
  return function(request, connection)
    connection:respond(404, { ["Content-Type"] = "application/json" }, '{"code":"TEST::NOTHING","message":"nothing here"}')
  end
]]

describe("the URL of a client", function()
  after_each(close_clients)

  it("gets /v1 unless its path ends in it, and loses the slashes at its end", function()
    for given, expected in pairs {
      ["http://h"] = "http://h/v1", ["http://h/"] = "http://h/v1", ["http://h///"] = "http://h/v1",
      ["http://h:8080"] = "http://h:8080/v1", ["https://h/v1"] = "https://h/v1", ["https://h/v1/"] = "https://h/v1",
      ["http://h/api"] = "http://h/api/v1", ["http://h/api/v2//"] = "http://h/api/v2/v1", ["http://h/box/v1"] = "http://h/box/v1",
      ["http://[::1]:8080"] = "http://[::1]:8080/v1", ["http://[::1]/x/"] = "http://[::1]/x/v1",
    } do
      assert.equal(expected, new(given).url)
    end
  end)

  it("is refused when it is none, at the caller's line", function()
    raises(function() opensandbox.new "ftp://host" end, "new: the url", "only http and https")
    raises(function() opensandbox.new "http://" end, "host")
    raises(function() opensandbox.new "http://h:99999" end, "port")
    raises(function() opensandbox.new "http://h ost" end, "white space")
    raises(function() opensandbox.new "http://h/?token=1" end, "query")
    raises(function() opensandbox.new "http://::1/" end, "host")
    raises(function() opensandbox.new "http://h\r\nX: y" end, "white space")
    raises(function() opensandbox.new "" end, "the url must be")
    raises(function() opensandbox.new(8080) end, "the url must be", "not 8080")
  end)

  it("is shown without user and password when it is refused", function()
    assert_hidden("hunter2", raises(function() opensandbox.new "http://joe:hunter2@h:99999" end))
    assert_hidden("hunter2", raises(function() opensandbox.new "ftp://joe:hunter2@h" end))
    assert_hidden("hunter2", raises(function() opensandbox.new "http://joe:x/hunter2@h" end))
  end)

  local function child(changes, script)
    local env = process.module_paths()
    for _, name in ipairs { "OPEN_SANDBOX_DOMAIN", "OPEN_SANDBOX_PROTOCOL", "OPEN_SANDBOX_API_KEY" } do env[name] = false end
    for name, value in pairs(changes) do env[name] = value end
    return process.run({ argv = { process.lua(), "-e", script }, env = env }, 10)
  end

  local PRINT_URL = "io.write(require('opensandbox').new().url)"

  it("comes from the environment, or is localhost", function()
    local cases = {
      { {}, "http://localhost:8080/v1" },
      { { OPEN_SANDBOX_DOMAIN = "" }, "http://localhost:8080/v1" },
      { { OPEN_SANDBOX_DOMAIN = "box.example:81" }, "http://box.example:81/v1" },
      { { OPEN_SANDBOX_DOMAIN = "box.example", OPEN_SANDBOX_PROTOCOL = "https" }, "https://box.example/v1" },
      { { OPEN_SANDBOX_DOMAIN = "box.example", OPEN_SANDBOX_PROTOCOL = "" }, "http://box.example/v1" },
      { { OPEN_SANDBOX_DOMAIN = "http://box.example/api/", OPEN_SANDBOX_PROTOCOL = "https" }, "http://box.example/api/v1" },
      { { OPEN_SANDBOX_DOMAIN = "box.example/gate/way" }, "http://box.example/gate/way/v1" },
    }
    for _, case in ipairs(cases) do
      local code, output, complaint = child(case[1], PRINT_URL)
      assert.equal(0, code, complaint)
      assert.equal(case[2], output)
    end
  end)

  it("names the variable when the environment is wrong, and an argument wins over it", function()
    local code, _, complaint = child({ OPEN_SANDBOX_DOMAIN = "box.example/?x" }, PRINT_URL)
    assert.not_equal(0, code)
    assert.is_truthy(complaint:find("OPEN_SANDBOX_DOMAIN", 1, true), complaint)
    local _, output = child({ OPEN_SANDBOX_DOMAIN = "ftp://x" }, "io.write(require('opensandbox').new('http://given').url)")
    assert.equal("http://given/v1", output)
  end)

  it("goes with a key from the environment, unless an argument is given; one with white space is refused unseen", function()
    local server = fault_server.start(REFUSING)
    finally(function() server:stop() end)
    local env = { OPEN_SANDBOX_DOMAIN = "127.0.0.1:" .. server.port, OPEN_SANDBOX_API_KEY = KEY }
    assert.equal(0, (child(env, "require('opensandbox').new():get_sandbox('a')")))
    assert.equal(0, (child(env, "require('opensandbox').new(nil, 'other'):get_sandbox('b')")))
    assert.equal(0, (child(env, "require('opensandbox').new(nil, ''):get_sandbox('c')")))
    local requests = server:requests()
    assert.equal(KEY, requests[1].headers["open-sandbox-api-key"])
    assert.equal("other", requests[2].headers["open-sandbox-api-key"])
    assert.is_nil(requests[3].headers["open-sandbox-api-key"])
    local code, _, complaint = child({ OPEN_SANDBOX_API_KEY = KEY .. "\n" }, PRINT_URL)
    assert.not_equal(0, code)
    assert.is_truthy(complaint:find("API key", 1, true), complaint)
    assert.is_falsy(complaint:find(KEY, 1, true), complaint)
  end)
end)

describe("a mistake in the options of a client", function()
  after_each(close_clients)

  it("raises at the caller's line, with a suggestion for a typing error", function()
    raises(function() opensandbox.new("http://h", nil, { timeuot = 3 }) end, "new: unknown option 'timeuot'", "'timeout'")
    raises(function() opensandbox.new("http://h", nil, { use_server_prxy = true }) end, "did you mean 'use_server_proxy'")
    raises(function() opensandbox.new("http://h", nil, { tls = { verfy = true } }) end, "did you mean 'verify'")
    raises(function() opensandbox.new("http://h", nil, { retry = { max_atempts = 2 } }) end, "did you mean 'max_attempts'")
    raises(function() opensandbox.new("http://h", nil, { zzzzzzzzz = 1 }) end, "unknown option 'zzzzzzzzz'", "known are", "timeout")
    raises(function() opensandbox.new("http://h", nil, { "x" }) end, "unknown option '1'")
    raises(function() opensandbox.new("http://h", nil, "x") end, "options must be a table")
  end)

  it("is named when the options take the place of the URL or of the key", function()
    for what, arguments in pairs { ["the url"] = { { url = "http://h" } }, ["the API key"] = { "http://h", { retry = false } } } do
      raises(function() opensandbox.new(arguments[1], arguments[2]) end,
        what .. " must be a string, not a table: the options are the third argument, as in new(url, key, options)")
    end
  end)

  it("raises for every option of a wrong type or out of range", function()
    for name, bad in pairs {
      timeout = { 0, -1, "5", "-5s", "0s", "5 s", "5x", "1..5s", "s", false, 0 / 0, 1 / 0 },
      create_timeout = { 0, "x" }, connect_timeout = { 0, {} },
      idle_timeout = { 0, "x" }, transfer_idle_timeout = { -1, "x" }, max_output = { -1, 1.5, "x" },
      headers = { "x", { A = true }, { "x" } }, user_agent = { "", 1 }, use_server_proxy = { "yes", 1 },
      retry = { true, 1, "x", { max_attempts = 1.5 }, { base = -1 } }, tls = { true, { verify = "no" }, { ca_file = "" } },
      proxy = { 1, {} }, on_request = { "x", {} }, on_response = { 1 },
    } do
      for _, value in ipairs(bad) do
        local ok, message = pcall(opensandbox.new, "http://h", "", { [name] = value })
        assert.is_false(ok, name)
        assert.is_truthy(message:find("^[^\n]*client_spec%.lua:%d+: new: "), message)
      end
    end
  end)

  it("raises for a key that is no key, without showing it", function()
    for _, bad in ipairs { KEY .. "\n", KEY .. " ", "\t" .. KEY, KEY .. "\r\nX: y", KEY .. "\0" } do
      local text = raises(function() opensandbox.new("http://h", bad) end, "API key")
      assert_hidden(KEY, text)
    end
    raises(function() opensandbox.new("http://h", {}) end, "API key must be a string")
  end)

  it("raises for headers that would break out of their line", function()
    for _, name in ipairs { "A B", "A:", "A\r\nB", "", "A\0" } do
      raises(function() opensandbox.new("http://h", nil, { headers = { [name] = "x" } }) end, "not a header name")
    end
    for _, value in ipairs { "x\r\nB: y", "x\ny", "x\0", "x\ry" } do
      raises(function() opensandbox.new("http://h", nil, { headers = { ["X-A"] = value } }) end, "X-A", "control character")
    end
    raises(function() opensandbox.new("http://h", nil, { user_agent = "x\r\nB: y" }) end, "User-Agent")
  end)
end)

describe("a mistake in the arguments of a call", function()
  local client, sandbox
  local EXECD = "http://127.0.0.1:1"

  before_each(function()
    client = new("http://127.0.0.1:1")
    sandbox = assert(client:connect("a", { wait = false }))
    sandbox._endpoints[opensandbox.EXECD_PORT] = { url = EXECD, headers = {} }
  end)
  after_each(close_clients)

  it("raises at the caller's line, through the client and through the objects", function()
    raises(function() client:ping(EXECD, { timout = 1 }) end, "ping: unknown option 'timout'", "did you mean 'timeout'")
    raises(function() client:run_command(EXECD, "x", { timeot = 1 }) end, "run_command", "did you mean 'timeout'")
    raises(function() client:create_sandbox { image = "x", entrypiont = {} } end, "did you mean 'entrypoint'")
    raises(function() client:create { image = "x", metadta = {} } end, "did you mean 'metadata'")
    raises(function() client:list_sandboxes { stats = {} } end, "did you mean 'states'")
    raises(function() client:get_endpoint("a", 80, { expire = 1 }) end, "did you mean 'expires'")
    raises(function() client:wait_ready("a", { timeuot = 1 }) end, "wait_ready", "did you mean 'timeout'")
    raises(function() client:connect("a", { wai = false }) end, "connect", "did you mean 'wait'")
    raises(function() client:download_file(EXECD, "/a", { ofset = 1 }) end, "did you mean 'offset'")
    raises(function() sandbox:run("x", { timeot = 1 }) end, "did you mean 'timeout'")
    raises(function() sandbox:endpoint(80, { expire = 1 }) end, "did you mean 'expires'")
    raises(function() sandbox.files:write("/a", "x", { mod = 1 }) end, "write", "did you mean 'mode'")
    raises(function() sandbox.files:read("/a", { lenght = 1 }) end, "did you mean 'length'")
    raises(function() sandbox.files:list("/a", { dept = 1 }) end, "did you mean 'depth'")
    raises(function() sandbox:renew "x" end, "the time must be")
    raises(function() sandbox:run {} end, "empty list")
  end)

  it("suggests the options of create itself, not only those of the route", function()
    raises(function() client:create { image = "x", ready_timout = 5 } end, "did you mean 'ready_timeout'")
  end)

  it("raises for ids, ports, endpoints and filters that cannot be meant", function()
    raises(function() client:get_sandbox "" end, "sandbox id")
    raises(function() client:get_sandbox(nil) end, "sandbox id", "not nil")
    raises(function() client:delete_sandbox "." end, "sandbox id")
    raises(function() client:get_sandbox ".." end, "sandbox id")
    raises(function() client:renew_sandbox("..", 5) end, "sandbox id")
    raises(function() client:get_endpoint("a", 0) end, "port")
    raises(function() client:get_endpoint("a", 65536) end, "port")
    raises(function() client:get_endpoint("a", "80") end, "port")
    raises(function() client:ping "nonsense" end, "endpoint")
    raises(function() client:ping(nil) end, "endpoint")
    raises(function() client:ping {} end, "endpoint")
    raises(function() client:ping { url = EXECD, headers = { ["X-A"] = "b\r\nc" } } end, "endpoint", "control character")
    raises(function() client:ping { url = EXECD, headers = { ["X A"] = "b" } } end, "endpoint", "header name")
    raises(function() client:list_sandboxes { metadata = { a = {} } } end, "metadata", 'entry "a"', "not a table")
    raises(function() client:list_sandboxes { states = "Running" } end, "states")
    raises(function() client:create_sandbox {} end, "image")
    raises(function() client:create_sandbox { image = "x", snapshot_id = "y" } end, "image")
    raises(function() client:create_sandbox { image = "x", timeout = 0 } end, "timeout")
    raises(function() client:create_sandbox { image = "x", entrypoint = {} } end, "entrypoint")
    raises(function() client:create_sandbox { image = "x", env = { A = true } } end, "env", 'entry "A"', "not true")
  end)

  it("raises for command ids that would name another route", function()
    raises(function() client:get_command_status(EXECD, "..") end, "command id")
    raises(function() client:get_command_status(EXECD, ".") end, "command id")
    raises(function() client:get_command_logs(EXECD, "..") end, "command id")
  end)
end)

describe("what a client sends", function()
  local server

  setup(function()
    server = fault_server.start [[
      local answers = {
        ["injected"] = '{"endpoint":"127.0.0.1:1/x","headers":{"X-A":"b\\r\\nEvil: yes"}}',
        ["injected-name"] = '{"endpoint":"127.0.0.1:1/x","headers":{"X-A\\r\\nEvil":"b"}}',
        ["bad-name"] = '{"endpoint":"127.0.0.1:1/x","headers":{"X A":"b"}}',
        ["not-text"] = '{"endpoint":"127.0.0.1:1/x","headers":{"X-A":1}}',
        ["injected-address"] = '{"endpoint":"127.0.0.1:1/x y\\r\\nEvil: yes"}',
      }
      return function(request, connection)
        local mode = request.path:match("/sandboxes/([%w-]+)/endpoints/")
        local body = answers[mode or ""]
        if mode == "own" then
          body = json.encode { endpoint = request.headers.host .. "/proxied", headers = { ["X-Route"] = "r1" } }
        elseif mode == "foreign" then
          body = json.encode { endpoint = "localhost:" .. request.headers.host:match("%d+$"), headers = { ["X-Route"] = "r2" } }
        end
        if body then return connection:respond(200, { ["Content-Type"] = "application/json" }, body) end
        connection:respond(404, { ["Content-Type"] = "application/json", ["X-Request-Id"] = "req-1" },
          '{"code":"TEST::NOTHING","message":"nothing here"}')
      end
    ]]
  end)

  teardown(function() server:stop() end)
  after_each(close_clients)

  -- The requests that a function causes.
  local function requests_of(fn)
    local before = #server:requests()
    fn()
    local list = {}
    for i, request in ipairs(server:requests()) do
      if i > before then list[#list + 1] = request end
    end
    return list
  end

  local function every_execd_call(client, endpoint)
    client:ping(endpoint)
    client:run_command(endpoint, "true")
    client:upload_files(endpoint, { { path = "/a", content = "x" } })
    client:download_file(endpoint, "/a")
    client:search_files(endpoint, "/")
    client:file_info(endpoint, "/a")
    client:delete_files(endpoint, "/a")
    client:delete_directories(endpoint, "/a")
    client:list_directory(endpoint, "/")
    client:get_command_status(endpoint, "c")
    client:get_command_logs(endpoint, "c")
    client:interrupt_command(endpoint, "c")
    return 12
  end

  it("carries the key to the lifecycle API with every call", function()
    local client = new(server.url, KEY)
    local list = requests_of(function()
      client:create_sandbox { image = "x" }
      client:get_sandbox "a"
      client:list_sandboxes()
      client:delete_sandbox "a"
      client:renew_sandbox("a", 60)
      client:get_endpoint("a", 80)
      client:discover_execd "a"
    end)
    assert.equal(7, #list)
    for _, request in ipairs(list) do
      assert.equal(KEY, request.headers["open-sandbox-api-key"], request.path)
      assert.equal("/v1/sandboxes", request.path:sub(1, 13))
    end
  end)

  it("never carries the key to a sandbox, and the headers of its endpoint with every call", function()
    local client = new(server.url, KEY)
    local calls
    local list = requests_of(function()
      calls = every_execd_call(client, { url = server.url .. "/box", headers = { ["X-Route"] = "r1", ["X-Token"] = "t1" } })
    end)
    assert.equal(calls, #list)
    for _, request in ipairs(list) do
      assert.is_false(has(request, KEY), request.path)
      assert.is_nil(request.headers["open-sandbox-api-key"], request.path)
      assert.equal("r1", request.headers["x-route"], request.path)
      assert.equal("t1", request.headers["x-token"], request.path)
      assert.equal("/box/", request.path:sub(1, 5))
    end
    list = requests_of(function() calls = every_execd_call(client, server.url .. "/box/") end)
    assert.equal(calls, #list)
    for _, request in ipairs(list) do
      assert.is_false(has(request, KEY), request.path)
      assert.equal("/box/", request.path:sub(1, 5))
      assert.is_falsy(request.path:find("//", 1, true))
    end
  end)

  it("carries the key through the server's proxy only, and only to the server itself", function()
    local client = new(server.url, KEY, { use_server_proxy = true })
    local own, foreign, direct
    local list = requests_of(function()
      own = assert(client:discover_execd "own")
      foreign = assert(client:discover_execd "foreign")
      direct = assert(client:get_endpoint("own", 44772, { use_server_proxy = false }))
    end)
    assert.is_truthy(list[1].path:find("use_server_proxy=true", 1, true))
    assert.is_falsy(list[3].path:find("use_server_proxy", 1, true))
    assert.is_true(own.proxied)
    assert.is_false(direct.proxied)
    list = requests_of(function() every_execd_call(client, own) end)
    for _, request in ipairs(list) do
      assert.equal(KEY, request.headers["open-sandbox-api-key"])
      assert.equal("r1", request.headers["x-route"])
    end
    for _, endpoint in ipairs { foreign, direct } do
      list = requests_of(function() every_execd_call(client, endpoint) end)
      assert.is_true(#list > 0)
      for _, request in ipairs(list) do assert.is_false(has(request, KEY), request.path) end
    end
  end)

  it("does not follow a redirect, whatever it says", function()
    local other = fault_server.start(REFUSING)
    local redirecting = fault_server.start(([[
      return function(request, connection)
        local status = tonumber(request.path:match("%%d+$"))
        connection:respond(status or 307, { Location = "%s/v1/sandboxes/x?token=s3cr3t" }, "")
      end
    ]]):format(other.url))
    finally(function()
      other:stop()
      redirecting:stop()
    end)
    local client = new(redirecting.url, KEY)
    for _, status in ipairs { "301", "302", "303", "307", "308" } do
      local info, err = client:get_sandbox(status)
      assert.is_nil(info)
      assert.equal("protocol", err.kind)
      assert.equal("redirect", err.code)
      assert.equal(tonumber(status), err.status)
      assert_hidden("s3cr3t", err)
    end
    local execd = { url = redirecting.url, headers = { ["X-Token"] = "t1" } }
    local result, err = client:run_command(execd, "true")
    assert.is_nil(result)
    assert.equal("redirect", err.code)
    assert.equal(6, #redirecting:requests())
    assert.equal(0, #other:requests())
    assert.equal(0, other:connections().accepted)
  end)

  it("escapes ids in the path", function()
    local client = new(server.url)
    for id, escaped in pairs {
      ["a/b"] = "a%2Fb", ["a.b"] = "a.b", ["..."] = "...", ["50%"] = "50%25", ["a b"] = "a%20b", ["../x"] = "..%2Fx",
      ["%2e%2e"] = "%252e%252e", ["a?b#c"] = "a%3Fb%23c", ["\195\169"] = "%C3%A9", ["a\r\nX: y"] = "a%0D%0AX%3A%20y",
    } do
      local list = requests_of(function()
        client:get_sandbox(id)
        client:get_command_status(server.url, id)
        client:get_command_logs(server.url, id, 7)
        client:interrupt_command(server.url, id)
      end)
      assert.equal("/v1/sandboxes/" .. escaped, list[1].path)
      assert.equal("/command/status/" .. escaped, list[2].path)
      assert.equal("/command/" .. escaped .. "/logs?cursor=7", list[3].path)
      assert.equal("/command?id=" .. escaped, list[4].path)
    end
  end)

  it("takes no headers with line ends from the server: that is a protocol error", function()
    local client = new(server.url, KEY)
    for _, mode in ipairs { "injected", "injected-name", "not-text", "injected-address" } do
      local endpoint, err = client:discover_execd(mode)
      assert.is_nil(endpoint, mode)
      assert.equal("protocol", err.kind, mode)
      assert.equal(mode, err.sandbox_id)
    end
  end)

  it("takes no header names from the server that it could not send", function()
    local endpoint, err = new(server.url):discover_execd "bad-name"
    assert.is_nil(endpoint)
    assert.equal("protocol", err.kind)
  end)

  it("names itself, or what the user says", function()
    local list = requests_of(function()
      new(server.url):get_sandbox "a"
      new(server.url, nil, { user_agent = "mine/2", headers = { ["X-Extra"] = "e" } }):get_sandbox "a"
      new(server.url, nil, { headers = { ["User-Agent"] = "theirs" } }):ping(server.url)
    end)
    assert.equal("opensandbox-lua/" .. opensandbox._VERSION, list[1].headers["user-agent"])
    assert.equal("mine/2", list[2].headers["user-agent"])
    assert.equal("e", list[2].headers["x-extra"])
    assert.equal("theirs", list[3].headers["user-agent"])
  end)

  it("calls the hooks with what they document, and without secrets", function()
    local asked, answered = {}, {}
    local url = server.url:gsub("http://", "http://joe:hunter2@")
    local client = new(url, KEY, {
      on_request = function(event) asked[#asked + 1] = event end,
      on_response = function(event) answered[#answered + 1] = event end,
    })
    client:get_sandbox "a"
    client:list_sandboxes { metadata = { token = "s3cr3t" } }
    client:run_command({ url = server.url .. "/box", headers = { ["X-Token"] = "t0ken" }, sandbox_id = "b" }, "echo s3cr3t")
    assert.equal(3, #asked)
    assert.equal(3, #answered)
    for _, event in ipairs(asked) do
      assert.same({}, event.headers) -- for the hook to fill
      event.headers = nil
    end
    assert.same({ op = "get_sandbox", method = "GET", url = server.url .. "/v1/sandboxes/a", sandbox_id = "a",
      destination = "server" }, asked[1])
    assert.same({ op = "list_sandboxes", method = "GET", url = server.url .. "/v1/sandboxes", destination = "server" }, asked[2])
    assert.same({ op = "run_command", method = "POST", url = server.url .. "/box/command", sandbox_id = "b",
      destination = "sandbox" }, asked[3])
    for i, event in ipairs(answered) do
      assert.equal(404, event.status)
      assert.equal("req-1", event.request_id)
      assert.is_true(event.duration >= 0 and event.duration < 10)
      for name, value in pairs(asked[i]) do assert.equal(value, event[name]) end
    end
    for _, secret in ipairs { KEY, "hunter2", "s3cr3t", "t0ken" } do
      assert_hidden(secret, { asked, answered }, "a hook")
    end
  end)

  it("reports a try that is made again too: one response each", function()
    local flaky = fault_server.start [[
      local count = 0
      return function(request, connection)
        count = count + 1
        if count < 3 then return connection:respond(503, {}, "") end
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"a"}')
      end
    ]]
    finally(function() flaky:stop() end)
    local statuses = {}
    local client = new(flaky.url, nil, {
      retry = { base_delay = 0.001 }, on_response = function(event) statuses[#statuses + 1] = event.status end,
    })
    assert(client:get_sandbox "a")
    assert.same({ 503, 503, 200 }, statuses)
  end)

  it("lets the error of a hook through unchanged", function()
    local thrown = {}
    local client = new(server.url, nil, { on_request = function() error(thrown) end })
    local ok, caught = pcall(client.get_sandbox, client, "a")
    assert.is_false(ok)
    assert.equal(thrown, caught)
  end)
end)

describe("a secret", function()
  local server

  setup(function()
    -- Echoes the key in every place that an error may come from.
    server = fault_server.start [[
      local text, js = { ["Content-Type"] = "text/plain" }, { ["Content-Type"] = "application/json" }
      local shapes = {
        message = function(key) return 401, js, json.encode { code = "X", message = "wrong key " .. key .. "!" } end,
        code = function(key) return 401, js, json.encode { code = "KEY::" .. key, message = "no" } end,
        detail = function(key) return 401, js, json.encode { detail = "wrong key " .. key } end,
        error = function(key) return 500, js, json.encode { error = key } end,
        text = function(key) return 500, text, "no " .. key .. " " .. key end,
        excerpt = function(key) return 500, text, ("x"):rep(300 - #key + 8) .. key end,
        page = function(key) return 502, { ["Content-Type"] = "text/html" }, "<html><title>" .. key .. "</title>" end,
        validation = function(key) return 422, js, json.encode { detail = { { loc = { key }, msg = "bad " .. key } } } end,
        halved = function(key) return 500, js, '{"message":"' .. key end,
        location = function(key) return 307, { Location = "http://elsewhere/?key=" .. key }, "" end,
        id = function(key) return 500, { ["X-Request-ID"] = key }, "no" end,
        kind = function(key) return 200, { ["Content-Type"] = "text/" .. key }, "no" end,
        good = function(key) return 200, text, "not JSON " .. key end,
      }
      return function(request, connection)
        local key = request.headers["open-sandbox-api-key"] or request.headers["x-token"]
        connection:respond(shapes[request.path:match("/shape%-(%l+)")](key))
      end
    ]]
  end)

  teardown(function() server:stop() end)
  after_each(close_clients)

  local function refused(shape)
    local client = new(server.url, KEY, { retry = false })
    local info, err = client:get_sandbox("shape-" .. shape)
    assert.is_nil(info)
    assert_hidden(KEY, err, shape)
    assert_hidden(KEY:sub(1, 8), err, shape)
  end

  it("that the server echoes in a body is not in the error", function()
    for _, shape in ipairs { "message", "detail", "error", "text", "page", "validation", "halved", "good" } do refused(shape) end
  end)

  it("is not in the error when the text was cut in the middle of it", function() refused "excerpt" end)
  it("is not in the error's code", function() refused "code" end)
  it("is not in the target of a redirect", function() refused "location" end)
  it("is not in the name of the request", function() refused "id" end)
  it("is not in the content type", function() refused "kind" end)

  it("of an endpoint's headers is not in an error of execd", function()
    local client = new(server.url, nil, { retry = false })
    for _, shape in ipairs { "message", "detail", "text", "page" } do
      local ok, err = client:ping { url = server.url .. "/shape-" .. shape, headers = { ["X-Token"] = KEY } }
      assert.is_nil(ok)
      assert.is_true(err.status >= 400)
      assert_hidden(KEY, err, shape)
    end
  end)

  it("that is an empty header does not spoil the message", function()
    local client = new(server.url, nil, { retry = false })
    local endpoint = { url = server.url .. "/shape-message", headers = { ["X-Token"] = KEY, ["X-Empty"] = "" } }
    local _, err = client:ping(endpoint)
    assert.equal("wrong key ***!", err.message)
  end)

  it("in the URL is never shown", function()
    local url = server.url:gsub("http://", "http://joe:hunter2@")
    local client = new(url, KEY, { retry = false })
    local _, err = client:get_sandbox "shape-text"
    assert.equal("GET " .. server.url .. "/v1/sandboxes/shape-text", err.url)
    assert_hidden("hunter2", err)
    _, err = new("http://joe:hunter2@127.0.0.1:1", nil, { retry = false }):get_sandbox "a"
    assert.equal("connect_failed", err.code)
    assert_hidden("hunter2", err)
    _, err = client:ping("http://joe:hunter2@127.0.0.1:1")
    assert_hidden("hunter2", err)
  end)

  it("in a request that is not valid is not shown, though the server repeats the request", function()
    local strict = fault_server.start [[
      return function(request, connection)
        local body = json.decode(request.body)
        local detail = { { type = "x", loc = { "body", "image", "auth" }, msg = "Field required", input = body, ctx = body } }
        connection:respond(422, { ["Content-Type"] = "application/json" }, json.encode { detail = detail })
      end
    ]]
    finally(function() strict:stop() end)
    local client = new(strict.url, KEY)
    local info, err = client:create_sandbox { image = "x", image_auth = { username = "joe", password = "hunter2" } }
    assert.is_nil(info)
    assert.equal(422, err.status)
    assert.equal("VALIDATION", err.code)
    assert.equal("image.auth: Field required", err.message)
    assert_hidden("hunter2", err)
  end)
end)

describe("listing", function()
  local server

  setup(function()
    server = fault_server.start [[
      local METADATA = { ["a b"] = "c&d=e", team = "\195\169%" }
      return function(request, connection)
        local query = {}
        for name, value in request.path:gmatch("[?&]([^=&]+)=([^&]*)") do query[name] = value end
        local count = tonumber(request.path:match("^/(%d+)/"))
        local page, size = tonumber(query.page or 1), tonumber(query.pageSize or 20)
        -- Between two pages a sandbox appears, and pushes the last one of a page onto the next.
        local first = (page - 1) * size + 1 - (page - 1)
        local items = json.array {}
        for i = first, math.min(first + size - 1, count) do items[#items + 1] = { id = "s" .. i, metadata = METADATA } end
        local more = first + size - 1 < count
        connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode {
          items = items, pagination = { page = page, pageSize = size, hasNextPage = more },
        })
      end
    ]]
  end)

  teardown(function() server:stop() end)
  after_each(close_clients)

  local function list(count, filter)
    local before = #server:requests()
    local sandboxes = assert(new(server.url .. "/" .. count):list_sandboxes(filter))
    local ids, paths = {}, {}
    for i, info in ipairs(sandboxes) do ids[i] = info.id end
    for i, request in ipairs(server:requests()) do
      if i > before then paths[#paths + 1] = request.path:match("%?.*$") or "" end
    end
    return ids, paths
  end

  local function numbered(count)
    local ids = {}
    for i = 1, count do ids[i] = "s" .. i end
    return ids
  end

  it("asks once when one page holds all", function()
    local ids, paths = list(20)
    assert.same(numbered(20), ids)
    assert.same({ "" }, paths)
    assert.same({}, (list(0)))
  end)

  it("goes on in the largest pages when there are more, and gives each sandbox once", function()
    local ids, paths = list(450)
    assert.same(numbered(450), ids)
    assert.same({ "", "?page=1&pageSize=200", "?page=2&pageSize=200", "?page=3&pageSize=200" }, paths)
  end)

  it("keeps to the page size asked for", function()
    local ids, paths = list(25, { page_size = 10 })
    assert.same(numbered(25), ids)
    assert.same({ "?pageSize=10", "?page=2&pageSize=10", "?page=3&pageSize=10" }, paths)
  end)

  it("gives one page when one is asked for", function()
    local ids, paths = list(25, { page = 2, page_size = 10 })
    assert.equal(10, #ids)
    assert.equal("s10", ids[1])
    assert.same({ "?page=2&pageSize=10" }, paths)
  end)

  it("encodes the filters twice where the server decodes twice", function()
    local _, paths = list(1, { metadata = { ["a b"] = "c&d=e", team = "\195\169%" }, states = { "Running", "Paused" } })
    assert.same({ "?metadata=a%2520b%3Dc%2526d%253De%26team%3D%25C3%25A9%2525&state=Running&state=Paused" }, paths)
  end)

  it("by metadata refuses sandboxes that do not have these, which kill_all would delete", function()
    local filter = { metadata = { team = "another" } }
    for _, method in ipairs { "list_sandboxes", "kill_all" } do
      local client = new(server.url .. "/3")
      local value, err = client[method](client, filter)
      assert.is_nil(value)
      assert.equal("unexpected_response", err.code)
      assert.truthy(err.message:find("list of sandboxes that match the filter", 1, true), err.message)
    end
    for _, request in ipairs(server:requests()) do assert.not_equal("DELETE", request.method) end
  end)

  it("does not go round for ever when the pages never end", function()
    local endless = fault_server.start [[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" },
          '{"items":[],"pagination":{"page":1,"hasNextPage":true}}')
      end
    ]]
    finally(function() endless:stop() end)
    assert.same({}, (new(endless.url):list_sandboxes()))
    assert.equal(1, #endless:requests())
  end)
end)

describe("a closed client", function()
  it("answers every call with an error of kind closed", function()
    local server = fault_server.start(REFUSING)
    finally(function() server:stop() end)
    local client = opensandbox.new(server.url, KEY)
    local sandbox = assert(client:connect("a", { wait = false }))
    client:close()
    client:close()
    for name, call in pairs {
      get_sandbox = function() return client:get_sandbox "a" end,
      create_sandbox = function() return client:create_sandbox { image = "x" } end,
      delete_sandbox = function() return client:delete_sandbox "a" end,
      list_sandboxes = function() return client:list_sandboxes() end,
      ping = function() return client:ping(server.url) end,
      run_command = function() return client:run_command(server.url, "true") end,
      upload_files = function() return client:upload_files(server.url, { { path = "/a", content = "x" } }) end,
      download_file = function() return client:download_file(server.url, "/a") end,
      wait_ready = function() return client:wait_ready "a" end,
      ["sandbox:run"] = function() return sandbox:run "true" end,
    } do
      local began = core.now()
      local ok, value, err = pcall(call)
      assert.is_true(ok, ("%s raised %s"):format(name, tostring(value)))
      assert.is_nil(value)
      assert.is_true(opensandbox.is_error(err), name)
      assert.equal("closed", err.kind, name)
      assert.equal(name, err.op)
      assert.is_false(err.retryable)
      assert.is_true(core.now() - began < 1)
    end
    assert.equal(0, #server:requests())
  end)

  it("leaves no descriptor behind, nor do many", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"a"}')
      end
    ]]
    finally(function() server:stop() end)
    local warm = opensandbox.new(server.url)
    assert(warm:get_sandbox "a")
    warm:close()
    local before = process.descriptors()
    if not before then return pending("no /proc here") end
    for _ = 1, 50 do
      local client = opensandbox.new(server.url)
      assert(client:get_sandbox "a")
      client:close()
    end
    assert.equal(before, (process.descriptors()))
  end)
end)

describe("a request to the proxy", function()
  it("goes through it without the key when it is for a sandbox", function()
    local proxy = fault_server.start(REFUSING)
    finally(function()
      proxy:stop()
      close_clients()
    end)
    local client = new("http://box.invalid:81", KEY, { proxy = proxy.url })
    client:get_sandbox "a"
    client:ping "http://sandbox.invalid:82"
    local requests = proxy:requests()
    assert.equal(2, #requests)
    assert.equal("http://box.invalid:81/v1/sandboxes/a", requests[1].path)
    assert.equal("http://sandbox.invalid:82/ping", requests[2].path)
    assert.is_true(has(requests[1], KEY))
    assert.is_false(has(requests[2], KEY))
  end)
end)

describe("a create on the wire", function()
  it("holds what was given, defaults for the rest, and a label of its own", function()
    local server = fault_server.start(REFUSING)
    finally(function()
      server:stop()
      close_clients()
    end)
    local client = new(server.url)
    client:create_sandbox { image = "x", metadata = { a = "b" } }
    client:create_sandbox { image = { uri = "y" }, timeout = false, env = {}, entrypoint = { "sh" },
      resource_limits = { cpu = "2" }, network_policy = { default_action = "deny", egress = {} } }
    local requests = server:requests()
    local first, second = assert(json.decode(requests[1].body)), assert(json.decode(requests[2].body))
    local label = first.metadata["opensandbox-lua-create"]
    assert.is_truthy(label:find("^%x+$") and #label == 32)
    assert.not_equal(label, second.metadata["opensandbox-lua-create"])
    first.metadata["opensandbox-lua-create"] = nil
    assert.same({ image = { uri = "x" }, metadata = { a = "b" }, timeout = 600, entrypoint = { "tail", "-f", "/dev/null" },
      resourceLimits = { cpu = "1", memory = "2Gi" } }, first)
    assert.is_nil(second.timeout)
    assert.is_nil(second.env)
    assert.same({ "sh" }, second.entrypoint)
    assert.is_truthy(requests[2].body:find('"egress":[]', 1, true))
  end)
end)

describe("an endpoint made by hand", function()
  it("with headers that are no headers is refused at the caller's line", function()
    local client = opensandbox.new("http://127.0.0.1:1", "key")
    for _, headers in ipairs { { "A: b" }, { A = 5 }, { ["A b"] = "c" }, { A = "b\r\nC: d" } } do
      local ok, message = pcall(function() client:ping { url = "http://127.0.0.1:1", headers = headers } end)
      assert.is_false(ok)
      assert.truthy(message:find("client_spec%.lua:%d+: ping: the endpoint is not valid: "), message)
    end
    client:close()
  end)
end)

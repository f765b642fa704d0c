--- The development server answers as the real services did when their responses were recorded, and keeps its promises
-- about isolation, expiry and cleaning up.

local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local json = require "opensandbox.base.json"
local list_directory = require "opensandbox.devserver.base.list_directory"
local api_client = require "spec.support.api_client"
local http_client = require "spec.support.http_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local recordings = require "spec.support.recordings"
local raw_socket = require "spec.support.raw_socket"

local server

-- A recorded exchange: `request` and `response`, whose body is one string.
local function recording(area, name)
  local exchange = assert(recordings.load(area .. "/" .. name))
  if exchange.request.body == "" then exchange.request.body = nil end
  return exchange.request, exchange.response
end

-- What differs from run to run, replaced by its kind.
local function normal(value, key)
  if type(value) == "table" then
    local copy = {}
    for name, item in pairs(value) do
      -- Labels baked into an image are in the recordings; here there is no image.
      if name ~= "maintainer" then copy[name] = normal(item, name) end
    end
    if key == "metadata" and next(copy) == nil then return nil end
    -- The size of a directory is the file system's business.
    if copy.type == "directory" and type(copy.size) == "number" then copy.size = "<number>" end
    return copy
  elseif key == "owner" or key == "group" then
    return "<account>"
  elseif key == "timestamp" or key == "execution_time" then
    return "<number>"
  elseif type(value) == "string" then
    return (value:gsub("%x+%-%x+%-4%x+%-%x+%-%x+", "<uuid>"):gsub(("%x"):rep(32), "<id>")
      :gsub("%d%d%d%d%-%d%d%-%d%dT[%d:.]+Z", "<time>"):gsub("line 1: +%d+ ", "line 1: <pid> "))
  end
  return value
end

local function ordered_headers(list)
  local map = {}
  for _, pair in ipairs(list) do map[pair[1]:lower()] = pair[2] end
  return map
end

local COMPARED = {
  "content-type", "content-range", "content-disposition", "accept-ranges", "transfer-encoding", "cache-control",
  "x-accel-buffering", "execd-commands-tail-cursor", "x-content-type-options", "allow",
}

-- Compares an answer with a recorded one: status, the headers that mean something, the body.
local function same_answer(expected, actual)
  assert.equal(expected.status, actual.status)
  local wanted = ordered_headers(expected.headers)
  for _, name in ipairs(COMPARED) do assert.equal(wanted[name], actual.headers[name], name) end
  if wanted["content-type"] and wanted["content-type"]:find("json", 1, true) then
    assert.same(normal(json.decode(expected.body)), normal(json.decode(actual.body)))
  else
    assert.equal(normal(expected.body), normal(actual.body))
  end
end

-- The lifecycle API of the server of this moment: some tests have one of their own.
local function lifecycle() return api_client.new(server) end

local function api(...) return lifecycle():call(...) end

local function create(changes)
  local all = { image = { uri = "python:3.11" }, resourceLimits = { cpu = "1" } }
  for name, value in pairs(changes or {}) do all[name] = value end
  return lifecycle():create(all)
end

local function endpoint(id, query)
  return lifecycle():endpoint(id, 44772, query)
end

local Sandbox = {}
Sandbox.__index = Sandbox

local function new_sandbox(changes)
  local id = create(changes).id
  return setmetatable({ id = id, endpoint = endpoint(id) }, Sandbox)
end

function Sandbox:send(method, path, options)
  return self.endpoint:send(method, path, options)
end

local function events(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do list[#list + 1] = assert(json.decode(line)) end
  return list
end

-- Runs a command; its events without pings.
function Sandbox:run(request)
  if type(request) == "string" then request = { command = request } end
  local answer = self:send("POST", "/command", { body = assert(json.encode(request)) })
  assert.equal(200, answer.status, answer.body)
  local list = {}
  for _, event in ipairs(events(answer.body)) do
    if event.type ~= "ping" then list[#list + 1] = event end
  end
  return list, answer
end

-- What a command wrote on its standard output, and its terminal event.
function Sandbox:output(request)
  local list = self:run(request)
  local lines = {}
  for _, event in ipairs(list) do
    if event.type == "stdout" then lines[#lines + 1] = event.text end
  end
  return table.concat(lines, "|"), list[#list]
end

function Sandbox:delete()
  assert.equal(204, api("DELETE", "/v1/sandboxes/" .. self.id).status)
end

local function multipart(parts)
  local body = {}
  for _, part in ipairs(parts) do
    body[#body + 1] = ('--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'):format(
      part[1], part[3] == false and "" or '; filename="x"', part[2])
  end
  return table.concat(body) .. "--B--\r\n"
end

function Sandbox:upload(parts)
  return self:send("POST", "/files/upload", {
    headers = { ["Content-Type"] = "multipart/form-data; boundary=B" }, body = multipart(parts),
  })
end

function Sandbox:write(path, content)
  local answer = self:upload { { "metadata", json.encode { path = path } }, { "file", content } }
  assert.equal(200, answer.status, answer.body)
end

function Sandbox:read(path)
  return self:send("GET", "/files/download?path=" .. path).body
end

-- A test for each name of a list of recorded exchanges, of which each finds what those before it left. A test that does not follow the
-- one before it repeats those first: `reset` makes the beginning, `play` makes one exchange.
local function in_recorded_order(names, reset, play)
  local played
  for position, name in ipairs(names) do
    it("answers like the recording " .. name, function()
      if played ~= position - 1 then
        reset()
        for i = 1, position - 1 do play(names[i]) end
      end
      played = nil -- when it fails
      play(name)
      played = position
    end)
  end
end

local isolated
setup(function()
  server = process.devserver { grace = 0.05 }
  isolated = server.child:stderr_text():find("isolated with bubblewrap", 1, true) ~= nil
end)
teardown(function() server:stop() end)

describe("the lifecycle API", function()
  local STATELESS = {
    "auth-missing", "auth-wrong", "create-bad-json", "create-bad-metadata", "create-empty",
    "create-from-unknown-snapshot", "create-host-volume", "create-image-pull-failed", "create-number-limit",
    "create-pool-ref", "create-reserved-metadata", "create-secure-access", "create-timeout-59",
    "create-timeout-too-large", "create", "create-metadata-slash-key", "create-network-policy", "create-no-expiry",
    "endpoint-missing", "get-missing", "health", "list-metadata-malformed", "list-page-size-201", "pools",
    "snapshot-get-missing", "unknown-route",
  }
  for _, name in ipairs(STATELESS) do
    it("answers like the recording " .. name, function()
      local request, response = recording("lifecycle", name)
      local headers = request.headers
      if headers["OPEN-SANDBOX-API-KEY"] == "k1" then headers["OPEN-SANDBOX-API-KEY"] = server.key end
      if request.body then headers["content-type"] = "application/json" end
      local actual = assert(http_client.request {
        url = server.url .. request.path, method = request.method, headers = headers, body = request.body,
      })
      same_answer(response, actual)
      assert.truthy(actual.headers["x-request-id"])
    end)
  end

  local OF_ONE_SANDBOX = {
    "get", "endpoint-port-0", "endpoint-port-text", "endpoint-signed", "renew-garbage", "renew-past", "renew",
    "patch-metadata-bad", "patch-metadata", "resume-running", "snapshot-create", "pause", "get-paused", "snapshot-paused", "resume",
  }
  describe("of one sandbox", function()
    local id
    local function create_sandbox()
      id = create({ metadata = { project = "Apollo", note = "Demo.Test" }, timeout = 3600, env = { A = "1" } }).id
    end

    in_recorded_order(OF_ONE_SANDBOX, create_sandbox, function(name)
      local request, response = recording("lifecycle", name)
      local path = request.path:gsub("/sandboxes/[^/]+", "/sandboxes/" .. id)
      same_answer(response, api(request.method, path, request.body))
    end)

    it("deletes it, and then knows it no more, like the recordings", function()
      local deleted = create().id
      for _, name in ipairs { "delete", "delete-again", "get-deleted" } do
        local request, response = recording("lifecycle", name)
        same_answer(response, api(request.method, (request.path:gsub("/sandboxes/[^/]+", "/sandboxes/" .. deleted))))
      end
    end)
  end)

  it("does not renew a sandbox that has no expiry", function()
    local _, response = recording("lifecycle", "renew-no-expiry")
    local id = create().id
    same_answer(response, api("POST", ("/v1/sandboxes/%s/renew-expiration"):format(id),
      '{"expiresAt":"2099-01-01T00:00:00Z"}'))
  end)

  it("lists by state and metadata, newest first, in pages", function()
    local mark = "list" .. tostring(os.time())
    local ids = {}
    for index = 1, 3 do ids[index] = create({ metadata = { mark = mark, number = tostring(index) } }).id end
    local function list(query)
      local answer = json.decode(api("GET", "/v1/sandboxes?metadata=mark%3D" .. mark .. query).body)
      local found = {}
      for index, item in ipairs(answer.items) do found[index] = item.id end
      return found, answer.pagination
    end
    assert.same({ ids[3], ids[2], ids[1] }, (list("")))
    assert.same({ ids[2] }, (list("%26number%3D2")))
    assert.same({ ids[3], ids[2], ids[1] }, (list("&state=Failed&state=running")))
    assert.same({}, (list("&state=Failed")))
    local found, pagination = list("&page=2&pageSize=2")
    assert.same({ ids[1] }, found)
    assert.same({ page = 2, pageSize = 2, totalItems = 3, totalPages = 2, hasNextPage = false }, pagination)
    found, pagination = list("&page=9&pageSize=2")
    assert.same({}, found)
    assert.equal(9, pagination.page)
  end)

  it("finds a prefixed label encoded once and encoded twice", function()
    local id = create({ metadata = { ["example.com/team"] = "core" .. os.time() } }).id
    for _, slash in ipairs { "%2F", "%252F" } do
      local answer = api("GET", ("/v1/sandboxes?metadata=example.com%steam%%3Dcore%d"):format(slash, os.time()))
      assert.equal(200, answer.status)
      if json.decode(answer.body).items[1] then assert.equal(id, json.decode(answer.body).items[1].id) end
    end
  end)

  it("echoes a request id", function()
    assert.equal("mine", api("GET", "/v1/sandboxes/zzz", nil, { ["X-Request-ID"] = "mine" }).headers["x-request-id"])
  end)

  it("serves every route without /v1 too, but health and version only there", function()
    assert.equal(200, api("GET", "/sandboxes").status)
    assert.equal(404, api("GET", "/v1/health").status)
    assert.truthy(json.decode(api("GET", "/version").body).version)
  end)

  it("redirects a trailing slash and refuses a wrong method", function()
    local answer = api("GET", "/v1/sandboxes/")
    assert.equal(307, answer.status)
    assert.equal(server.url .. "/v1/sandboxes", answer.headers.location)
    answer = api("PUT", "/v1/sandboxes")
    assert.equal(405, answer.status)
    assert.same({ detail = "Method Not Allowed" }, json.decode(answer.body))
  end)

  it("gives endpoints for ports and for execd, through the server's proxy on wish, with the prefix that was used", function()
    local id = create().id
    assert.same({ endpoint = "127.0.0.1:8080" }, json.decode(api("GET", "/v1/sandboxes/" .. id .. "/endpoints/8080").body))
    local direct = endpoint(id)
    assert.truthy(direct.endpoint:find("^127%.0%.0%.1:%d+/" .. id:gsub("%-", "%%-") .. "/proxy/44772$"))
    local host = server.url:gsub("http://", "")
    for _, prefix in ipairs { "/v1", "" } do
      local path = ("%s/sandboxes/%s/endpoints/44772?use_server_proxy=true"):format(prefix, id)
      local proxied = json.decode(api("GET", path).body)
      assert.equal(("%s%s/sandboxes/%s/proxy/44772"):format(host, prefix, id), proxied.endpoint)
      assert.same(direct.headers, proxied.headers)
      local ping = http_client.request { url = "http://" .. proxied.endpoint .. "/ping", headers = proxied.headers }
      assert.equal(200, ping.status)
      assert.equal(401, http_client.request({ url = "http://" .. proxied.endpoint .. "/ping" }).status)
    end
    local any = json.decode(api("GET", "/v1/sandboxes/" .. id .. "/endpoints/8080?use_server_proxy=1").body)
    assert.same({ endpoint = ("%s/v1/sandboxes/%s/proxy/8080"):format(host, id) }, any)
  end)

  -- The status of a sandbox whose entrypoint ends.
  local function ended_status(id)
    return uv_loop.wait_until(function()
      local status = json.decode(api("GET", "/v1/sandboxes/" .. id).body).status
      return status.state ~= "Pending" and status.state ~= "Running" and status
    end)
  end

  it("reports a sandbox whose entrypoint fails as Failed and its execd as unreachable", function()
    local sandbox = new_sandbox { entrypoint = { "false" } }
    local status = ended_status(sandbox.id)
    assert.equal("Failed", status.state)
    assert.equal("CONTAINER_EXITED_ERROR", status.reason)
    assert.equal("Sandbox container exited with code 1.", status.message)
    local answer = sandbox:send("GET", "/ping")
    assert.equal(502, answer.status)
    assert.equal("BACKEND_CONNECTION_FAILED", json.decode(answer.body).code)
    sandbox:delete()
  end)

  it("reports a sandbox whose entrypoint ends well as Terminated", function()
    local id = create({ entrypoint = { "sh", "-c", "sleep 0.05" } }).id
    local status = ended_status(id)
    assert.equal("Terminated", status.state)
    assert.equal("CONTAINER_EXITED", status.reason)
  end)

  it("ends a sandbox when its time is up", function()
    local id = create({ timeout = 60 }).id
    local at = os.time() + 2
    local soon = os.date("!%Y-%m-%dT%H:%M:%SZ", at)
    assert.equal(200, api("POST", ("/v1/sandboxes/%s/renew-expiration"):format(id), '{"expiresAt":"' .. soon .. '"}').status)
    assert.equal(200, api("GET", "/v1/sandboxes/" .. id).status)
    uv_loop.wait_until(function() return api("GET", "/v1/sandboxes/" .. id).status == 404 end)
    assert.is_true((uv.gettimeofday()) >= at) -- os.time() may be some milliseconds behind
  end)
end)

describe("the execd API", function()
  local sandbox
  setup(function() sandbox = new_sandbox() end)
  teardown(function() sandbox:delete() end)

  local function replay(name, path)
    local request, response = recording("execd", name)
    for _, header in ipairs { "Host", "Content-Length" } do request.headers[header] = nil end
    same_answer(response, sandbox:send(request.method, path or request.path,
      { headers = request.headers, body = request.body }))
  end

  -- In the order in which they were recorded: each finds the files that those before it left.
  local RECORDED = {
    "ping", "not-found", "wrong-method", "command-cwd-missing", "command-empty", "command-bad-json",
    "command-gid-without-uid", "status-unknown", "logs-unknown", "interrupt-unknown", "interrupt-no-id",
    "upload-two-files", "upload-bad-mode", "upload-empty-path", "upload-not-multipart", "download", "download-range",
    "download-range-past-end", "download-lines", "download-binary", "download-missing", "download-no-path", "info",
    "info-missing", "search", "search-all", "search-missing", "list-depth-2", "list-file", "mkdir", "mv", "mv-exists",
    "mv-missing", "permissions", "permissions-missing", "replace-verbose", "replace", "replace-empty-old",
    "delete-file-is-directory", "delete-files", "rmdir",
  }
  local function empty_directory()
    sandbox:send("DELETE", "/directories?path=/tmp/wire-rec")
    sandbox:write("/tmp/wire-rec/.keep", "")
    sandbox:send("DELETE", "/files?path=/tmp/wire-rec/.keep")
  end
  in_recorded_order(RECORDED, empty_directory, replay)

  it("wants its token on every request, like the recordings", function()
    for _, name in ipairs { "auth-missing", "auth-wrong" } do
      local request, response = recording("execd", name)
      same_answer(response, http_client.request {
        url = "http://" .. sandbox.endpoint.endpoint .. request.path, headers = { ["X-EXECD-ACCESS-TOKEN"] =
          request.headers["X-EXECD-ACCESS-TOKEN"] },
      })
    end
  end)

  -- One kind of events in order, and the terminal one; the order between kinds is not defined.
  local function by_kind(text)
    local kinds = {}
    for _, event in ipairs(events(text)) do
      if event.type ~= "ping" then
        kinds[event.type] = kinds[event.type] or {}
        table.insert(kinds[event.type], normal(event))
      end
    end
    for _, event in ipairs(kinds.execution_complete or {}) do event.execution_time = nil end
    return kinds
  end

  local COMMANDS = {
    "command-true", "command-echo", "command-exit-3", "command-not-found", "command-killed", "command-child-killed",
    "command-lines", "command-no-newline", "command-carriage-returns", "command-utf8", "command-invalid-utf8",
    "command-control-bytes", "command-stderr", "command-burst", "command-long-line", "command-env-cwd",
    "command-timeout", "command-start-failure", "command-background", "command-slow",
  }
  for _, name in ipairs(COMMANDS) do
    it("streams like the recording " .. name, function()
      if name == "command-env-cwd" and not isolated then return pending("its /tmp is this machine's without isolation") end
      local request, response = recording("execd", name)
      local actual = sandbox:send("POST", "/command", { body = request.body })
      assert.equal(200, actual.status)
      local wanted = ordered_headers(response.headers)
      for _, header in ipairs(COMPARED) do assert.equal(wanted[header], actual.headers[header], header) end
      -- Versions of bash differ in how far they indent the command behind "Killed".
      local function text_of(answer) return (answer.body:gsub("Killed +", "Killed ")) end
      assert.same(by_kind(text_of(response)), by_kind(text_of(actual)))
    end)
  end

  it("writes every event as one chunk: bare JSON and two newlines", function()
    local _, answer = sandbox:run("seq 1 3; printf '<\\303\\251/&>'")
    for _, chunk in ipairs(answer.chunks) do assert.truthy(chunk[2]:find("^{[^\n]*}\n\n$"), chunk[2]) end
    assert.truthy(answer.body:find('"text":"\\u003c\195\169/\\u0026\\u003e"', 1, true))
  end)

  it("sends output as it is written, not when the command ends", function()
    local seen
    sandbox:send("POST", "/command", { body = '{"command":"echo early; sleep 1; echo late"}', on_chunk = function(text, ms)
      if text:find("early", 1, true) then seen = ms end
    end })
    assert.truthy(seen and seen < 700, "first line after " .. tostring(seen))
  end)

  it("tells a shell that was killed from one that exits with 137", function()
    local _, killed = sandbox:output("kill -9 $$")
    assert.same({ "-1", { "signal: killed" } }, { killed.error.evalue, killed.error.traceback })
    local _, exited = sandbox:output("exit 137")
    assert.same({ "137", { "exit status 137" } }, { exited.error.evalue, exited.error.traceback })
  end)

  it("does not wait for what a command leaves running, and leaves it running", function()
    assert.equal("now", (sandbox:output("(while [ ! -e tmp/go ]; do sleep 0.02; done; echo later > tmp/later) & echo now")))
    sandbox:write("/tmp/go", "")
    uv_loop.wait_until(function() return sandbox:read("/tmp/later") == "later\n" end)
  end)

  it("keeps the exact output of a foreground command, its status, and no logs", function()
    local list = sandbox:run("echo hi; exit 4")
    local id = list[1].text
    assert.equal("hi\n", sandbox:read("/tmp/" .. id .. ".stdout"))
    local _, wanted = recording("execd", "foreground-status")
    same_answer(wanted, sandbox:send("GET", "/command/status/" .. id))
    _, wanted = recording("execd", "foreground-logs")
    same_answer(wanted, sandbox:send("GET", "/command/" .. id .. "/logs"))
  end)

  it("runs a command in the background, with status and logs by byte cursor", function()
    local command = "echo one; while [ ! -e tmp/two ]; do sleep 0.02; done; echo two >&2; exit 5"
    local id = sandbox:run({ command = command, background = true })[1].text
    local status = json.decode(sandbox:send("GET", "/command/status/" .. id).body)
    assert.same({ true, nil }, { status.running, status.exit_code })
    sandbox:write("/tmp/two", "")
    uv_loop.wait_until(function() return not json.decode(sandbox:send("GET", "/command/status/" .. id).body).running end)
    local _, wanted = recording("execd", "background-status-finished")
    local actual = sandbox:send("GET", "/command/status/" .. id)
    local function comparable(body)
      local value = normal(json.decode(body))
      value.content = nil
      return value
    end
    assert.same(comparable(wanted.body), comparable(actual.body))
    _, wanted = recording("execd", "background-logs-0")
    same_answer(wanted, sandbox:send("GET", "/command/" .. id .. "/logs?cursor=0"))
    _, wanted = recording("execd", "background-logs-next")
    same_answer(wanted, sandbox:send("GET", "/command/" .. id .. "/logs?cursor=8"))
    assert.equal("99", sandbox:send("GET", "/command/" .. id .. "/logs?cursor=99").headers["execd-commands-tail-cursor"])
    assert.equal(400, sandbox:send("GET", "/command/" .. id .. "/logs?cursor=-1").status)
    _, wanted = recording("execd", "background-interrupt-finished")
    same_answer(wanted, sandbox:send("DELETE", "/command?id=" .. id))
  end)

  it("interrupts a command, which may have the last word", function()
    local id = sandbox:run({ command = "sleep 60", background = true })[1].text
    local _, wanted = recording("execd", "interrupt-running")
    same_answer(wanted, sandbox:send("DELETE", "/command?id=" .. id))
    _, wanted = recording("execd", "background-status-interrupted")
    same_answer(wanted, sandbox:send("GET", "/command/status/" .. id))

    local command = "trap 'exit 42' TERM; echo > tmp/trapped; while :; do sleep 0.05; done"
    id = sandbox:run({ command = command, background = true })[1].text
    uv_loop.wait_until(function() return sandbox:read("/tmp/trapped") == "\n" end)
    assert.equal(200, sandbox:send("DELETE", "/command?id=" .. id).status)
    assert.equal(42, json.decode(sandbox:send("GET", "/command/status/" .. id).body).exit_code)
  end)

  it("lets a command lead a process group of its own, which the system signals as a whole", function()
    local list = sandbox:run("read -r _ _ _ _ group _ < /proc/$$/stat; test $group = $$")
    assert.equal("execution_complete", list[#list].type)
  end)

  it("goes on with a command whose client has gone", function()
    local id
    sandbox:send("POST", "/command", {
      body = '{"command":"sleep 0.3; echo done > tmp/went-on"}',
      on_chunk = function(text)
        id = events(text)[1].text
        return false
      end,
    })
    uv_loop.wait_until(function() return not json.decode(sandbox:send("GET", "/command/status/" .. id).body).running end)
    assert.equal("done\n", sandbox:read("/tmp/went-on"))
    assert.equal(0, json.decode(sandbox:send("GET", "/command/status/" .. id).body).exit_code)
  end)

  it("gives commands the variables of the sandbox and of the request, and none of the server's", function()
    local other = new_sandbox { env = { FROM = "sandbox", BOTH = "sandbox", LD_BIND_NOW = "1" } }
    local text = other:output {
      command = "echo $FROM $BOTH $LD_BIND_NOW $HOME; env | grep -c LUA_PATH", envs = { BOTH = "request" },
    }
    assert.truthy(text:find("^sandbox request 1 /"), text)
    assert.truthy(text:find("|0$"), text)
    other:delete()
  end)

  it("runs commands as another user when it may, and says so when it may not", function()
    local list = sandbox:run { command = "id -u; id -g", uid = 12345, gid = 12345 }
    if uv.getuid() == 0 then
      assert.same({ "12345", "12345" }, { list[2].text, list[3].text })
    else
      assert.truthy(list[2].error.evalue:find("operation not permitted", 1, true))
    end
  end)

  it("keeps hostile paths and values from doing harm", function()
    assert.equal(500, sandbox:send("GET", "/files/download?path=/work/a%00b").status)
    assert.equal(200, sandbox:send("POST", "/command", { body = '{"command":"true","timeout":1e17}' }).status)
    assert.equal(400, sandbox:send("POST", "/command", { body = '{"command":"true","timeout":1.5}' }).status)
    assert.equal(500, sandbox:send("DELETE", "/directories?path=/work/../..").status)
    assert.equal("ok", (sandbox:output("echo ok")))
  end)

  it("answers malformed requests and goes on", function()
    local function raw(text)
      return http_client.request { url = server.url, raw = text, timeout = 3 }
    end
    assert.equal(400, raw("nonsense\r\n\r\n").status)
    assert.equal(400, raw("POST /v1/sandboxes HTTP/1.1\r\nContent-Length: x\r\n\r\n").status)
    local answer = raw("POST /v1/sandboxes HTTP/1.1\r\nOPEN-SANDBOX-API-KEY: " .. server.key
      .. "\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
      .. "1\r\n{\r\n1;x=y\r\n}\r\n0\r\nTrailer: t\r\n\r\n")
    assert.equal(422, answer.status)
    assert.equal(100, answer.informational[1].status)
    assert.equal(200, http_client.request({ url = server.url .. "/health" }).status)
  end)

  it("answers a client that speaks TLS at once, and closes the connection", function()
    local hello = "\22\3\1\2\0\1\0\1\252\3\3" .. ("x"):rep(500)
    for _, url in ipairs { server.url, "http://" .. endpoint(create().id).endpoint } do
      local socket = raw_socket.connect(tonumber(url:match(":(%d+)")))
      socket:send(hello)
      assert.is_true(socket:wait_end(5))
      assert.truthy(socket.received:find("^HTTP/1%.1 400 Bad Request\r\n"), socket.received)
      socket:close()
    end
  end)

  it("answers pipelined requests in order", function()
    local socket, text = uv.new_tcp(), ""
    local request = "GET %s HTTP/1.1\r\nOPEN-SANDBOX-API-KEY: " .. server.key .. "\r\n\r\n"
    local port = tonumber(server.url:match(":(%d+)$"))
    socket:connect("127.0.0.1", port, function()
      socket:write(request:format("/health") .. request:format("/version") .. request:format("/v1/nope"))
      socket:read_start(function(_, data) text = text .. (data or "") end)
    end)
    uv_loop.wait(function() return text:find("Not Found", 20, true) and text:find("detail", 1, true) end, 3)
    uv_loop.close(socket)
    assert.truthy(text:find("healthy.*version.*Not Found"))
  end)
end)

describe("the file routes", function()
  local sandbox
  setup(function() sandbox = new_sandbox() end)
  teardown(function() sandbox:delete() end)

  it("pairs parts by their order, whatever comes first", function()
    local answer = sandbox:upload {
      { "file", "first" }, { "file", "second" },
      { "metadata", '{"path":"/work/1","mode":600}' }, { "metadata", '{"path":"/work/deep/2"}' },
    }
    assert.equal(200, answer.status)
    assert.equal("first", sandbox:read("/work/1"))
    assert.equal("second", sandbox:read("/work/deep/2"))
    assert.equal("600|755", (sandbox:output("stat -c %a work/1 work/deep/2")))
  end)

  it("refuses parts without a file name, and counts that differ", function()
    local function code(parts) return json.decode(sandbox:upload(parts).body).code end
    assert.equal("INVALID_FILE_METADATA", code { { "metadata", "{}", false }, { "file", "x" } })
    assert.equal("INVALID_FILE_CONTENT", code { { "metadata", "{}" }, { "file", "x", false } })
    assert.equal("INVALID_FILE", code { { "metadata", "{}" }, { "file", "x" }, { "file", "y" } })
    assert.equal("INVALID_FILE_METADATA", code { { "metadata", "{}" }, { "file", "x" } })
  end)

  it("writes over a file in place, keeping its mode and its links", function()
    sandbox:write("/work/kept", "a longer content")
    sandbox:run("cd work; chmod 640 kept; ln kept twin; ln -s kept link")
    sandbox:write("/work/link", "new")
    assert.equal("new", sandbox:read("/work/twin"))
    assert.equal("640", (sandbox:output("stat -c %a work/kept")))
  end)

  it("keeps bytes as they are, in chunked uploads of any split too", function()
    local bytes = {}
    for value = 0, 255 do bytes[#bytes + 1] = string.char(value) end
    local content = table.concat(bytes):rep(300) .. "\r\n--B\r\n--"
    local body = multipart { { "metadata", '{"path":"/work/bytes"}' }, { "file", "" } }
    body = body:gsub("\r\n%-%-B%-%-\r\n$", "") .. content:gsub("%-%-B\r", "--C\r") .. "\r\n--B--\r\n"
    local pieces = {}
    for position = 1, #body, 7919 do pieces[#pieces + 1] = body:sub(position, position + 7918) end
    local answer = sandbox:send("POST", "/files/upload", {
      headers = { ["Content-Type"] = "multipart/form-data; boundary=B" }, body = pieces, chunked = true,
    })
    assert.equal(200, answer.status, answer.body)
    assert.truthy(content:gsub("%-%-B\r", "--C\r") == sandbox:read("/work/bytes"))
  end)

  it("serves the ranges that execd serves", function()
    sandbox:write("/work/range", "0123456789")
    local function range(text)
      local answer = sandbox:send("GET", "/files/download?path=/work/range", { headers = { Range = "bytes=" .. text } })
      return answer.status, answer.body, answer.headers["content-range"]
    end
    assert.same({ 206, "789", "bytes 7-9/10" }, { range("-3") })
    assert.same({ 206, "0123456789", "bytes 0-9/10" }, { range("-99") })
    assert.same({ 206, "89", "bytes 8-9/10" }, { range("8-99") })
    assert.same({ 206, "1", "bytes 1-1/10" }, { range("1-1,3-4") })
    assert.equal(416, (range("x")))
    sandbox:write("/work/lines", "a\r\nb\n\nd")
    assert.equal("a\nb", sandbox:send("GET", "/files/download?path=/work/lines&limit=2").body)
    assert.equal("\nd", sandbox:send("GET", "/files/download?path=/work/lines&offset=3").body)
    assert.equal(400, sandbox:send("GET", "/files/download?path=/work/lines&offset=0").status)
  end)

  it("promises a directory's bytes and cuts the connection, as execd does", function()
    local answer = sandbox:send("GET", "/files/download?path=/work")
    assert.equal(200, answer.status)
    assert.equal("9223372036854775807", answer.headers["content-length"])
    assert.truthy(answer.cut)
  end)

  it("searches with every kind of pattern", function()
    sandbox:run("mkdir -p work/s/t; cd work/s; touch a.txt ab.txt .dot b.md t/c.txt; ln -s /etc t/link")
    local function names(pattern)
      local list = {}
      local answer = sandbox:send("GET", "/files/search?path=/work/s&pattern=" .. pattern)
      assert.equal(200, answer.status, answer.body)
      for _, file in ipairs(json.decode(answer.body)) do list[#list + 1] = file.path:match("[^/]*$") end
      return table.concat(list, " ")
    end
    assert.equal(".dot a.txt ab.txt b.md c.txt link", names("*"))
    assert.equal("a.txt ab.txt c.txt", names("**/*.txt"))
    assert.equal("a.txt c.txt", names("%3F.txt"))
    assert.equal("a.txt b.md", names("[a-b].%7Btxt,md%7D"))
    assert.equal("c.txt", names("[!ab]*.txt"))
    assert.equal(".dot b.md link", names("!(*.txt)"))
    assert.equal(500, sandbox:send("GET", "/files/search?path=/work/s&pattern=%5Ba").status)
  end)

  it("names the owner that commands see", function()
    sandbox:write("/work/owned", "")
    local info = json.decode(sandbox:send("GET", "/files/info?path=/work/owned").body)["/work/owned"]
    assert.equal((sandbox:output("stat -c '%U %G' work/owned")), info.owner .. " " .. info.group)
    local body = ('{"/work/owned":{"owner":"%s","group":"%s"}}'):format(info.owner, info.group)
    assert.equal(200, sandbox:send("POST", "/files/permissions", { body = body }).status)
    assert.equal(500, sandbox:send("POST", "/files/permissions", { body = '{"/work/owned":{"owner":"nobody-such"}}' }).status)
  end)

  it("expands variables and the home directory in paths", function()
    sandbox:write("~/in-home", "1")
    assert.equal("1", sandbox:read("$HOME/in-home"))
    assert.equal(500, sandbox:send("GET", "/files/download?path=$NO_SUCH_NAME/x").status)
    sandbox:write("/work/price.txt", "2")
    assert.equal("2", sandbox:read("/work/price$5.txt"))
  end)

  it("shows this machine's programs and refuses to change them", function()
    local answer = sandbox:send("GET", "/files/info?path=/etc/passwd")
    assert.equal(200, answer.status)
    answer = sandbox:upload { { "metadata", '{"path":"/etc/opensandbox-test"}' }, { "file", "x" } }
    assert.equal(500, answer.status)
    assert.truthy(answer.body:find("read-only file system", 1, true), answer.body)
    for _, path in ipairs { "/files?path=/etc/passwd", "/directories?path=/etc/ssl" } do
      assert.equal(500, sandbox:send("DELETE", path).status)
    end
    answer = sandbox:send("POST", "/files/mv", { body = '[{"src":"/etc/passwd","dest":"/work/stolen"}]' })
    assert.equal(500, answer.status)
  end)

  it("never follows a link out of the sandbox", function()
    local directory = temporary.directory()
    local outside = temporary.file("secret", directory)
    sandbox:run(("mkdir -p work; cd work; ln -s %s out; ln -s / top; ln -s ../../../../../../../../.. up"):format(outside))
    for _, path in ipairs { "/work/out", "/work/top" .. outside, "/work/up" .. outside, "/../.." .. outside } do
      assert.equal(404, sandbox:send("GET", "/files/download?path=" .. path).status, path)
    end
    sandbox:write(directory .. "/other", "so that the directory is in the sandbox, too")
    sandbox:write("/work/out", "changed")
    assert.equal("secret", read_file(outside))
    sandbox:send("DELETE", "/directories?path=/work/up" .. directory)
    assert.equal("secret", read_file(outside))
    temporary.remove(directory)
  end)
end)

describe("a sandbox", function()
  it("sees its own files, processes and nothing of the server's", function()
    local sandbox, other = new_sandbox(), new_sandbox()
    sandbox:write("/work/mine", "1")
    assert.equal("0", (other:output("ls work | wc -l")))
    if isolated then
      assert.equal("bin|usr", (sandbox:output("ls / | grep -x -e bin -e usr")))
      assert.equal("refused", (sandbox:output("touch /usr/x 2>/dev/null || echo refused")))
      assert.equal("refused", (sandbox:output("mount -o remount,rw /usr 2>/dev/null || echo refused")))
      assert.equal("0", (sandbox:output("cat /proc/[0-9]*/cmdline | grep -c devserver_spe[c]")))
    end
    sandbox:delete()
    other:delete()
  end)

  it("cuts the streams of its commands when it is deleted, as the end of a container does", function()
    local sandbox = new_sandbox()
    local answer = sandbox:send("POST", "/command", { body = '{"command":"echo x; sleep 9"}', on_chunk = function(text)
      if not text:find('"x"', 1, true) then return end
      -- The test's client cannot be used inside a callback, so another process deletes the sandbox.
      os.execute(("curl -s -X DELETE -H 'OPEN-SANDBOX-API-KEY: %s' %s/v1/sandboxes/%s &"):format(
        server.key, server.url, sandbox.id))
    end })
    assert.truthy(answer.cut)
    assert.falsy(answer.body:find('"error"', 1, true))
  end)

  it("takes all its processes and files with it", function()
    local sandbox = new_sandbox()
    local mark = "31" .. tostring(uv.hrtime()):sub(-7)
    sandbox:run(("setsid sleep %s & sleep %s & echo"):format(mark, mark))
    sandbox:run { command = "sleep " .. mark, background = true }
    assert.equal(3, #process.running("sleep " .. mark))
    sandbox:delete()
    -- Without bubblewrap a process that made a session of its own escapes. One that was killed may exist for a moment longer.
    local left
    uv_loop.wait(function()
      left = process.running("sleep " .. mark)
      return #left == (isolated and 0 or 1)
    end, 3)
    for _, pid in ipairs(left) do uv.kill(pid, "sigkill") end
    assert.equal(isolated and 0 or 1, #left)
    local root = server.child:stderr_text():match("files in (%S+)")
    assert.falsy(uv.fs_stat(root .. "/" .. sandbox.id))
  end)
end)

describe("the program", function()
  it("stops when its standard input ends, leaving neither files nor processes", function()
    local one = process.devserver { grace = 0.05, isolation = "none" }
    local root = one.child:stderr_text():match("files in (%S+)")
    assert.truthy(uv.fs_stat(root))
    assert.truthy(one.child:stderr_text():find("NOT ISOLATED", 1, true))
    local mine = server
    server = one
    new_sandbox():run { command = "sleep 4711", background = true }
    server = mine
    assert.equal(0, (one:stop()))
    assert.falsy(uv.fs_stat(root))
  end)

  it("cleans up to the end and exits with 0, however many signals arrive meanwhile", function()
    local one = process.devserver { grace = 0.05 }
    local root = one.child:stderr_text():match("files in (%S+)")
    local mine = server
    server = one
    new_sandbox()
    server = mine
    local names, sent = { "sigusr1", "sigterm", "sigint", "sighup", "sigquit", "sigusr2", "sigalrm" }, 0
    local deadline = uv.hrtime() + 10e9
    while one.child:running() and uv.hrtime() < deadline do
      one.child:kill(names[sent % #names + 1])
      sent = sent + 1
    end
    assert.same({ 0, 0 }, { one.child:wait(1) })
    assert.truthy(sent > 1)
    one:stop()
    assert.falsy(uv.fs_stat(root))
  end)

  it("removes its directory when a signal arrives while it starts", function()
    local directory = temporary.directory()
    local env = process.module_paths()
    env.TMPDIR = directory
    local child = process.start { argv = { process.lua(), "bin/opensandbox-devserver", "--port", "0" }, env = env }
    local created = uv_loop.wait(function() return #assert(list_directory(directory)) > 0 end, 10)
    child:kill("sigterm")
    assert.same({ 0, 0 }, { child:wait(10) })
    child:stop()
    assert.is_true(created)
    assert.same({}, list_directory(directory))
    uv.fs_rmdir(directory)
  end)

  it("runs commands inside the sandbox's directory without isolation too", function()
    local mine = server
    server = process.devserver { grace = 0.05, isolation = "none" }
    local sandbox = new_sandbox()
    sandbox:write("/work/a", "1")
    assert.equal("1", (sandbox:output("cat work/a")))
    assert.equal("1", (sandbox:output { command = "cat a", cwd = "/work" }))
    local _, killed = sandbox:output("kill -9 $$")
    assert.equal("-1", killed.error.evalue)
    -- A path of this machine that a command reported is known to the file API, and this machine's shared memory is not.
    local directory = sandbox:output("pwd")
    assert.equal("1", sandbox:send("GET", "/files/download?path=" .. directory .. "/work/a").body)
    sandbox:write("/dev/shm/b", "2")
    assert.equal("2", (sandbox:output("cat dev/shm/b")))
    server:stop()
    server = mine
  end)

  it("says which option helps when a port is in use", function()
    local port = server.url:match(":(%d+)$")
    local child = process.start {
      argv = { process.lua(), "bin/opensandbox-devserver", "--port", port }, env = process.module_paths(),
    }
    assert.equal(1, (child:wait(5)))
    assert.equal(("opensandbox-devserver: port %s is in use: choose another with --port (0 takes a free one)\n")
      :format(port), child:stderr_text())
    child:stop()
  end)

  it("keeps no descriptors or processes when sandboxes come and go", function()
    local function use_one()
      local sandbox = new_sandbox()
      sandbox:run("echo x; echo y >&2")
      sandbox:run { command = "sleep 99", background = true }
      sandbox:write("/work/x", "y")
      sandbox:read("/work/x")
      sandbox:delete()
    end
    -- The server closes the connections of the requests before in its own time.
    local function settled()
      local last, same, tries = nil, 0, 0
      repeat
        uv_loop.sleep(0.02)
        local count = process.descriptors(server.pid) + #process.children(server.pid)
        last, same, tries = count, count == last and same + 1 or 0, tries + 1
      until same == 5 or tries == 500
      return last
    end
    use_one() -- the first one opens what the loop keeps
    local before = settled()
    for _ = 1, 5 do use_one() end
    local after, _, open = settled(), process.descriptors(server.pid)
    assert.equal(before, after, table.concat(open, "\n"))
  end)
end)

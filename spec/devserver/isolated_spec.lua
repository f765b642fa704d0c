--- The isolated sessions of the development server, which need bubblewrap. What they answer to one client is held to recordings
-- by isolated_recordings_spec.lua.

local json = require "opensandbox.base.json"
local execd_client = require "spec.support.execd_client"
local http_client = require "spec.support.http_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local procfs = require "spec.support.procfs"
local time = require "opensandbox.base.time"

local BASE = "/v1/isolated/session"
local ALLOWED = { extensions = { ["bootstrap.execd.isolation"] = "enable" } }

describe("isolated sessions", function()
  local server, reason, sandbox
  setup(function()
    server, reason = process.isolated_devserver { grace = 2 } -- which these streams do not wait for
    if server then sandbox = execd_client.sandbox(server, ALLOWED) end
  end)
  teardown(function()
    if server then server:stop() end
  end)

  local function test(title, body)
    it(title, function()
      if not server then return pending(reason) end
      body()
    end)
  end

  local function request(method, path, body)
    local answer = sandbox:send(method, path, body)
    return answer.status, answer.body ~= "" and json.decode(answer.body) or nil, answer
  end

  local function create(changes)
    local body = { workspace = { path = "/workspace/one", mode = "rw" } }
    for name, value in pairs(changes or {}) do body[name] = value end
    local status, answer = request("POST", BASE, body)
    assert.equal(201, status, json.encode(answer))
    return answer.session_id
  end

  local function info(id)
    local status, body = request("GET", BASE .. "/" .. id)
    return status, body
  end

  local function run(id, code, more, options)
    local body = { code = code }
    for name, value in pairs(more or {}) do body[name] = value end
    return sandbox:stream(("%s/%s/run"):format(BASE, id), body, options)
  end

  local function output(id, code, more)
    return execd_client.text(run(id, code, more), "stdout", "|")
  end

  -- Starts a run beside the test, and waits for its first event.
  local function begin(id, code)
    local child = sandbox:begin("POST", ("%s/%s/run"):format(BASE, id), { code = code })
    assert(child:read_line(10))
    return child
  end

  test("are deleted, and then unknown", function()
    local id = create()
    assert.equal(200, (info(id)))
    assert.equal(200, (request("DELETE", BASE .. "/" .. id)))
    for _, method in ipairs { "GET", "DELETE" } do
      local status, body = request(method, BASE .. "/" .. id)
      assert.same({ 404, "SESSION_NOT_FOUND" }, { status, body.code })
    end
  end)

  test("live on after their idle time until they are collected", function()
    local id, state = create { idle_timeout_seconds = 1 }, nil
    uv_loop.wait_until(function()
      state = select(2, info(id))
      return state.idle_remaining_seconds == 0
    end)
    assert.equal("active", state.status)
    assert.equal("here", output(id, "echo here"))
    assert.equal(1, select(2, info(id)).idle_remaining_seconds)
  end)

  test("have the variables that they may have", function()
    local other = execd_client.sandbox(server, {
      env = { SECRET = "1", OPEN = "2" }, extensions = ALLOWED.extensions,
    })
    local mine = sandbox
    sandbox = other
    assert.equal("-2", output(create { env_passthrough = { mode = "deny", keys = { "SECRET" } } }, "echo $SECRET-$OPEN"))
    assert.equal("1-", output(create { env_passthrough = { mode = "allow", keys = { "SECRET" } } }, "echo $SECRET-$OPEN"))
    sandbox = mine
    other:delete()
  end)

  test("keep all of the shell's state, apart from a run with variables of its own", function()
    local id = create()
    run(id, "A=1; f() { echo f; }; cd /usr")
    assert.equal("1|f|/usr", output(id, "echo $A; f; pwd"))
    assert.equal("it's", output(id, "cd /; echo $V", { envs = { V = "it's" } }))
    assert.equal("none|/usr", output(id, "echo ${V:-none}; pwd"))
  end)

  test("report an exit code, and end with their shell", function()
    local id = create()
    local list = run(id, "(exit 3)")
    assert.same({ "ExitError", "3" }, { list[1].error.ename, list[1].error.evalue })
    list = run(id, "exit 0")
    assert.equal("RuntimeError", list[1].error.ename)
    uv_loop.wait_until(function() return info(id) == 404 end)
  end)

  test("let one run wait for another", function()
    local id = create()
    local child = begin(id, "cd /workspace/one; rm -f go; echo first; while [ ! -e go ]; do sleep 0.05; done; touch done")
    local second = sandbox:begin("POST", ("%s/%s/run"):format(BASE, id), { code = "ls done; rm done" })
    -- The second request has arrived when a later one has been answered, and has no answer yet.
    assert.equal(200, (info(id)))
    assert.truthy(second:running())
    sandbox:stream("/command", { command = "touch /workspace/one/go" })
    assert.equal(0, second:wait(10))
    assert.truthy(second:output():find('"text":"done"', 1, true))
    assert.equal(0, child:wait(10))
  end)

  test("end a run and themselves when its time is over", function()
    local id = create()
    local list = run(id, "echo here; sleep 60; echo never", { timeout_seconds = 1 })
    assert.equal("stdout error", execd_client.kinds(list))
    assert.same({ "RuntimeError", "context deadline exceeded" }, { list[2].error.ename, list[2].error.evalue })
    assert.equal(404, (info(id)))
  end)

  test("end when the client of a run goes away", function()
    local id = create()
    run(id, "echo here; sleep 60", nil, { on_chunk = function() return false end })
    uv_loop.wait_until(function() return info(id) == 404 end)
  end)

  test("end a run whose line is longer than 16 MiB", function()
    local id = create()
    local list = run(id, "head -c 17000000 /dev/zero | tr '\\0' x; sleep 60")
    assert.equal("read stdout: bufio.Scanner: token too long", list[1].text:sub(1, 100))
    assert.equal(404, (info(id)))
  end)

  test("stream output that is larger than every buffer", function()
    local id = create()
    local list = run(id, "seq 1 100000")
    assert.equal("execution_complete", list[#list].type)
    assert.equal(100001, #list)
    assert.same({ "1", "100000" }, { list[1].text, list[100000].text })
  end)

  test("leave the status and the log of a run in the background, by a cursor", function()
    local id = create()
    run(id, "export A=1; cd /workspace/one")
    local _, started = request("POST", ("%s/%s/run"):format(BASE, id), {
      code = "echo $A $B; echo two >&2; while [ ! -e end ]; do sleep 0.05; done; echo end; exit 5", background = true,
      envs = { B = "it's" },
    })
    local path = ("%s/%s/runs/%s"):format(BASE, id, started.run_id)
    local state = select(2, request("GET", path))
    assert.same({ true, started.run_id, started.started_at }, { state.running, state.run_id, state.started_at })
    run(id, "touch end")
    uv_loop.wait_until(function()
      state = select(2, request("GET", path))
      return not state.running
    end)
    assert.equal(5, state.exit_code)
    assert.is_true(time.parse(state.finished_at) >= time.parse(state.started_at))
    local logs = sandbox:send("GET", path .. "/logs")
    assert.equal("1 it's\ntwo\nend\n", logs.body)
    assert.equal("15", logs.headers["execd-isolated-tail-cursor"])
    assert.equal("end\n", sandbox:send("GET", path .. "/logs?cursor=11").body)
    run(id, "rm end")
    request("DELETE", BASE .. "/" .. id)
    assert.equal(404, (request("GET", path)))
  end)

  test("serve the files of their workspace", function()
    local id = create()
    local base = ("%s/%s"):format(BASE, id)
    run(id, "cd /workspace/one; echo hello > note; mkdir -p sub")
    assert.equal("hello\n", sandbox:send("GET", base .. "/files/download?path=/workspace/one/note").body)
    assert.equal("hello\n", sandbox:send("GET", base .. "/files/download?path=note").body)
    assert.equal(200, (request("POST", base .. "/directories", { ["new"] = { mode = 700 } })))
    assert.equal(200, (request("POST", base .. "/files/mv", { { src = "note", dest = "/workspace/one/new/note" } })))
    local body = table.concat({
      '--B', 'Content-Disposition: form-data; name="metadata"; filename="m"', "",
      '{"path":"new/up","owner":"nobody-such"}',
      '--B', 'Content-Disposition: form-data; name="file"; filename="f"', "", "bytes", "--B--", "",
    }, "\r\n")
    local headers = { ["Content-Type"] = "multipart/form-data; boundary=B" }
    for name, value in pairs(sandbox.endpoint.headers) do headers[name] = value end
    local answer = http_client.request {
      url = "http://" .. sandbox.endpoint.endpoint .. base .. "/files/upload", body = body, headers = headers,
    }
    assert.equal(200, answer.status, answer.body)
    assert.equal("hello|644 bytes|new/note|new/up", output(id, "cat new/note; echo $(stat -c %a new/up) $(cat new/up); ls new/*"))
    assert.equal(200, (request("DELETE", base .. "/directories?path=new")))
    assert.equal("gone", output(id, "[ -e new ] || echo gone"))
  end)

  test("stop with their sandbox, and continue with it", function()
    local id = create()
    local child = begin(id, "cd /workspace/one; rm -f go; echo begun; while [ ! -e go ]; do sleep 0.05; done; echo over")
    assert.equal(202, sandbox:api("POST", "/" .. sandbox.id .. "/pause").status)
    assert.truthy(child:running())
    assert.equal(202, sandbox:api("POST", "/" .. sandbox.id .. "/resume").status)
    sandbox:stream("/command", { command = "touch /workspace/one/go" })
    assert.equal(0, child:wait(10))
    assert.truthy(child:output():find('"text":"over"', 1, true))
  end)

  test("end with their sandbox, which leaves no process", function()
    local other = execd_client.sandbox(server, ALLOWED)
    local mine = sandbox
    sandbox = other
    local child = begin(create(), "echo begun; sleep 98765.4 & sleep 98765.4")
    assert.equal(204, other:delete())
    child:wait(10)
    sandbox = mine
    uv_loop.wait_until(function() return #procfs.running "sleep 98765.4" == 0 end)
  end)

  test("leave no descriptor open in the server when they end", function()
    local function use()
      local id = create()
      run(id, "echo")
      run(id, "exit")
      uv_loop.wait_until(function() return info(id) == 404 end)
      request("DELETE", BASE .. "/" .. create())
    end
    use()
    local before = process.descriptors(server.pid)
    if not before then return pending("no /proc here") end
    for _ = 1, 3 do use() end
    uv_loop.wait_until(function() return process.descriptors(server.pid) <= before end)
  end)

  test("give no right to a shell that a command of its sandbox does not have", function()
    local function rights(text) return text:match("CapEff:%s*(%x+)") end
    local code = "grep CapEff /proc/self/status"
    local own = rights(execd_client.text(sandbox:stream("/command", { command = code }), "stdout"))
    assert.truthy(own)
    for _, mode in ipairs { "rw", "ro", "overlay" } do
      assert.equal(own, rights(output(create { workspace = { path = "/workspace/one", mode = mode } }, code)), mode)
    end
  end)
end)

describe("without bubblewrap", function()
  local server, sandbox
  setup(function()
    server = process.devserver { grace = 0.05, isolation = "none" }
    sandbox = execd_client.sandbox(server, ALLOWED)
  end)
  teardown(function() server:stop() end)

  -- As in execd without the right to isolate: see the recordings execd-aug/isolated-*.
  it("there are no isolated sessions, with a reason", function()
    local answer = sandbox:send("GET", "/v1/isolated/capabilities")
    local capabilities = json.decode(answer.body)
    assert.same({ 200, false, false }, { answer.status, capabilities.available, capabilities.setpriv_available })
    assert.is_nil(capabilities.isolator)
    assert.matches("bubblewrap does not work on its machine", capabilities.message, 1, true)
    local session = BASE .. "/00000000-0000-0000-0000-000000000000"
    for _, request in ipairs {
      { "POST", BASE, { workspace = { path = "/workspace/one", mode = "rw" } } }, { "GET", "/v1/isolated/sessions" },
      { "GET", session }, { "DELETE", session }, { "POST", session .. "/run", { code = "true" } },
      { "GET", session .. "/files/info?path=/" },
    } do
      answer = sandbox:send(request[1], request[2], request[3])
      assert.equal(503, answer.status)
      assert.same({ code = "SERVICE_UNAVAILABLE", message = "isolation unavailable" }, json.decode(answer.body))
    end
  end)
end)

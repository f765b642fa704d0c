--- The isolated sessions of the development server: the shapes of newer execds, as far as one machine can have them.

local json = require "opensandbox.base.json"
local execd_client = require "spec.support.execd_client"
local http_client = require "spec.support.http_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"

local BASE = "/v1/isolated/session"
local server, sandbox
setup(function()
  server = process.devserver { grace = 2 }   -- which these streams do not wait for
  sandbox = execd_client.sandbox(server)
end)
teardown(function() server:stop() end)

local function request(method, path, body)
  local answer = sandbox:send(method, path, body)
  return answer.status, answer.body ~= "" and json.decode(answer.body) or nil, answer
end

local function create(changes)
  local body = { workspace = { path = "/workspace/one", mode = "rw" } }
  for name, value in pairs(changes or {}) do body[name] = value end
  local status, answer = request("POST", BASE, body)
  assert.equal(201, status)
  return answer.session_id, answer
end

local function run(id, code, more, options)
  local body = { code = code }
  for name, value in pairs(more or {}) do body[name] = value end
  return sandbox:stream(("%s/%s/run"):format(BASE, id), body, options)
end

local function output(id, code, more)
  return execd_client.text(run(id, code, more), "stdout", "|")
end

describe("isolated sessions", function()
  it("are announced with what they cannot do", function()
    local status, answer = request("GET", "/v1/isolated/capabilities")
    assert.equal(200, status)
    assert.truthy(answer.available and answer.isolator)
    assert.same({ false, false }, { answer.commit_supported, answer.diff_supported })
  end)

  it("are made, looked at, listed and deleted", function()
    local id, made = create { idle_timeout_seconds = 100 }
    assert.truthy(made.created_at:find("^%d+%-%d+%-%d+T[%d:.]+Z$"))
    local status, state = request("GET", BASE .. "/" .. id)
    assert.equal(200, status)
    assert.same({ "active", made.created_at, 100, "strict", { path = "/workspace/one", mode = "rw" } },
      { state.status, state.created_at, state.idle_timeout_seconds, state.profile, state.workspace })
    assert.truthy(state.idle_remaining_seconds > 90)
    local found
    for _, session in ipairs(select(2, request("GET", "/v1/isolated/sessions")).sessions) do
      if session.session_id == id then found = session end
    end
    assert.same({ "active", nil }, { found.status, found.workspace })
    assert.equal(200, (request("DELETE", BASE .. "/" .. id)))
    for _, method in ipairs { "GET", "DELETE" } do
      local code, body = request(method, BASE .. "/" .. id)
      assert.same({ 404, "SESSION_NOT_FOUND" }, { code, body.code })
    end
    assert.equal(404, (request("POST", BASE .. "/" .. id .. "/run", { code = "true" })))
  end)

  it("refuse what is wrong, and say what this server cannot do", function()
    local workspace = { path = "/workspace/x", mode = "rw" }
    for _, body in ipairs {
      {}, { workspace = { mode = "rw" } }, { workspace = { path = "/x", mode = "wx" } },
      { workspace = workspace, profile = "mild" },
      { workspace = workspace, env_passthrough = { mode = "some" } }, { workspace = workspace, uid = -1 },
    } do
      local status, answer = request("POST", BASE, body)
      assert.same({ 400, "INVALID_REQUEST_BODY" }, { status, answer.code })
    end
    for _, body in ipairs {
      { workspace = { path = "/x", mode = "overlay" } }, { workspace = { path = "/x" } },
      { workspace = { path = "/x", mode = "ro" } },
      { workspace = workspace, share_net = false }, { workspace = workspace, binds = { { source = "/workspace" } } },
      { workspace = workspace, uid_mode = "userns" },
    } do
      local status, answer = request("POST", BASE, body)
      assert.same({ 503, "NOT_SUPPORTED" }, { status, answer.code })
    end
    local status, answer = request("POST", BASE, { workspace = { path = "/etc/passwd/x", mode = "rw" } })
    assert.same({ 400, "RUNTIME_ERROR" }, { status, answer.code })
    local id = create()
    assert.equal(503, (request("GET", ("%s/%s/diff"):format(BASE, id))))
    assert.equal(503, (request("POST", ("%s/%s/commit"):format(BASE, id))))
  end)

  it("end when nobody has used them for long", function()
    local id = create { idle_timeout_seconds = 1 }
    local before, status = uv_loop.now(), 200
    while status == 200 and uv_loop.now() - before < 10000 do
      uv_loop.sleep(0.05)
      status = request("GET", BASE .. "/" .. id)
    end
    assert.equal(404, status)
  end)

  it("pass on the variables that they may", function()
    local other = execd_client.sandbox(server, { env = { SECRET = "1", OPEN = "2" } })
    local mine = sandbox
    sandbox = other
    assert.equal("-2", output(create { env_passthrough = { mode = "deny", keys = { "SECRET" } } }, "echo $SECRET-$OPEN"))
    assert.equal("1-", output(create { env_passthrough = { mode = "allow", keys = { "SECRET" } } }, "echo $SECRET-$OPEN"))
    sandbox = mine
    other:delete()
  end)
end)

describe("a run in an isolated session", function()
  it("streams lines without init, pings and blank lines, and ends at once", function()
    local before = uv_loop.now()
    local list, answer = run(create(), "echo a; echo; printf 'b\\r\\n'; echo err >&2; printf c")
    assert.equal("stdout stdout stdout stdout execution_complete", execd_client.kinds(list))
    assert.equal("a|b|err|c", execd_client.text(list, "stdout", "|"))
    assert.is_nil(list[5].execution_time)
    assert.falsy(answer.body:find("ping", 1, true))
    assert.equal("text/event-stream", answer.headers["content-type"])
    assert.truthy(uv_loop.now() - before < 1900)
  end)

  it("begins in the workspace and keeps all of the shell's state", function()
    local id = create()
    assert.truthy(output(id, "pwd"):find("/workspace/one$"))
    run(id, "A=1; f() { echo f; }; cd /usr")
    assert.equal("1|f|/usr", output(id, "echo $A; f; pwd"))
  end)

  it("loses the state of a run that has variables of its own", function()
    local id = create()
    assert.equal("it's", output(id, "cd /usr; echo $V", { envs = { V = "it's" } }))
    assert.equal("none", output(id, "echo ${V:-none}"))
    assert.truthy(output(id, "pwd"):find("/workspace/one$"))
  end)

  it("tells an exit code from other failures", function()
    local id = create()
    local list = run(id, "(exit 3)")
    list[1].timestamp = nil
    assert.same({
      type = "error", text = "command exited with code 3",
      error = { ename = "ExitError", evalue = "3", traceback = list[1].error.traceback },
    }, list[1])
    assert.truthy(select(2, run(id, "(exit 3)")).body:find('"traceback":null', 1, true))
    list = run(id, "exit 0")
    assert.equal("RuntimeError", list[1].error.ename)
    assert.truthy(list[1].text:find("without end marker", 1, true))
    list = run(id, "echo")
    assert.equal("session process has exited", list[1].error.evalue)
    assert.equal("dead", select(2, request("GET", BASE .. "/" .. id)).status)
    assert.equal(500, (request("GET", ("%s/%s/files/info?path=/"):format(BASE, id))))
  end)

  it("is interrupted when its time is up, and the session lives on", function()
    local id = create()
    run(id, "A=1")
    local list = run(id, "echo here; sleep 60; echo never", { timeout_seconds = 1 })
    assert.equal("stdout error", execd_client.kinds(list))
    assert.same({ "RuntimeError", "context deadline exceeded" }, { list[2].error.ename, list[2].error.evalue })
    assert.equal("1", output(id, "echo $A"))
  end)

  it("is interrupted when its client goes, and waits for the one before it", function()
    local id = create()
    local before = uv_loop.now()
    run(id, "echo here; sleep 60", nil, { on_chunk = function() return false end })
    assert.equal("next", output(id, "echo next"))
    assert.truthy(uv_loop.now() - before < 20000)
    local child = sandbox:begin("POST", ("%s/%s/run"):format(BASE, id), { code = "echo first; sleep 0.5; touch done" })
    assert.truthy(child:read_line(5))
    assert.equal("done", output(id, "ls done"))
    child:stop()
  end)

  it("needs code, and no negative time", function()
    local path = ("%s/%s/run"):format(BASE, create())
    assert.equal(400, (request("POST", path, {})))
    assert.equal(400, (request("POST", path, { code = "true", timeout_seconds = -1 })))
  end)
end)

describe("a run in the background of an isolated session", function()
  local function start(id, code, envs)
    local status, answer = request("POST", ("%s/%s/run"):format(BASE, id), { code = code, background = true, envs = envs })
    assert.equal(202, status)
    assert.equal(id, answer.session_id)
    return ("%s/%s/runs/%s"):format(BASE, id, answer.run_id), answer
  end

  local function ended(path)
    local before = uv_loop.now()
    while true do
      local state = select(2, request("GET", path))
      if not state.running or uv_loop.now() - before > 10000 then return state end
    end
  end

  it("leaves status and logs, by a cursor", function()
    local id = create()
    run(id, "export A=1")
    local path, answer = start(id, "echo $A $B; echo two >&2; while [ ! -e go ]; do sleep 0.05; done; echo end; exit 5",
      { B = "it's" })
    local state = select(2, request("GET", path))
    assert.same({ true, answer.run_id, answer.started_at }, { state.running, state.run_id, state.started_at })
    run(id, "touch go")
    state = ended(path)
    assert.same({ false, 5, nil }, { state.running, state.exit_code, state.error })
    assert.truthy(state.finished_at)
    local logs = sandbox:send("GET", path .. "/logs")
    assert.equal("1 it's\ntwo\nend\n", logs.body)
    assert.equal("text/plain; charset=utf-8", logs.headers["content-type"])
    assert.equal("15", logs.headers["execd-isolated-tail-cursor"])
    assert.equal("end\n", sandbox:send("GET", path .. "/logs?cursor=11").body)
    assert.equal(400, (request("GET", path .. "/logs?cursor=-1")))
    assert.equal(400, (request("GET", path .. "/logs?cursor=x")))
    assert.equal(404, (request("GET", ("%s/%s/runs/nope"):format(BASE, id))))
  end)

  it("is not stopped by an interrupt, and ends with its session", function()
    local id = create()
    local path = start(id, "sleep 60")
    run(id, "sleep 60", { timeout_seconds = 1 })
    assert.truthy(select(2, request("GET", path)).running)
    run(id, "exit")
    local state = ended(path)
    assert.same({ false, "session terminated" }, { state.running, state.error })
    assert.equal(200, (request("DELETE", BASE .. "/" .. id)))
    assert.equal(404, (request("GET", path)))
  end)
end)

describe("the files of an isolated session", function()
  it("are reached by the routes of the sandbox's files below the session", function()
    local id = create { workspace = { path = "/workspace/files", mode = "rw" } }
    local base = ("%s/%s"):format(BASE, id)
    run(id, "echo hello > note; mkdir -p sub")
    assert.equal("hello\n", sandbox:send("GET", base .. "/files/download?path=/workspace/files/note").body)
    assert.equal("hello\n", sandbox:send("GET", base .. "/files/download?path=note").body)
    local info = select(2, request("GET", base .. "/files/info?path=/workspace/files/note"))["/workspace/files/note"]
    assert.same({ "", "", "0001-01-01T00:00:00Z", 6 }, { info.owner, info.group, info.created_at, info.size })
    assert.equal(200, (request("POST", base .. "/directories", { ["/workspace/files/new"] = { mode = 700 } })))
    assert.equal(200, (request("POST", base .. "/files/mv", {
      { src = "/workspace/files/note", dest = "/workspace/files/new/note" },
    })))
    local names = {}
    for _, entry in ipairs(select(2, request("GET", base .. "/directories/list?path=/workspace/files&depth=2"))) do
      names[#names + 1] = entry.path:match("files/(.*)$")
    end
    assert.same({ "new", "new/note", "sub" }, names)
    local body = table.concat({
      '--B', 'Content-Disposition: form-data; name="metadata"; filename="m"', "",
      '{"path":"/workspace/files/up","owner":"nobody-such"}',
      '--B', 'Content-Disposition: form-data; name="file"; filename="f"', "", "bytes", "--B--", "",
    }, "\r\n")
    local headers = { ["Content-Type"] = "multipart/form-data; boundary=B" }
    for name, value in pairs(sandbox.endpoint.headers) do headers[name] = value end
    local answer = http_client.request {
      url = "http://" .. sandbox.endpoint.endpoint .. base .. "/files/upload", body = body, headers = headers,
    }
    assert.equal(200, answer.status, answer.body)
    assert.equal("644 bytes", output(id, "echo $(stat -c %a up) $(cat up)"))
    assert.equal(200, (request("DELETE", base .. "/files?path=/workspace/files/up")))
    assert.equal(404, (request("GET", BASE .. "/nope/files/info?path=/")))
  end)
end)

it("leaves no descriptor open in the server when sessions are deleted", function()
  local function use()
    local id = create()
    run(id, "echo")
    run(id, "exit")
    assert.equal(200, (request("DELETE", BASE .. "/" .. id)))
  end
  use()
  local before = process.descriptors(server.pid)
  for _ = 1, 3 do use() end
  assert.truthy(uv_loop.wait(function() return process.descriptors(server.pid) <= before end, 5))
end)

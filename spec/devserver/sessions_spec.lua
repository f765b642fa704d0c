--- The bash sessions of the development server: as recorded, and what they keep from one run to the next.

local json = require "opensandbox.base.json"
local execd_client = require "spec.support.execd_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"

local server, sandbox
setup(function()
  server = process.devserver { grace = 0.05 }
  sandbox = execd_client.sandbox(server)
end)
teardown(function() server:stop() end)

local function create(body)
  local answer = sandbox:send("POST", "/session", body or {})
  assert.equal(200, answer.status, answer.body)
  return json.decode(answer.body).session_id
end

local function run(id, request, options)
  if type(request) == "string" then request = { command = request } end
  return sandbox:stream(("/session/%s/run"):format(id), request, options)
end

-- What a run writes, its lines separated by bars, and its last event.
local function output(id, request)
  local list = run(id, request)
  return execd_client.text(list, "stdout", "|"), list[#list]
end

describe("a bash session", function()
  it("answers like the recordings, from its creation to its end", function()
    local wanted, actual, answer = execd_client.replay(sandbox, "session-create")
    assert.same(wanted, actual)
    local id = json.decode(answer.body).session_id
    for _, name in ipairs { "session-run", "session-run-state", "session-exit-7", "session-timeout" } do
      wanted, actual = execd_client.replay(sandbox, name, ("/session/%s/run"):format(id))
      assert.same(wanted, actual, name)
      if name ~= "session-timeout" then assert.equal(id, actual.body[1].text == "<uuid>" and id) end
    end
    wanted, actual = execd_client.replay(sandbox, "session-run-unknown")
    assert.same(wanted, actual)
    for _, name in ipairs { "session-delete", "session-delete-unknown" } do
      wanted, actual = execd_client.replay(sandbox, name, "/session/" .. id)
      assert.same(wanted, actual, name)
    end
  end)

  it("begins without a body, in a directory that is made when it is missing", function()
    local answer = sandbox:send("POST", "/session")
    assert.equal(200, answer.status)
    local id = create { cwd = "/work/new/dir" }
    assert.truthy(output(id, "pwd"):find("/work/new/dir$"))
    assert.equal(500, sandbox:send("POST", "/session", { cwd = "/etc/passwd/x" }).status)
  end)

  it("keeps exported variables exactly, and the directory, but nothing else", function()
    local id = create { cwd = "/tmp" }
    run(id, "export A=\"it's \\$x \\`y\\` \\\"q\\\"\nnext\"; B=2; f() { echo f; }; mkdir -p d; cd d")
    assert.equal("it's $x `y` \"q\"|next", (output(id, 'printf "%s\\n" "$A"')))
    assert.equal("none", (output(id, 'echo ${B:-none}')))
    assert.truthy(output(id, "pwd"):find("/d$"))
    local _, last = output(id, "f")
    assert.equal("127", last.error.evalue)
  end)

  it("keeps nothing of a run that does not come to its end", function()
    local id = create()
    run(id, "export A=1; cd /usr")
    for _, command in ipairs { "export A=2; exit 3", "set -e; export A=3; false", "export A=4; kill -9 $$" } do
      local _, last = output(id, command)
      assert.equal("error", last.type)
    end
    assert.equal("1|/usr", (output(id, "echo $A; pwd")))
    local _, last = output(id, "kill -9 $$")
    assert.same({ "-1", "signal: killed" }, { last.error.evalue, last.error.traceback[1] })
  end)

  it("keeps a cwd that was given for one run, and refuses one that is missing", function()
    local id = create { cwd = "/tmp" }
    assert.equal("/usr", (output(id, { command = "pwd", cwd = "/usr" })))
    assert.equal("/usr", (output(id, "pwd")))
    local answer = sandbox:send("POST", ("/session/%s/run"):format(id), { command = "pwd", cwd = "/no/such" })
    assert.equal(400, answer.status)
    assert.equal("INVALID_REQUEST_BODY", json.decode(answer.body).code)
  end)

  it("never leaves the sandbox over a link that it went through", function()
    local id = create { cwd = "/work" }
    run(id, "ln -sfn /usr/lib link; cd link")
    assert.truthy(output(id, "pwd -P"):find("/usr/lib$"))
  end)

  it("splits at line feeds only, drops blank lines, and sends the line that has no end", function()
    local id = create()
    local list = run(id, "printf 'a\\rb\\r\\n\\n\\nc\\n\\r\\nlast'")
    assert.equal("init stdout stdout stdout execution_complete", execd_client.kinds(list))
    assert.equal("a\rb|c|last", execd_client.text(list, "stdout", "|"))
  end)

  it("merges standard error into standard output, in order, and lets programs open both by name", function()
    assert.equal("1|2|3|4", (output(create(), "echo 1; echo 2 >&2; echo 3 >/dev/stdout; echo 4 >/dev/stderr")))
  end)

  it("sends output as it is written", function()
    local seen
    run(create(), "echo early; sleep 2; echo late", { on_chunk = function(text, ms)
      if text:find("early", 1, true) then seen = ms end
    end })
    assert.truthy(seen and seen < 1800)
  end)

  it("ends the stream at once, however long commands keep theirs open", function()
    local slow = process.devserver { grace = 5 }
    local other = execd_client.sandbox(slow)
    local id = json.decode(other:send("POST", "/session", {}).body).session_id
    local before = uv_loop.now()
    other:stream(("/session/%s/run"):format(id), { command = "true" })
    assert.truthy(uv_loop.now() - before < 3000)
    slow:stop()
  end)

  it("kills only bash when time is up, and says so when nothing holds its output any more", function()
    local id = create()
    local before = uv_loop.now()
    local list, answer = run(id, { command = "sleep 1 & while :; do :; done", timeout = 200 })
    assert.equal("init -", execd_client.kinds(list))
    assert.truthy(answer.body:find('"message":"error running in session. timeout after 200ms"}$'))
    assert.truthy(uv_loop.now() - before >= 1000)
  end)

  it("runs several commands at the same time", function()
    local id = create()
    local child = sandbox:begin("POST", ("/session/%s/run"):format(id), { command = "sleep 1; echo first" })
    assert.truthy(child:read_line(5):find(id, 1, true))
    assert.equal("second", (output(id, "echo second")))
    child:wait()
    assert.truthy(child:output():find("first", 1, true))
    child:stop()
  end)

  it("kills what runs in it when it is deleted, or interrupted by its id", function()
    for _, path in ipairs { "/session/%s", "/command?id=%s" } do
      local id = create()
      local child = sandbox:begin("POST", ("/session/%s/run"):format(id), { command = "echo here; sleep 60" })
      while not (child:read_line(5) or "here"):find("here", 1, true) do end -- luacheck: ignore 542
      assert.equal(200, sandbox:send("DELETE", path:format(id)).status)
      child:wait()
      local list = execd_client.events(child:output())
      assert.same({ "-1", { "signal: killed" } }, { list[#list].error.evalue, list[#list].error.traceback })
      child:stop()
      assert.equal(500, sandbox:send("POST", ("/session/%s/run"):format(id), { command = "true" }).status)
    end
  end)

  it("kills bash when the client goes", function()
    local id = create()
    run(id, "trap '' PIPE; while :; do sleep 0.1; date +%N > tick; done", { on_chunk = function() return false end })
    local function tick() return sandbox:send("GET", "/files/download?path=/tick").body end
    local began, last, stopped = uv_loop.now(), nil, false
    while not stopped and uv_loop.now() - began < 10000 do
      uv_loop.sleep(0.5)   -- five times as long as it takes to write another
      local now = tick()
      last, stopped = now, now == last
    end
    assert.truthy(stopped)
  end)

  it("takes commands of any length", function()
    local text = ("x"):rep(300000)
    assert.equal("300000", (output(create(), "A=" .. text .. "; echo ${#A}")))
  end)

  it("sends much output no faster than it is taken, and all of it", function()
    local list = run(create(), "seq 1 100000")
    assert.equal(100002, #list)
    assert.equal("100000", list[100001].text)
  end)

  it("refuses a run without a command, and one with a negative timeout", function()
    local path = ("/session/%s/run"):format(create())
    assert.equal(400, sandbox:send("POST", path, {}).status)
    assert.equal(400, sandbox:send("POST", path, { command = "true", timeout = -1 }).status)
    assert.equal(400, sandbox:send("POST", path, "[]").status)
  end)

  it("leaves no descriptor open in the server", function()
    local function use()
      local id = create()
      run(id, "echo; exit 3")
      run(id, { command = "sleep 0.5", timeout = 100 })
      sandbox:send("DELETE", "/session/" .. id)
    end
    use()
    local before = process.descriptors(server.pid)
    for _ = 1, 3 do use() end
    assert.truthy(uv_loop.wait(function() return process.descriptors(server.pid) <= before end, 5))
  end)

  it("ends with its sandbox, without keeping the server from ending", function()
    local one = process.devserver { grace = 0.05, isolation = "none" }
    local other = execd_client.sandbox(one)
    local id = json.decode(other:send("POST", "/session", {}).body).session_id
    local child = other:begin("POST", ("/session/%s/run"):format(id), { command = "setsid sleep 8 & echo here" })
    while not (child:read_line(5) or "here"):find("here", 1, true) do end -- luacheck: ignore 542
    assert.equal(0, (one:stop()))
    child:stop()
  end)
end)

describe("POST /command with argv", function()
  local function command(request) return sandbox:stream("/command", request) end

  it("runs a program without a shell", function()
    local list = command { argv = { "printf", "%s|", "$HOME", "a b", "" } }
    assert.equal("$HOME|a b||", execd_client.text(list, "stdout"))
    list = command { argv = { "/bin/sh", "-c", "exit 4" } }
    assert.equal("4", list[#list].error.evalue)
  end)

  it("looks programs up in the PATH of the command, and paths from its directory", function()
    sandbox:stream("/command", { command = "mkdir -p work/p; printf '#!/bin/sh\\necho mine' > work/p/tool; chmod +x work/p/tool" })
    local root = execd_client.text(command { command = "pwd" }, "stdout"):gsub("/$", "")
    local list = command { argv = { "tool" }, envs = { PATH = root .. "/work/p:/usr/bin:/bin" } }
    assert.equal("mine", execd_client.text(list, "stdout"))
    assert.equal("mine", execd_client.text(command { argv = { "./tool" }, cwd = "/work/p" }, "stdout"))
  end)

  it("says why a program cannot be started", function()
    local list = command { argv = { "no-such-program" } }
    assert.equal("init error", execd_client.kinds(list))
    assert.equal('exec: "no-such-program": executable file not found in $PATH', list[2].error.evalue)
    list = command { argv = { "/no/such" } }
    assert.equal("fork/exec /no/such: no such file or directory", list[2].error.evalue)
    local id = list[1].text
    assert.equal(404, sandbox:send("GET", "/command/status/" .. id).status)
  end)

  it("wants exactly one of argv and command, and a program in it", function()
    for _, body in ipairs {
      { argv = { "true" }, command = "true" }, { argv = { "" } }, { argv = json.array {} }, { argv = { 1 } }, { argv = { "a\0b" } },
    } do
      assert.equal(400, sandbox:send("POST", "/command", body).status)
    end
  end)

  it("is shown by the status as a list, in the background too", function()
    local list = command { argv = { "sleep", "0" }, background = true }
    local status = json.decode(sandbox:send("GET", "/command/status/" .. list[1].text).body)
    assert.equal('["sleep","0"]', status.content)
  end)
end)

describe("the cwd of a command", function()
  it("may name variables of the sandbox, and none of the request", function()
    local other = execd_client.sandbox(server, { env = { WHERE = "usr" } })
    local list = other:stream("/command", { command = "pwd", cwd = "/$WHERE" })
    assert.truthy(execd_client.text(list, "stdout"):find("/usr$") or execd_client.text(list, "stdout"):find("/root$"))
    other:delete()
    assert.equal(400, sandbox:send("POST", "/command", { command = "pwd", cwd = "/$WHERE", envs = { WHERE = "usr" } }).status)
  end)
end)

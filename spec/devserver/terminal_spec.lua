--- Terminals of the development server, with and without bubblewrap: what no recording holds.

local execd_client = require "spec.support.execd_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local procfs = require "spec.support.procfs"
local uv_loop = require "spec.support.uv_loop"
local websocket_client = require "spec.support.websocket_client"

local STDOUT, REPLAY = 1, 3 -- channels

for _, isolation in ipairs { "bwrap", "none" } do
  describe("a terminal, with isolation " .. isolation .. ",", function()
    local server, reason, sandbox
    setup(function()
      if isolation == "bwrap" then
        server, reason = process.isolated_devserver()
      else
        server = process.devserver { args = { "--isolation", "none" } }
      end
      if server then sandbox = execd_client.sandbox(server) end
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

    local function create(body)
      local answer = sandbox:send("POST", "/pty", body or {})
      assert.equal(201, answer.status, answer.body)
      return json.decode(answer.body).session_id
    end

    local function connect(id, query)
      local port, path = sandbox.endpoint.endpoint:match(":(%d+)(.*)$")
      return websocket_client.connect(tonumber(port), ("%s/pty/%s/ws%s"):format(path, id, query or ""), {
        headers = sandbox.endpoint.headers,
      })
    end

    local function state(id)
      return json.decode(sandbox:send("GET", "/pty/" .. id).body)
    end

    local function wait_output(client, pattern)
      assert.truthy(client:wait(function() return client:output(STDOUT):find(pattern) end), client:output(STDOUT))
    end

    test("is dead when its delete is answered, however early it comes", function()
      local left = {}
      for index = 1, 20 do
        local name = "late-" .. index
        local id = create { command = "touch ./tmp/" .. name .. "; sleep 10" }
        local client = connect(id, "?pty=0")
        assert.equal(200, sandbox:send("DELETE", "/pty/" .. id).status)
        sandbox:send("DELETE", "/files?path=/tmp/" .. name)
        left[index] = { client = client, name = name }
      end
      uv_loop.sleep(0.3) -- a process that still runs makes its file
      for _, one in ipairs(left) do
        one.client:close()
        assert.equal(404, sandbox:send("GET", "/files/info?path=/tmp/" .. one.name).status, one.name)
      end
    end)

    test("is a terminal of the size that was asked for, and tells its program about changes", function()
      local client = connect(create { command = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done" })
      wait_output(client, "ready")
      client:send("text", json.encode { type = "resize", cols = 100, rows = 30 })
      wait_output(client, "30 100\r\n")
      client:close()
    end)

    test("gives the shell job control", function()
      local id = create()
      local client = connect(id)
      wait_output(client, "[#$] $")
      client:send("binary", "\0sleep 30 & jobs; fg\n")
      wait_output(client, "Running.*sleep 30\r\n")
      uv_loop.wait_until(function()
        client:send("binary", "\0\26") -- Ctrl-Z; the shell ignores it before the job has the terminal
        client:poll()
        return client:output(STDOUT):find("Stopped", 1, true)
      end)
      client:send("binary", "\0kill %1; exit\n")
      wait_output(client, "exit\r\n")
      client:send("binary", "\0exit\n")
      assert.equal(1000, (client:wait_close()))
      client:close()
    end)

    test("keeps everything that was written before the exit", function()
      for _ = 1, 20 do
        local client = connect(create { command = "seq 1 20000; printf end" })
        assert.equal(1000, (client:wait_close()))
        local text = client:output(STDOUT)
        assert.equal(108894 + 20000 + 3, #text)
        assert.truthy(text:find("20000\r\nend$"))
        client:close()
      end
    end)

    test("replays the last mebibyte, and tells where it begins", function()
      local id = create { command = "head -c 1200000 /dev/zero | tr '\\0' z; echo; read _" }
      local client = connect(id)
      wait_output(client, "\n$")
      assert.equal(1200002, state(id).output_offset)
      client:close()
      uv_loop.wait_until(function()
        client = connect(id, "?since=5")
        return client.status == 101
      end)
      client:wait(function(frames) return #frames == 2 end)
      local replay = client.frames[1].payload
      assert.equal(REPLAY, replay:byte())
      assert.equal(9 + 1048576, #replay)
      local offset = 0
      for index = 2, 9 do offset = offset * 256 + replay:byte(index) end
      assert.equal(1200002 - 1048576, offset)
      client:close()
      sandbox:send("DELETE", "/pty/" .. id)
    end)

    test("lets its process wait for a slow client, and loses nothing", function()
      local id = create { command = "seq 1 1000000; echo end; read _" }
      local client = connect(id)
      client:wait(function(frames) return #frames > 3 end)
      client.socket.tcp:read_stop()
      -- The process is held up when nothing more is written for a moment.
      local last, since = -1, uv_loop.now()
      uv_loop.wait_until(function()
        local offset = state(id).output_offset
        if offset ~= last then last, since = offset, uv_loop.now() end
        return uv_loop.now() - since > 300
      end)
      assert.truthy(last < 7888896)
      client.socket.tcp:read_start(function(problem, data)
        if data then client.socket.received = client.socket.received .. data else client.socket.ended = problem or "closed" end
      end)
      local size, tail = 0, ""
      client:wait(function(frames)
        for index = #frames, 1, -1 do
          if frames[index].opcode == "binary" then size = size + #frames[index].payload - 1 end
        end
        if frames[1] then tail = frames[#frames].payload end
        for index in pairs(frames) do frames[index] = nil end
        return tail:find("end\r\n$")
      end, 60)
      assert.equal(6888896 + 1000000 + 5, size)
      client:close()
      sandbox:send("DELETE", "/pty/" .. id)
    end)

    test("ends with its sandbox, which leaves no process", function()
      local mine = sandbox
      sandbox = execd_client.sandbox(server)
      local client = connect(create())
      wait_output(client, "[#$] $")
      client:send("binary", "\0sleep 98765.1 & (trap '' HUP; sleep 98765.2) & sleep 98765.3\n")
      wait_output(client, "sleep 98765.3\r\n")
      assert.equal(204, sandbox:delete())
      assert.is_true(client.socket:wait_end(10))
      client:close()
      sandbox = mine
      for number = 1, 3 do
        uv_loop.wait_until(function() return #procfs.running("sleep 98765." .. number) == 0 end)
      end
    end)

    test("stops with its sandbox, and continues with it", function()
      local client = connect(create { command = "for i in 1 2 3; do read _; echo got; done" })
      client:send("binary", "\0\n")
      wait_output(client, "got\r\n")
      assert.equal(202, sandbox:api("POST", "/" .. sandbox.id .. "/pause").status)
      client:send("binary", "\0\n\n")
      assert.equal(202, sandbox:api("POST", "/" .. sandbox.id .. "/resume").status)
      assert.equal(1000, (client:wait_close()))
      client:close()
    end)

    test("can be reached through a port of its sandbox, like any WebSocket", function()
      local id = create()
      -- The gateway itself is such a port.
      local port, path = sandbox.endpoint.endpoint:match(":(%d+)(.*)$")
      local client = websocket_client.connect(tonumber(port), ("/%s/proxy/%s%s/pty/%s/ws"):format(sandbox.id, port, path, id), {
        headers = sandbox.endpoint.headers,
      })
      assert.equal(101, client.status)
      wait_output(client, "[#$] $")
      client:send("binary", "\0exit 4\n")
      assert.same({ 1000, "process exited" }, { client:wait_close() })
      assert.is_true(client.socket:wait_end(10))
      client:close()
      local refused = websocket_client.connect(tonumber(port), ("/%s/proxy/%s%s/pty/none/ws"):format(sandbox.id, port, path), {
        headers = sandbox.endpoint.headers,
      })
      assert.equal(404, refused.status)
      refused:close()
    end)

    test("leaves no descriptor open in the server", function()
      local function use()
        local id = create { command = "echo x" }
        for _, query in ipairs { "", "?pty=0" } do
          local client = connect(id, query)
          assert.equal(1000, (client:wait_close()))
          client:close()
        end
        sandbox:send("DELETE", "/pty/" .. id)
      end
      use()
      local before = process.descriptors(server.pid)
      if not before then return pending("no /proc here") end
      for _ = 1, 3 do use() end
      uv_loop.wait_until(function() return process.descriptors(server.pid) <= before end)
    end)
  end)
end

describe("a terminal that loses output at the exit", function()
  local server = nil
  setup(function() server = process.devserver { args = { "--lose-output-at-exit" } } end)
  teardown(function() server:stop() end)

  local function run(command)
    local sandbox = execd_client.sandbox(server)
    local id = json.decode(sandbox:send("POST", "/pty", { command = command }).body).session_id
    local port, path = sandbox.endpoint.endpoint:match(":(%d+)(.*)$")
    local client = websocket_client.connect(tonumber(port), ("%s/pty/%s/ws"):format(path, id), {
      headers = sandbox.endpoint.headers,
    })
    return client, sandbox, id
  end

  it("loses what was written just before the exit, for good", function()
    local client, sandbox, id = run "echo lost; exit 3"
    assert.equal(1000, (client:wait_close()))
    assert.equal("", client:output(STDOUT))
    assert.equal(0, json.decode(sandbox:send("GET", "/pty/" .. id).body).output_offset)
    client:close()
    sandbox:delete()
  end)

  it("loses nothing when the command waits for its client", function()
    local client, sandbox = run "seq 1 1000; echo marker; read _"
    assert.truthy(client:wait(function() return client:output(STDOUT):find "marker\r\n" end))
    client:send("binary", "\0\n")
    assert.equal(1000, (client:wait_close()))
    assert.truthy(client:output(STDOUT):find "\n1000\r\nmarker\r\n")
    client:close()
    sandbox:delete()
  end)
end)

--- `opensandbox mcp`, line by line: the messages, the tools, cancellation, and what stays after the end. The official client of the protocol
-- drives it in spec/interop.

local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local program = require "spec.support.program"
local uv_loop = require "spec.support.uv_loop"

describe("opensandbox mcp", function()
  local server, child, next_id, earlier

  setup(function() server = process.devserver { grace = 0.1 } end)
  teardown(function() server:stop() end)

  local function start(...)
    child, next_id, earlier = program.start(server, { "mcp", ... }), 0, {}
  end

  before_each(function() start() end)
  after_each(function() child:stop() end)

  local function send(message)
    message.jsonrpc = "2.0"
    assert(child:write(json.encode(message) .. "\n"))
  end

  local function receive_next()
    local line, problem = child:read_line(30)
    assert(line, ("%s: %s"):format(tostring(problem), child:stderr_text()))
    local message = json.decode(line)
    assert.equal("2.0", message.jsonrpc)
    return message
  end

  -- The next message that nobody has taken.
  local function receive()
    return table.remove(earlier, 1) or receive_next()
  end

  -- Sends a request and returns its answer. Messages that come before it are kept for `receive`.
  local function request(method, params)
    next_id = next_id + 1
    send { id = next_id, method = method, params = params or {} }
    while true do
      local message = receive_next()
      if message.id == next_id then return message end
      earlier[#earlier + 1] = message
    end
  end

  local function call(name, arguments)
    local message = request("tools/call", { name = name, arguments = arguments or {} })
    assert.is_nil(message.error, json.encode(message))
    assert.is_false(message.result.isError, json.encode(message.result))
    assert.same(message.result.structuredContent, json.decode(message.result.content[1].text))
    return message.result.structuredContent
  end

  local function call_fails(text, name, arguments)
    local result = request("tools/call", { name = name, arguments = arguments or {} }).result
    assert.is_true(result.isError)
    assert.truthy(result.content[1].text:find(text, 1, true), result.content[1].text)
  end

  local function existing()
    return program.check(server, { "ls", "-q" })
  end

  it("shakes hands: with the client's revision if it knows it, else with its own latest one", function()
    for wanted, got in pairs { ["2025-03-26"] = "2025-03-26", ["2024-11-05"] = "2024-11-05", ["1999-01-01"] = "2025-11-25" } do
      local result = request("initialize", { protocolVersion = wanted, capabilities = {} }).result
      assert.equal(got, result.protocolVersion)
      assert.equal("opensandbox", result.serverInfo.name)
      assert.equal("table", type(result.capabilities.tools))
    end
    send { method = "notifications/initialized" }
    assert.same({}, request("ping").result)
  end)

  it("needs no handshake for the revision that has none, and refuses requests of revisions that it does not know", function()
    local key = "io.modelcontextprotocol/protocolVersion"
    local found = request("server/discover", { _meta = { [key] = "2026-07-28" } }).result
    assert.same({ "2026-07-28" }, found.supportedVersions)
    assert.equal("complete", found.resultType)
    local listed = request("tools/list", { _meta = { [key] = "2026-07-28" } }).result
    assert.same({ "complete", "private" }, { listed.resultType, listed.cacheScope })
    local refused = request("tools/list", { _meta = { [key] = "2030-01-01" } }).error
    assert.same({ -32022, { "2026-07-28" }, "2030-01-01" }, { refused.code, refused.data.supported, refused.data.requested })
  end)

  it("lists the tools of the official server, and ours, with schemas", function()
    local tools = {}
    for _, tool in ipairs(request("tools/list").result.tools) do tools[tool.name] = tool end
    for _, name in ipairs {
      "sandbox_create", "sandbox_connect", "sandbox_kill", "sandbox_get_info", "sandbox_list", "sandbox_renew",
      "sandbox_get_metrics", "sandbox_healthcheck", "sandbox_get_endpoint", "command_run", "command_interrupt", "file_read",
      "file_write", "file_delete", "file_search", "file_create_directories", "file_delete_directories", "file_move",
      "file_replace_contents", "sandbox_run", "code_run", "command_status", "command_logs", "file_list", "egress_get_policy",
      "egress_allow", "snapshot_create", "sandbox_pause", "sandbox_resume", "sandbox_wait_for_port",
    } do
      assert.truthy(tools[name], name)
      assert.equal("object", tools[name].inputSchema.type)
      tools[name] = nil
    end
    assert.is_nil(next(tools))
    send { id = "again", method = "tools/list" }
    assert.truthy(child:read_line(20):find('"required":[]', 1, true)) -- an array even if it is empty
  end)

  it("runs commands in a sandbox that is deleted at the end of the session", function()
    local id = call("sandbox_create", { image = "python:3.12", metadata = { made = "here" } }).sandbox_id
    local result = call("command_run", { sandbox_id = id, command = "cat; echo no >&2; exit 3", stdin = "in\n",
      connect_if_missing = true })
    assert.same({ 3, "in\n", "no\n" }, { result.exit_code, result.stdout, result.stderr })
    assert.equal(id .. "\n", existing())
    child:close_input()
    assert.equal(0, child:wait(20))
    assert.equal("", existing())
  end)

  it("leaves the sandboxes with --keep, and another session uses them", function()
    child:stop()
    start("--keep")
    local id = call("sandbox_create", { image = "python:3.12" }).sandbox_id
    child:close_input()
    assert.equal(0, child:wait(20))
    child:stop()
    assert.equal(id .. "\n", existing())
    start()
    assert.equal("Running", call("sandbox_connect", { sandbox_id = id }).info.state)
    assert.equal("x\n", call("command_run", { sandbox_id = id, command = "echo x" }).stdout)
    assert.same({ status = "killed" }, call("sandbox_kill", { sandbox_id = id }))
    assert.equal("", existing())
  end)

  it("runs one command in a sandbox of its own", function()
    assert.equal("1\n", call("sandbox_run", { image = "python:3.12", command = "echo $A", env = { A = "1" } }).stdout)
    assert.equal("", existing())
  end)

  it("works with files: text, bytes, parts, directories", function()
    local id = call("sandbox_create", { image = "python:3.12" }).sandbox_id
    local function on(name, arguments)
      arguments.sandbox_id = id
      return call(name, arguments)
    end
    on("file_create_directories", { entries = { { path = "/tmp/d/e" }, { path = "/tmp/f", mode = 700 } } })
    on("file_write", { path = "/tmp/d/a.txt", content = "one two\n", mode = 644 })
    assert.equal("one two\n", on("file_read", { path = "/tmp/d/a.txt" }).content)
    assert.equal("two", on("file_read", { path = "/tmp/d/a.txt", range_header = "bytes=4-6" }).content)
    on("file_write", { path = "/tmp/d/b", content = "AP8=", encoding = "base64" })
    assert.equal("AP8=", on("file_read", { path = "/tmp/d/b", encoding = "base64" }).content)
    call_fails("use the encoding base64", "file_read", { sandbox_id = id, path = "/tmp/d/b" })
    local change = { path = "/tmp/d/a.txt", old_content = "one", new_content = "1" }
    local replaced = on("file_replace_contents", { entries = { change } })
    assert.same({ { path = "/tmp/d/a.txt", replaced_count = 1 } }, replaced.result)
    on("file_move", { entries = { { source = "/tmp/d/a.txt", destination = "/tmp/d/c.txt" } } })
    assert.equal("/tmp/d/c.txt", on("file_search", { path = "/tmp/d", pattern = "*.txt" }).result[1].path:match("/tmp/d/c.txt$"))
    assert.equal(3, #on("file_list", { path = "/tmp/d" }).result)
    on("file_delete", { paths = { "/tmp/d/b" } })
    on("file_delete_directories", { paths = { "/tmp/d" } })
    assert.same({}, on("file_search", { path = "/tmp/f", pattern = "*" }).result)
  end)

  it("reports output as progress, and runs requests at the same time", function()
    local id = call("sandbox_create", { image = "python:3.12" }).sandbox_id
    send { id = "slow", method = "tools/call", params = { name = "command_run", _meta = { progressToken = "t" },
      arguments = { sandbox_id = id, command = "echo begun; until [ -e ./tmp/go ]; do sleep 0.05; done; echo ended" } } }
    local progress = receive()
    assert.same({ "notifications/progress", "t", 1, "begun\n" },
      { progress.method, progress.params.progressToken, progress.params.progress, progress.params.message })
    assert.equal(0, call("command_run", { sandbox_id = id, command = "touch ./tmp/go" }).exit_code)
    assert.equal("ended\n", receive().params.message)
    local answer = receive()
    assert.same({ "slow", "begun\nended\n" }, { answer.id, answer.result.structuredContent.stdout })
  end)

  it("stops the command of a request that is cancelled, and does not answer it", function()
    local id = call("sandbox_create", { image = "python:3.12" }).sandbox_id
    send { id = "slow", method = "tools/call", params = { name = "command_run", _meta = { progressToken = 1 },
      arguments = { sandbox_id = id, command = "cd ./tmp; touch runs; trap 'rm runs; exit' TERM; echo begun; sleep 100 & wait" } } }
    assert.equal("begun\n", receive().params.message)
    send { method = "notifications/cancelled", params = { requestId = "slow" } }
    uv_loop.wait_until(function()
      return call("command_run", { sandbox_id = id, command = "test -e ./tmp/runs" }).exit_code == 1
    end, "the command is stopped")
  end)

  it("keeps commands in the background", function()
    local id = call("sandbox_create", { image = "python:3.12" }).sandbox_id
    local command = call("command_run", { sandbox_id = id, command = "echo x; sleep 100", background = true }).id
    assert.is_true(call("command_status", { sandbox_id = id, execution_id = command }).running)
    uv_loop.wait_until(function()
      return call("command_logs", { sandbox_id = id, execution_id = command }).text == "x\n"
    end, "its output")
    call("command_interrupt", { sandbox_id = id, execution_id = command })
    uv_loop.wait_until(function()
      return not call("command_status", { sandbox_id = id, execution_id = command }).running
    end, "its end")
  end)

  it("returns failed calls as results, which name what is wrong", function()
    call_fails("HTTP 404", "sandbox_get_info", { sandbox_id = "no-such" })
    call_fails("sandbox_get_info: sandbox_id is missing", "sandbox_get_info")
    call_fails("image must be a string", "sandbox_create", { image = 1 })
    call_fails("imagee is not known", "sandbox_create", { image = "x", imagee = "y" })
    call_fails("entries[0].path is missing", "file_create_directories", { sandbox_id = "x", entries = { { mode = 755 } } })
    call_fails("network_policy.egress[0].target is missing", "sandbox_create",
      { image = "x", network_policy = { egress = { { action = "allow" } } } })
    call_fails("port must be", "sandbox_get_endpoint", { sandbox_id = "x", port = 70000 })
  end)

  it("answers what is no request of its own as JSON-RPC does, and goes on", function()
    assert.equal(-32601, request("resources/list").error.code)
    assert.equal(-32602, request("tools/call", { name = "nope" }).error.code)
    for line, code in pairs { ["{"] = -32700, ["[]"] = -32600, ['{"id":1,"method":"ping"}'] = -32600,
      ['{"jsonrpc":"2.0","id":{},"method":"ping"}'] = -32600 } do
      assert(child:write(line .. "\n"))
      local message = receive()
      assert.equal(code, message.error.code, line)
    end
    assert(child:write('\n{"jsonrpc":"2.0","id":7,"result":{}}\n{"jsonrpc":"2.0","method":"notifications/unknown"}\n'))
    assert(child:write('{"jsonrpc":"2.0",'))
    assert(child:write('"id":"in two pieces","method":"ping"}\n'))
    assert.equal("in two pieces", receive().id)
  end)

  it("deletes its sandboxes when SIGTERM ends it", function()
    call("sandbox_create", { image = "python:3.12" })
    child:kill("sigterm")
    local _, signal = child:wait(20)
    assert.equal(15, signal)
    assert.equal("", existing())
  end)
end)

--- Commands in the background and what is waited for: `start`, `status`, `logs`, `wait`, `port`.

local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local program = require "spec.support.program"

describe("opensandbox", function()
  local server, id

  setup(function()
    server = process.devserver { grace = 0.1 }
    id = program.check(server, { "create", "python:3.12", "--lifetime", "1h" }):gsub("\n", "")
  end)
  teardown(function() server:stop() end)

  local function start(...)
    return (program.check(server, { "start", id, ... }):gsub("\n", ""))
  end

  local function release(name)
    program.check(server, { "exec", "-n", id, "--", "touch " .. name })
  end

  it("starts a command, shows its status, waits for it, and prints its output", function()
    local command = start("-e", "A=1", "-w", "/tmp", "--", "until [ -e go1 ]; do sleep 0.05; done; echo $A; echo no >&2; exit 4")
    local running = program.check(server, { "status", id, command })
    assert.equal("running", running:match(command .. "  (%S+)"))
    release "./tmp/go1"
    assert.equal("4\n", program.check(server, { "wait", id, "--command", command }))
    local ended = json.decode(program.check(server, { "wait", id, "--command", command, "-o", "json" }))
    assert.same({ command, 4 }, { ended.id, ended.exit_code })
    assert.truthy(program.check(server, { "status", id, command }):find(command .. "  ended  4 ", 1, true))
    assert.equal("1\nno\n", program.check(server, { "logs", id, command }))
    assert.equal("no\n", program.check(server, { "logs", id, command, "--cursor", "2" }))
    local list = json.decode(program.check(server, { "status", id, command, "-o", "json" }))
    assert.same({ 1, command, false }, { #list, list[1].id, list[1].running })
  end)

  it("follows the output of a command until it ends", function()
    local command = start("--", "echo one; until [ -e ./tmp/go2 ]; do sleep 0.05; done; echo two")
    local child = program.start(server, { "logs", "-f", id, command })
    assert.equal("one", child:read_line(20))
    assert.is_true(child:running())
    release "./tmp/go2"
    assert.equal("two", child:read_line(20))
    assert.equal(0, child:wait(20))
    child:stop()
  end)

  it("stops to follow by Ctrl-C, and the command continues", function()
    local command = start("--", "echo one; until [ -e ./tmp/go3 ]; do sleep 0.05; done")
    local terminal = program.terminal(server, { "logs", "-f", id, command })
    terminal:expect "one"
    terminal:write "\3"
    local _, signal = terminal:wait()
    assert.equal(2, signal)
    terminal:close()
    assert.truthy(program.check(server, { "status", id, command }):find("running", 1, true))
    release "./tmp/go3"
    assert.equal("0\n", program.check(server, { "wait", id, "--command", command }))
  end)

  it("shows the processes of a sandbox, and names commands that it does not know", function()
    local command = start("--", "exec -a marker sleep 20")
    local text = program.check(server, { "status", id })
    assert.truthy(text:find("^PID +COMMAND\n") and text:find("marker 20", 1, true), text)
    local result = program.run(server, { "status", id, command, "no-such" })
    assert.equal(1, result.code)
    assert.truthy(result.out:find(command, 1, true), result.out)
    assert.truthy(result.err:find("no-such: ", 1, true), result.err)
  end)

  it("shows no character of a sandbox that controls the terminal", function()
    local command = start("--", "exec -a \"$(printf 'evil\\033]0;title\\007')\" sleep 21")
    for _, arguments in ipairs { { "status", id }, { "status", id, "-o", "json" }, { "status", id, command } } do
      local text = program.check(server, arguments)
      assert.truthy(text:find("sleep 21", 1, true) or text:find("evil", 1, true), text)
      assert.is_nil(text:find("[%z\1-\9\11-\31]"), text)
    end
    program.check(server, { "stop", id, command })
  end)

  it("stops commands, and names those that it does not know", function()
    local first, second = start("--", "sleep 100"), start("--", "sleep 100")
    assert.equal(first .. "\n", program.check(server, { "stop", id, first }))
    assert.truthy(tonumber(program.check(server, { "wait", id, "--command", first })) ~= 0)
    local result = program.run(server, { "stop", id, "no-such", second })
    assert.same({ 1, second .. "\n" }, { result.code, result.out })
    assert.truthy(result.err:find("no-such: ", 1, true), result.err)
  end)

  it("waits until commands can run, for a port and for a file, and exits with 124 if that does not happen", function()
    assert.equal("", program.check(server, { "wait", id }))
    local command = start("--", "sleep 0.3; touch ./tmp/there; sleep 5")
    assert.equal("", program.check(server, { "wait", id, "--file", "./tmp/there" }))
    for _, arguments in ipairs { { "--port", "9" }, { "--file", "/nope" }, { "--command", command } } do
      local result = program.run(server, { "wait", id, "--timeout", "0.2s", arguments[1], arguments[2] })
      assert.equal(124, result.code, result.err)
      assert.truthy(result.err:find("timeout of 0.2 s ran out", 1, true), result.err)
    end
    local both = program.run(server, { "wait", id, "--port", "9", "--file", "x" })
    assert.equal(2, both.code)
    assert.truthy(both.err:find("only one of --port, --file and --command", 1, true), both.err)
  end)

  it("prints the URL of a port", function()
    assert.truthy(program.check(server, { "port", id, "8080" }):find("^http://[^\n]+\n$"))
    local endpoint = json.decode(program.check(server, { "port", id, "8080", "-o", "json" }))
    assert.equal(id, endpoint.sandbox_id)
    local result = program.run(server, { "port", id, "70000" })
    assert.equal(2, result.code)
    assert.truthy(result.err:find("'70000' is not a port", 1, true), result.err)
  end)
end)

--- Commands, as the official end-to-end suites try them: tests/go command_e2e; tests/python test_sandbox_e2e 02, 02a, 02b and 04;
--- tests/javascript test_sandbox_e2e 02, 02a, 02b and 04; components/execd/tests smoke_api.py; and the fixtures of the Python SDK's
--- test_command_service_adapter_streaming.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"
local wait_until = require "spec.support.wait_until"

local fixture, client, sandbox

setup(function()
  fixture = Fixture.new()
  client, sandbox = fixture.client, fixture.sandbox
end)
teardown(function() fixture:close() end)

-- A command's events by their type.
local function watched(command, options)
  local events, given = {}, {}
  function given.on_event(event)
    events[event.type] = events[event.type] or {}
    table.insert(events[event.type], event)
  end
  for name, value in pairs(options or {}) do given[name] = value end
  return assert(sandbox:run(command, given)), events
end

describe("a command that succeeds", function()
  it("has one line of stdout, exit code 0, one init and one complete, and the times of now", function()
    local result, events = watched("echo 'Hello OpenSandbox E2E'")
    assert.equal("Hello OpenSandbox E2E\n", result.stdout)
    assert.equal("", result.stderr)
    assert.equal(0, result.exit_code)
    assert.is_nil(result.error)
    assert.equal(1, #events.stdout)
    assert.equal("Hello OpenSandbox E2E", events.stdout[1].text)
    assert.equal(1, #events.init)
    assert.equal(result.id, events.init[1].text)
    assert.equal(1, #events.execution_complete)
    assert.is_nil(events["error"])
    for _, name in ipairs { "init", "stdout", "execution_complete" } do
      local age = core.wall_clock() - events[name][1].timestamp / 1000
      assert.is_true(age > -60 and age < 60, name .. " is " .. age .. " s old")
    end
  end)

  it("of which nothing is written has exit code 0", function()
    local result = assert(sandbox:run("true"))
    assert.same({ 0, "", "" }, { result.exit_code, result.stdout, result.stderr })
  end)

  it("hands each line to the handler, in order", function()
    local lines = {}
    local result = assert(sandbox:run("echo line1; echo line2", { on_stdout = function(text) lines[#lines + 1] = text end }))
    assert.same({ "line1\n", "line2\n" }, lines)
    assert.equal("line1\nline2\n", result.stdout)
  end)

  it("runs in the directory that is asked for", function()
    assert.equal(fixture.root .. "/tmp\n", assert(sandbox:run("pwd", { cwd = "/tmp" })).stdout)
  end)

  it("keeps its blank lines", function()
    local result, events = watched([[printf 'a\n\nb\n\n\nc\n']])
    local texts = {}
    for i, event in ipairs(events.stdout) do texts[i] = event.text end
    assert.same({ "a", "\n", "b", "\n", "\n", "c" }, texts)
    assert.equal("a\n\nb\n\n\nc\n", result.stdout)
  end)
end)

describe("the environment of a command", function()
  it("does not have what nobody set", function()
    assert.equal("[]\n", assert(sandbox:run('echo "[$CUSTOM_VAR]"')).stdout)
  end)

  it("has exactly what is given, for this command only", function()
    local value = "injected value: 'quotes' \"and\" $signs"
    local result = assert(sandbox:run('printf "%s\\n" "$CUSTOM_VAR"', { env = { CUSTOM_VAR = value } }))
    assert.equal(value .. "\n", result.stdout)
    assert.equal("[]\n", assert(sandbox:run('echo "[$CUSTOM_VAR]"')).stdout)
  end)
end)

describe("a command that fails", function()
  it("because there is no such program says so in stderr and in its error, and has no complete event", function()
    local result, events = watched("nonexistent-command-that-does-not-exist")
    assert.truthy(result.stderr:find("nonexistent-command-that-does-not-exist", 1, true))
    assert.equal("CommandExecError", result.error.name)
    assert.equal("127", result.error.value)
    assert.equal(127, result.exit_code)
    assert.equal(1, #events["error"])
    assert.is_nil(events.execution_complete)
    assert.equal(1, #events.init)
  end)

  it("keeps what it wrote, and gives its own exit code", function()
    local result = assert(sandbox:run("echo before; echo trouble >&2; exit 42"))
    assert.same({ "before\n", "trouble\n", 42, "42" }, { result.stdout, result.stderr, result.exit_code, result.error.value })
  end)
end)

describe("a command in the background", function()
  it("is started and not waited for, has an id and no exit code yet", function()
    local began = core.now()
    local result = assert(client:run_command(fixture:execd(), "sleep 30", { background = true }))
    assert.is_true(core.now() - began < 10)
    assert.truthy(result.id and result.id ~= "")
    assert.is_nil(result.exit_code)
    assert(sandbox:command(result.id):kill())
  end)

  it("leaves the sandbox free for others", function()
    local background = assert(sandbox:start("sleep 300"))
    assert.equal("still responsive\n", assert(sandbox:run("echo still responsive")).stdout)
    assert.is_true(assert(background:status()).running)
    assert(background:kill())
  end)

  it("has a status by its id, and a log that is read to the end and on from where it was", function()
    local command = assert(sandbox:start("echo first-line; sleep 0.3; echo second-line"))
    assert.equal(command.id, assert(command:status()).id)
    local text, cursor = "", 0
    wait_until(function()
      local more, following = assert(command:logs(cursor))
      assert.equal(cursor + #more, following)
      text, cursor = text .. more, following
      return text:find("second-line", 1, true)
    end, "the log lacks a line")
    assert.equal("first-line\nsecond-line\n", text)
    local status = wait_until(function()
      local status = assert(command:status())
      return not status.running and status
    end, "it goes on")
    assert.equal(0, status.exit_code)
    assert.is_true(status.started_at <= status.finished_at)
    assert.same({ "", cursor }, { command:logs(cursor) })
  end)
end)

describe("an interrupted command", function()
  it("that was in the background is not running any more", function()
    local command = assert(sandbox:start("sleep 300"))
    assert.is_true(assert(command:status()).running)
    assert(client:interrupt_command(fixture:execd(), command.id))
    local status = wait_until(function()
      local status = assert(command:status())
      return not status.running and status
    end, "the command still runs")
    assert.not_equal(0, status.exit_code)
  end)

  it("that somebody waits for ends at once, with a result, and the sandbox goes on", function()
    local began, ids = core.now(), {}
    local waiting = opensandbox.spawn(function()
      return assert(sandbox:run("sleep 30", { on_event = function(event)
        if event.type == "init" then ids[1] = event.text end
      end }))
    end)
    wait_until(function() return ids[1] end, "there was no init event")
    assert(client:interrupt_command(fixture:execd(), ids[1]))
    local result = assert(waiting:wait { timeout = 20 })
    assert.is_true(core.now() - began < 20)
    assert.same({ ids[1], -1, "terminated" }, { result.id, result.exit_code, result.signal })
    assert.equal("-1", result.error.value)
    assert.equal("after\n", assert(sandbox:run("echo after")).stdout)
  end)
end)

describe("a client that goes away in the middle of a stream", function()
  it("does no harm to the server or the sandbox", function()
    local other = fixture:another_client()
    local seen
    local waiting = opensandbox.spawn(function()
      return other:run_command(fixture:execd(), "echo begun; sleep 30", {
        on_stdout = function(text) seen = text end,
      })
    end)
    wait_until(function() return seen end, "the command did not begin")
    waiting:cancel()
    other:close()
    assert(client:ping(fixture:execd()))
    assert.equal("well\n", assert(sandbox:run("echo well")).stdout)
  end)
end)

describe("the event stream", function()
  local server

  setup(function()
    server = fault_server.start [[
      local streams = {
        standard = 'data: {"type":"init","text":"c1","timestamp":1}\n\n: a comment\nevent: stdout\n'
          .. 'data: {"type":"stdout","text":"hello","timestamp":2}\n\n'
          .. 'id: 7\nretry: 10\ndata: {"type":"execution_complete","execution_time":5,"timestamp":3}\n\n',
        junk = '{"type":"init","text":"c1","timestamp":1}\n\nnot-json\n\n{"type":"stdout","text":"hello","timestamp":2}\n\n'
          .. '{"type":"execution_complete","execution_time":5,"timestamp":3}\n\n',
        no_trace = '{"type":"init","text":"c1","timestamp":1}\n\n'
          .. '{"type":"error","error":{"ename":"CommandExecError","evalue":"2","traceback":null},"timestamp":3}\n\n',
        no_number = '{"type":"init","text":"c1","timestamp":1}\n\n'
          .. '{"type":"error","error":{"ename":"StartError","evalue":"fork failed","traceback":["x"]},"timestamp":3}\n\n',
      }
      return function(request, connection)
        local name = request.path:match("^/(%w+_?%w*)/command$")
        connection:respond(200, { ["Content-Type"] = "text/event-stream" }, streams[name])
      end
    ]]
  end)
  teardown(function() server:stop() end)

  it("may be framed as the standard says, with event, id, retry and comment lines", function()
    local result = assert(client:run_command(server.url .. "/standard", "x"))
    assert.same({ "hello\n", 0, "c1", 0.005 }, { result.stdout, result.exit_code, result.id, result.duration })
  end)

  it("may hold junk, which is passed over", function()
    local result = assert(client:run_command(server.url .. "/junk", "x"))
    assert.same({ "hello\n", 0 }, { result.stdout, result.exit_code })
  end)

  it("may have null for a traceback, which counts as none", function()
    local result = assert(client:run_command(server.url .. "/no_trace", "x"))
    assert.same({ 2, {} }, { result.exit_code, result.error.traceback })
  end)

  it("may end with an error that is no exit code: then there is none", function()
    local result, err = client:run_command(server.url .. "/no_number", "x")
    assert.is_nil(result)
    assert.equal("start_failed", err.code)
    assert.is_nil(err.result.exit_code)
    assert.same({ "StartError", "fork failed" }, { err.result.error.name, err.result.error.value })
  end)
end)

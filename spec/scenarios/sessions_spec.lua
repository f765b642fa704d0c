--- Shell sessions, as the official end-to-end suites try them: tests/go sandbox_e2e Session; tests/python and tests/javascript
--- test_sandbox_e2e 02c.

local Fixture = require "spec.support.fixture"

local fixture, client, sandbox, execd

setup(function()
  fixture = Fixture.new()
  client, sandbox = fixture.client, fixture.sandbox
  execd = fixture:execd()
end)
teardown(function() fixture:close() end)

describe("a session", function()
  it("begins in the directory that it was made with", function()
    local id = assert(client:create_session(execd, { cwd = "/tmp" }))
    assert.equal(fixture.root .. "/tmp\n", assert(client:run_in_session(execd, id, "pwd")).stdout)
    local second = assert(client:create_session(execd, { cwd = "/var" }))
    assert.equal(fixture.root .. "/var\n", assert(client:run_in_session(execd, second, "pwd")).stdout)
    assert(client:delete_session(execd, id))
    assert(client:delete_session(execd, second))
  end)

  it("runs in another directory when it is told to", function()
    local session = assert(sandbox:session { cwd = "/tmp" })
    assert.equal(fixture.root .. "/var\n", assert(session:run("pwd", { cwd = "/var" })).stdout)
    assert(session:close())
  end)

  it("keeps what is exported, from one run to the next, and not beyond", function()
    local session = assert(sandbox:session())
    assert.equal(0, assert(session:run("export E2E_SESSION=persists")).exit_code)
    local result = assert(session:run('echo "$E2E_SESSION"'))
    assert.same({ "persists\n", 0 }, { result.stdout, result.exit_code })
    local other = assert(sandbox:session())
    assert.equal("[]\n", assert(other:run('echo "[$E2E_SESSION]"')).stdout)
    assert.equal("[]\n", assert(sandbox:run('echo "[$E2E_SESSION]"')).stdout)
    assert(session:close())
    assert(other:close())
  end)

  it("in which a command ends with 7 says so, has no complete event, and goes on", function()
    local session = assert(sandbox:session())
    local types = {}
    local result = assert(session:run("echo before; exit 7", {
      on_event = function(event) types[event.type] = (types[event.type] or 0) + 1 end,
    }))
    assert.same({ 7, "7", "before\n" }, { result.exit_code, result.error.value, result.stdout })
    assert.same({ nil, 1 }, { types.execution_complete, types["error"] })
    assert.equal("on\n", assert(session:run("echo on")).stdout)
    assert(session:close())
  end)

  it("hands on its output while it runs, and has one complete event", function()
    local session = assert(sandbox:session())
    local lines, types = {}, {}
    assert(session:run("echo one; echo two", {
      on_stdout = function(text) lines[#lines + 1] = text end,
      on_event = function(event) types[event.type] = (types[event.type] or 0) + 1 end,
    }))
    assert.same({ "one\n", "two\n" }, lines)
    assert.same({ 1, 1 }, { types.init, types.execution_complete })
    assert(session:close())
  end)

  it("that was deleted runs nothing more", function()
    local id = assert(client:create_session(execd))
    assert(client:delete_session(execd, id))
    local result, err = client:run_in_session(execd, id, "echo x")
    assert.is_nil(result)
    assert.equal("http", err.kind)
    assert(client:delete_session(execd, id))
  end)
end)

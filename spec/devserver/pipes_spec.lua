--- Named pipes that a sandbox has in the place of files: execd waits for their other end, and the development server serves all others meanwhile.

local Fixture = require "spec.support.fixture"

describe("a named pipe in a sandbox", function()
  local fixture, sandbox

  setup(function()
    fixture = Fixture.new { extensions = { ["bootstrap.execd.isolation"] = "enable" } }
    sandbox = fixture.sandbox
    assert.equal(0, assert(sandbox:run("mkfifo ./work/pipe")).exit_code)
  end)
  teardown(function() fixture:close() end)

  local function has_no_answer(files, method, ...)
    local arguments = { ... }
    arguments[#arguments + 1] = { timeout = 0.3 }
    local value, err = files[method](files, (table.unpack or unpack)(arguments)) -- luacheck: std max
    assert.is_nil(value)
    assert.equal("timeout", err.kind)
    assert.equal("alive\n", assert(sandbox:run("echo alive", { idle_timeout = 5 })).stdout)
  end

  it("gives no answer to a download", function() has_no_answer(sandbox.files, "read", "/work/pipe") end)

  it("gives no answer to an upload", function() has_no_answer(sandbox.files, "write", "/work/pipe", "x") end)

  it("gives no answer to a replacement", function() has_no_answer(sandbox.files, "replace", "/work/pipe", "a", "b") end)

  it("that a process reads gives no answer to an upload", function()
    local reader = assert(sandbox:start("cat ./work/pipe; echo closed"))
    has_no_answer(sandbox.files, "write", "/work/pipe", "x")
    reader:kill()
  end)

  it("gives no answer in an isolated session", function()
    if fixture.unisolated then return pending(fixture.unisolated) end
    local session = assert(sandbox:isolated { workspace = "/work" })
    has_no_answer(session.files, "read", "/work/pipe")
    has_no_answer(session.files, "write", "/work/pipe", "x")
    has_no_answer(session.files, "replace", "/work/pipe", "a", "b")
    session:close()
  end)

  it("in the place of a command's log is an empty log", function()
    local command = assert(sandbox:start("sleep 60"))
    assert(sandbox:run(("cd ./tmp; for f in *%s*; do rm $f; mkfifo $f; done"):format(command.id)))
    assert.equal("", (assert(command:logs())))
    command:kill()
  end)
end)

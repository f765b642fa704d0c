--- `opensandbox shell`, `run -t` and `exec -t` in a real pseudo-terminal: keys, sizes, exit codes, detaching, and the mode of our terminal
-- after every end.

local process = require "spec.support.process"
local program = require "spec.support.program"
local uv_loop = require "spec.support.uv_loop"

describe("a terminal of opensandbox", function()
  local server, id, terminal

  setup(function()
    server = process.devserver { grace = 0.1 }
    id = program.check(server, { "create", "python:3.12", "--lifetime", "1h" }):gsub("\n", "")
  end)
  teardown(function() server:stop() end)
  after_each(function()
    if terminal then terminal:close() end
    terminal = nil
  end)

  local function open(arguments, options)
    terminal = program.terminal(server, arguments, options)
  end

  -- Our terminal is as it was: lines, echo, signals.
  local function is_restored()
    local attributes = terminal:attributes()
    for _, name in ipairs { "icanon", "echo", "isig", "icrnl", "opost" } do
      assert.truthy(attributes:find("[ \n]" .. name .. "[ ;\n]"), attributes)
    end
  end

  it("passes keys and output, and exits with the shell's code", function()
    open { "shell", id, "-e", "A=variable" }
    terminal:write "echo sh''own $A\r"
    terminal:expect "shown variable"
    terminal:write "exit 7\r"
    assert.equal(7, (terminal:wait()))
    is_restored()
  end)

  it("passes Ctrl-C to the job in the sandbox, and ends only with its shell", function()
    open { "shell", id }
    -- The job itself says that it runs: a Ctrl-C while bash starts a job can end bash.
    terminal:write "sh -c 'echo run\"\"ning; exec sleep 100'; echo st''opped\r"
    terminal:expect "running"
    terminal:write "\3"
    terminal:write "echo al''ive\r"
    terminal:expect "alive"
    assert.is_nil(terminal.text:find("stopped", 1, true), terminal.text)
    uv_loop.wait_until(function() -- bash drops an end of input that arrives before it reads keys again
      terminal:write "\4"
      uv_loop.sleep(0.1)
      return terminal.code
    end, "the end of the shell")
    is_restored()
  end)

  it("has the size of ours, and follows it", function()
    open({ "exec", "-t", id, "--", "sh" }, { columns = 91, rows = 33 })
    terminal:write "stty size\r"
    terminal:expect "33 91"
    terminal:resize(101, 44)
    uv_loop.wait_until(function()
      terminal:write "stty size\r"
      uv_loop.sleep(0.1)
      return terminal.text:find("44 101", 1, true)
    end, "the new size")
    terminal:write "exit\r"
    assert.equal(0, (terminal:wait()))
  end)

  it("runs a command of run -t in a sandbox of its own, which is deleted", function()
    open { "run", "-t", "python:3.12", "--", "test -t 0 && test -t 1 && echo is a terminal; exit 5" }
    local code, _, text = terminal:wait()
    assert.equal(5, code, text)
    assert.truthy(text:find("is a terminal\r\n", 1, true), text)
    assert.equal(id .. "\n", program.check(server, { "ls", "-q" }))
    is_restored()
  end)

  it("is detached by Ctrl-P Ctrl-Q, goes on, and is attached again", function()
    open { "shell", id }
    terminal:write "V=kept; echo be''gun\r"
    terminal:expect "begun"
    terminal:write "\16"
    terminal:write "\17"
    assert.equal(0, (terminal:wait()))
    local again = terminal.text:match("%-%-attach (%S+)'")
    assert.truthy(again, terminal.text)
    is_restored()
    terminal:close()
    open { "shell", id, "--attach", again }
    terminal:write "echo $V-$V\r"
    terminal:expect "kept-kept"
    terminal:write "exit 3\r"
    assert.equal(3, (terminal:wait()))
  end)

  it("passes a Ctrl-P that no Ctrl-Q follows", function()
    open { "exec", "-t", id, "--", "stty raw -echo; echo ready; head -c 2 | od -An -tx1; exit 0" }
    terminal:expect "ready"
    terminal:write "\16"
    terminal:write "x"
    terminal:expect "10 78"
    assert.equal(0, (terminal:wait()))
  end)

  it("keeps the sandbox of run -t when it is detached", function()
    open { "run", "-t", "python:3.12" }
    terminal:write "echo be''gun\r"
    terminal:expect "begun"
    terminal:write "\16\17"
    assert.equal(0, (terminal:wait()))
    local kept = terminal.text:match("opensandbox shell (%S+) %-%-attach")
    assert.truthy(program.check(server, { "ls", "-q" }):find(kept, 1, true))
    program.check(server, { "kill", kept })
  end)

  it("restores our terminal and deletes the sandbox after SIGTERM", function()
    open { "run", "-t", "python:3.12" }
    terminal:write "echo be''gun\r"
    terminal:expect "begun"
    terminal.handle:kill("sigterm")
    local _, signal = terminal:wait()
    assert.equal(15, signal)
    is_restored()
    assert.equal(id .. "\n", program.check(server, { "ls", "-q" }))
  end)

  it("needs a terminal here, and refuses what has no meaning in one", function()
    local piped = program.run(server, { "shell", id })
    assert.equal(2, piped.code)
    assert.truthy(piped.err:find("must be a terminal: 'opensandbox exec' runs a command without one", 1, true), piped.err)
    piped = program.run(server, { "exec", "-t", id })
    assert.equal(2, piped.code)
    assert.truthy(piped.err:find("must be a terminal: leave out -t", 1, true), piped.err)
    open { "exec", "-t", "--timeout", "1s", id }
    local code, _, text = terminal:wait()
    assert.equal(2, code)
    assert.truthy(text:find("--timeout does not go with a terminal", 1, true), text)
  end)

  it("exits with 125 if there is no such sandbox, and leaves our terminal as it was", function()
    open { "shell", "no-such" }
    local code, _, text = terminal:wait()
    assert.equal(125, code, text)
    is_restored()
  end)
end)

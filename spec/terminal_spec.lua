--- Terminals of a sandbox: what their programs see, how they end, and what becomes of them.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a terminal of a sandbox", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  -- Reads until the output contains a pattern. Returns all that was read.
  local function read_until(terminal, pattern, text)
    text = text or ""
    while not text:find(pattern) do
      local bytes, err = terminal:read(20)
      if not bytes then error(("the output ended without %q: %s %q"):format(pattern, tostring(err), text), 2) end
      text = text .. bytes
    end
    return text
  end

  local function read_all(terminal)
    local pieces = {}
    for bytes in terminal:output() do pieces[#pieces + 1] = bytes end
    return table.concat(pieces)
  end

  -- The state of its session, or nil when there is none.
  local function state(terminal)
    local session, err = client:get_pty_session(fixture:execd(), terminal.session_id)
    assert.is_true(session ~= nil or err.code == "CONTEXT_NOT_FOUND", tostring(err))
    return session
  end

  it("runs a command of its size, type, directory and environment, to its exit code", function()
    local terminal = assert(sandbox:terminal { command = "stty size; tty -s && echo $TERM; pwd; echo \"$GREETING\"; exit 7",
      cols = 100, rows = 33, term = "vt220", cwd = "/work/sub", env = { GREETING = "it's \"me\"" } })
    assert.equal("opensandbox.Terminal: " .. terminal.id, tostring(terminal))
    assert.matches("^33 100\r\nvt220\r\n[^\r]*/work/sub\r\nit's \"me\"\r\n$", read_all(terminal))
    assert.is_nil(terminal:read())
    assert.equal(7, terminal:wait())
    assert.equal(7, terminal:wait { timeout = 1 })
    assert.is_true(terminal:close())
  end)

  it("takes a list as a program and its arguments", function()
    local terminal = assert(sandbox:terminal { command = { "printf", "%s|", "a b", "$HOME" } })
    assert.equal("a b|$HOME|", read_all(terminal))
    assert.equal(0, terminal:wait())
    terminal:close()
  end)

  it("is a shell that one writes to, whose jobs are interrupted, and whose size changes", function()
    local terminal = assert(sandbox:terminal())
    read_until(terminal, "[#$] $")
    assert.is_true(terminal:write "sh -c 'echo job; exec sleep 100'\r")
    read_until(terminal, "%cjob\r\n")
    assert.is_true(terminal:interrupt())
    read_until(terminal, "%^C.*[#$] $")
    assert.is_true(terminal:resize(90, 20))
    assert.is_true(terminal:write "stty size\r")
    read_until(terminal, "20 90\r\n")
    assert.is_true(terminal:write "exit 5\r")
    assert.equal(5, terminal:wait { timeout = 20 })
    assert.matches("exit\r\n$", read_all(terminal))
    terminal:close()
  end)

  it("ends as its command does, also when its shell is killed, and input that was not read does not matter", function()
    local function code_of(command, input)
      local terminal = assert(sandbox:terminal { command = command })
      if input then
        read_until(terminal, "ready")
        assert(terminal:write(input))
      end
      local code, err = terminal:wait { timeout = 20 }
      terminal:close()
      return code or err
    end
    assert.equal(0, code_of "true")
    assert.equal(137, code_of "kill -9 $$")
    assert.equal(143, code_of "kill $$")
    assert.equal(127, code_of "no-such-program")
    assert.equal(-1, code_of "kill -9 $PPID")
    assert.equal(3, code_of("echo ready; sleep 0.2; stty raw -echo min 0 time 0; exit 3", "a\r\4\4b c\n\n\4d"))
    assert.equal(130, code_of("echo ready; exec sleep 100", "\3"))
  end)

  it("ends the input of its command by Ctrl-D, which runs on", function()
    local terminal = assert(sandbox:terminal { command = "stty -echo; echo ready; wc -l; echo after; exit 3" })
    read_until(terminal, "ready\r\n")
    assert.is_true(terminal:write "one\rtwo\r")
    assert.is_true(terminal:write "\4")
    assert.equal("2\r\nafter\r\n", (read_all(terminal):gsub("^ +", "")))
    assert.equal(3, terminal:wait { timeout = 20 })
    terminal:close()
  end)

  it("receives an interrupt and a signal as soon as it is open", function()
    -- The shell that starts the command needs time to read this environment.
    local opts = { command = "exec sleep 20", env = { LONG = ("x"):rep(100000) } }
    for _ = 1, 10 do
      local terminal = assert(sandbox:terminal(opts))
      assert.is_true(terminal:interrupt())
      assert.equal(130, terminal:wait { timeout = 10 })
      terminal:close()
      terminal = assert(sandbox:terminal(opts))
      assert.is_true(terminal:signal "SIGTERM")
      assert.equal(143, terminal:wait { timeout = 10 })
      terminal:close()
    end
  end)

  it("receives signals that are sent to its command", function()
    local terminal = assert(sandbox:terminal {
      command = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    })
    read_until(terminal, "ready")
    assert.is_true(terminal:signal "SIGTERM")
    read_until(terminal, "got it")
    assert.equal(9, terminal:wait { timeout = 20 })
    terminal:close()
  end)

  it("keeps every byte of its output, whatever the bytes are", function()
    local terminal = assert(sandbox:terminal {
      command = "stty raw; printf 'all\\000\\001\\033\\033_\\033\\\\\\377 \\033'; seq 1 20000; printf '\\033'",
    })
    local text = read_all(terminal)
    local numbers = {}
    for number = 1, 20000 do numbers[number] = number .. "\n" end
    assert.equal("all\0\1\27\27_\27\\\255 \27" .. table.concat(numbers) .. "\27", text)
    terminal:close()
  end)

  describe("calls on_output", function()
    it("with all output before wait returns", function()
      local pieces = {}
      local terminal = assert(sandbox:terminal { command = "seq 1 30000; exit 4", on_output = function(bytes)
        pieces[#pieces + 1] = bytes
        opensandbox.sleep(0.001)
      end })
      assert.equal(4, terminal:wait { timeout = 60 })
      local text = table.concat(pieces)
      assert.equal(168894 + 30000, #text)
      assert.matches("\r\n30000\r\n$", text)
      terminal:close()
    end)

    it("and its error is raised by wait", function()
      local terminal = assert(sandbox:terminal { command = "echo x; sleep 100", on_output = function() error("my mistake", 0) end })
      assert.has_error(function() terminal:wait { timeout = 20 } end, "my mistake")
      terminal:close()
    end)

    it("within the time limit of wait, which is one for the command and on_output together", function()
      local terminal = assert(sandbox:terminal { command = "echo x; sleep 1.5", on_output = function() opensandbox.sleep(20) end })
      local began = opensandbox.now()
      local code, err = terminal:wait { timeout = 2 }
      assert.is_nil(code)
      assert.same({ "timeout", "wait_timeout", "terminal:wait" }, { err.kind, err.code, err.op })
      assert.matches("on_output has not returned", err.message)
      assert.is_true(opensandbox.now() - began < 3)
      terminal:close()
    end)

    it("which cannot wait for the end itself", function()
      local terminal
      terminal = assert(sandbox:terminal { command = "sleep 0.2; echo x", on_output = function() terminal:wait() end })
      assert.error_matches(function() terminal:wait { timeout = 20 } end, "terminal:wait: on_output cannot wait for the end")
      terminal:close()
    end)
  end)

  describe("continues without its object", function()
    it("when it is detached: another client goes on with the next byte", function()
      local terminal = assert(sandbox:terminal { command = "echo one; read x; echo got $x; read x; exit 6" })
      local first = read_until(terminal, "one\r\n")
      local opts = terminal:detach()
      assert.same({ id = terminal.id, since = opts.since }, opts)
      local _, err = terminal:read()
      assert.same({ "closed", "terminal:read" }, { err.kind, err.op })
      assert.is_true(terminal:close())
      local other = assert(fixture:another_client():connect(sandbox.id))
      local again = assert(other:terminal(opts))
      assert.is_true(again:write "two\r")
      assert.equal("two\r\ngot two\r\n", read_until(again, "got two\r\n"))
      assert.is_true(again:close())
      assert.is_true(state(again).running)
      -- Without `since`, all that execd still has.
      wait_until(function()
        again, err = other:terminal { id = terminal.id }
        return again or err.code ~= "ALREADY_CONNECTED"
      end)
      assert.equal(first .. "two\r\ngot two\r\n", read_until(again, "got two\r\n"))
      assert.is_true(again:write "\r")
      assert.equal(6, again:wait { timeout = 20 })
      wait_until(function() return state(again) == nil end) -- nobody else deletes it
      again, err = other:terminal { id = terminal.id }
      assert.is_nil(again)
      assert.same({ "state", "CONTEXT_NOT_FOUND", "sandbox:terminal" }, { err.kind, err.code, err.op })
      assert.truthy(err.hint)
    end)

    it("but not when its command has ended: its output and exit code are still read from the object", function()
      local terminal = assert(sandbox:terminal { command = "echo all; exit 4" })
      assert.equal(4, terminal:wait { timeout = 20 })
      local opts, err = terminal:detach()
      assert.is_nil(opts)
      assert.same({ "state", "terminal_ended", "terminal:detach" }, { err.kind, err.code, err.op })
      assert.truthy(err.hint)
      assert.equal("all\r\n", read_all(terminal))
      assert.equal(4, terminal:wait())
      terminal:close()
    end)

    it("also when more output has come than execd keeps, which the first call after the attach reports", function()
      local terminal = assert(sandbox:terminal { command = "stty raw -echo; head -c 1; seq 1 300000; printf 'the end'; head -c 1" })
      local watcher = assert(client:connect_pty_session(fixture:execd(), terminal.session_id, { viewer = true }))
      assert.is_true(terminal:write "x")
      local opts = terminal:detach()
      local kind, bytes
      repeat kind, bytes = watcher:receive(20) until not kind or bytes:find("the end", 1, true)
      assert.truthy(kind)
      watcher:close()
      local again
      wait_until(function()
        local err
        again, err = sandbox:terminal(opts)
        return again or (err.code ~= "ALREADY_CONNECTED" and error(err))
      end)
      local _, err = again:read(20)
      assert.same({ "output_lost", "terminal:read", true }, { err.code, err.op, err.terminal_continues })
      local text = read_until(again, "the end$")
      assert.truthy(text:find("\n299999\n300000\nthe end", 1, true))
      assert.is_true(#text > 1000000 and #text <= 1024 * 1024)
      assert.is_true(again:write "x")
      assert.equal(0, again:wait { timeout = 20 })
      again:close()
    end)

    it("when another one takes it over, which is an error here", function()
      local terminal = assert(sandbox:terminal { command = "echo ready; cat" })
      read_until(terminal, "ready\r\n")
      local again, err = sandbox:terminal { id = terminal.id }
      assert.is_nil(again)
      assert.same({ "state", "ALREADY_CONNECTED" }, { err.kind, err.code })
      again = assert(sandbox:terminal { id = terminal.id, takeover = true })
      err = select(2, terminal:read(20))
      assert.same({ "state", "TAKEN_OVER", "terminal:read" }, { err.kind, err.code, err.op })
      assert(again:write "x\r")
      assert.equal("ready\r\nx\r\nx\r\n", read_until(again, "x\r\nx\r\n"))
      again:close()
      terminal:close()
    end)

    it("when it is a session of another program, whose exit code arrives, too", function()
      local id = assert(client:create_pty_session(fixture:execd(), { command = "echo theirs; read x; exit 8" }))
      local terminal = assert(sandbox:terminal { id = id })
      read_until(terminal, "theirs\r\n")
      assert(terminal:write "\r")
      assert.equal(8, terminal:wait { timeout = 20 })
      terminal:close()
      assert.is_false(state(terminal).running)
      local again, err = sandbox:terminal { id = id } -- this would start the command again
      assert.is_nil(again)
      assert.same({ "state", "terminal_ended" }, { err.kind, err.code })
      assert.is_true(client:delete_pty_session(fixture:execd(), id))
    end)
  end)

  describe("is deleted", function()
    it("when it is closed", function()
      local terminal = assert(sandbox:terminal { command = "sleep 1000" })
      assert.is_true(state(terminal).running)
      assert.is_true(terminal:close())
      assert.is_nil(state(terminal))
      assert.is_true(terminal:close())
      local ok, err = terminal:write "x"
      assert.is_nil(ok)
      assert.same({ "closed", "terminal:write", sandbox.id }, { err.kind, err.op, err.sandbox_id })
    end)

    it("when it is collected, also while on_output waits for output", function()
      local copy = {}
      do
        local terminal = assert(sandbox:terminal { command = "sleep 1000", on_output = function() end })
        opensandbox.sleep(0.01)
        copy.session_id = terminal.session_id
      end
      wait_until(function()
        collectgarbage()
        return state(copy) == nil
      end)
    end)

    it("when its command has ended", function()
      local terminal = assert(sandbox:terminal { command = "true" })
      assert.equal(0, terminal:wait { timeout = 20 })
      wait_until(function() return state(terminal) == nil end)
      assert.is_true(terminal:close())
    end)

    it("when its command has ended and the client that is attached closes at once", function()
      local terminal = assert(sandbox:terminal { command = "read x" })
      local other_client = fixture:another_client()
      local other = assert(other_client:connect(sandbox.id))
      local again = assert(other:terminal(assert(terminal:detach())))
      assert.is_true(again:write "\r")
      assert.equal(0, again:wait { timeout = 20 })
      other_client:close()
      assert.is_nil(state(terminal))
    end)

    it("when it cannot be connected", function()
      local terminal, err = sandbox:terminal { timeout = 0.001 }
      assert.is_nil(terminal)
      assert.same({ "timeout", "timeout", "sandbox:terminal" }, { err.kind, err.timeout_option, err.op })
    end)
  end)

  it("is read by code that never waits otherwise, which lets other tasks run, and can be cancelled", function()
    local terminal = assert(sandbox:terminal { command = "echo ready; cat" })
    local limit = core.now() + 20
    local function poll(pattern)
      local text = ""
      while core.now() < limit and not text:find(pattern) do
        local bytes, err = terminal:read(0)
        if not bytes and err.kind ~= "timeout" then return err.kind end
        text = text .. (bytes or "")
      end
      return text
    end
    assert.equal("ready\r\n", poll "\n")
    assert.is_true(terminal:write "line\r")
    assert.equal("line\r\nline\r\n", poll "\n.*\n")
    local reason
    local task = opensandbox.spawn(function() reason = poll "never" end)
    opensandbox.sleep(0.02)
    task:cancel()
    task:wait()
    assert.equal("cancelled", reason)
    terminal:close()
  end)

  it("has time limits", function()
    local terminal = assert(sandbox:terminal { command = "sleep 1000" })
    for _, seconds in ipairs { 0, 0.1 } do
      local bytes, err = terminal:read(seconds)
      assert.is_nil(bytes)
      assert.same({ "timeout", "timeout", "terminal:read" }, { err.kind, err.code, err.op })
    end
    local code, err = terminal:wait { timeout = 0.1 }
    assert.is_nil(code)
    assert.same({ "timeout", "wait_timeout", "terminal:wait" }, { err.kind, err.code, err.op })
    terminal:close()
  end)

  it("has one time limit for a write, although each piece of it is taken at once", function()
    local terminal = assert(sandbox:terminal { command = "stty raw -echo; echo ready; cat >/dev/null" })
    read_until(terminal, "ready")
    local ok, err = terminal:write(("x"):rep(32 * 1024 * 1024), { timeout = 0.1 })
    assert.is_nil(ok)
    assert.same({ "timeout", "timeout", "terminal:write" }, { err.kind, err.timeout_option, err.op })
    assert.truthy(err.message:find("timeout of 0.1 s ran out", 1, true), err.message)
    terminal:close()
  end)

  it("holds back a command whose output nobody reads, at flat memory, and says so", function()
    local terminal = assert(sandbox:terminal { command = "seq 1 400000" }) -- 3.1 MB
    local code, err = terminal:wait()
    assert.is_nil(code)
    assert.same({ "state", "output_unread", "terminal:wait" }, { err.kind, err.code, err.op })
    collectgarbage()
    local before, size, most = collectgarbage("count"), 0, 0
    for bytes in terminal:output() do
      size = size + #bytes
      opensandbox.sleep(0.005)
      collectgarbage()
      most = math.max(most, collectgarbage("count"))
    end
    assert.equal(2288895 + 2 * 400000, size)
    assert.is_true(most - before < 1024, ("%.0f KiB more"):format(most - before))
    assert.equal(0, terminal:wait())
    terminal:close()
  end)

  it("serves several tasks at once", function()
    local terminal = assert(sandbox:terminal { command = "stty -echo; cat" })
    local received = {}
    local reader = opensandbox.spawn(function()
      local text = ""
      while not text:find("last\r\n") do text = text .. assert(terminal:read()) end
      received = text
    end)
    local waiter = opensandbox.spawn(function() return terminal:wait() end)
    local cancelled = opensandbox.spawn(function() return terminal:read() end)
    opensandbox.sleep(0.05)
    cancelled:cancel()
    assert.equal("cancelled", select(2, cancelled:wait()).kind)
    local sent = {}
    for line = 1, 50 do
      sent[line] = ("line %d\n"):format(line)
      assert(terminal:write(sent[line]))
    end
    assert(terminal:write "last\n")
    reader:wait()
    assert.equal(table.concat(sent):gsub("\n", "\r\n") .. "last\r\n", received)
    assert(terminal:write "\4")
    assert.equal(0, waiter:wait { timeout = 20 })
    terminal:close()
    wait_until(function() return next(client.http.transport.waiters) == nil end)
  end)

  it("is not attached by an id whose session belongs to another one, and continues", function()
    local terminal = assert(sandbox:terminal { command = "echo begun; cat" })
    read_until(terminal, "begun")
    local opts = terminal:detach()
    local other, err = sandbox:terminal { id = terminal.session_id .. ".00c0ffee", timeout = 20 }
    assert.is_nil(other)
    assert.same({ "state", "wrong_id", "sandbox:terminal" }, { err.kind, err.code, err.op })
    opts.takeover = true -- execd may not have noticed yet that the other connection has ended
    local same = assert(sandbox:terminal(opts))
    assert(same:write "alive\r")
    read_until(same, "alive")
    assert(client:delete_pty_session(fixture:execd(), terminal.session_id))
  end)

  it("is refused with the true reason for a command that is longer than Linux takes", function()
    local terminal, err = sandbox:terminal { command = "true " .. ("x"):rep(200000) }
    assert.is_nil(terminal)
    assert.same({ "state", "START_FAILED", "sandbox:terminal" }, { err.kind, err.code, err.op })
    assert.matches("argument list too long", err.message)
    assert.matches("128 KiB", err.hint)
  end)

  it("raises the caller's mistakes", function()
    assert.error_matches(function() sandbox:terminal { id = "../x" } end, "option 'id' holds \"/\"")
    local function problem(...) return select(2, pcall(...)) end
    assert.matches("sandbox:terminal: unknown option 'col' %(did you mean 'cols'%?%)",
      problem(sandbox.terminal, sandbox, { col = 1 }))
    assert.matches("'cols' must be between 1 and 65535", problem(sandbox.terminal, sandbox, { cols = 0 }))
    assert.matches("'since' and 'takeover' need option 'id'", problem(sandbox.terminal, sandbox, { since = 1 }))
    assert.matches("'command' is for a new terminal", problem(sandbox.terminal, sandbox, { id = "a", command = "x" }))
    assert.matches("'cols' and 'rows' go together", problem(sandbox.terminal, sandbox, { id = "a", cols = 1 }))
    local terminal = assert(sandbox:terminal { command = "cat", on_output = function() end })
    assert.matches("terminal:signal: the signal must be", problem(terminal.signal, terminal, "SIGUSR1"))
    assert.matches("terminal:read: the output goes to on_output", problem(terminal.read, terminal))
    assert.matches("terminal:resize: 'rows' must be between", problem(terminal.resize, terminal, 1, 70000))
    assert.matches("call it with a colon", problem(terminal.write, "x"))
    terminal:close()
  end)
end)

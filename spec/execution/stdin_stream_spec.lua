--- The standard input of commands in the background, which other code writes while they run.

local Fixture = require "spec.support.fixture"
local core = require "opensandbox.core"
local cutting_relay = require "spec.support.cutting_relay"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("the input of a command in the background", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  local function start(command, opts, from)
    opts = opts or {}
    opts.stdin = true
    return assert((from or sandbox):start(command, opts))
  end

  local function output_of(command)
    local ended = assert(command:wait { timeout = 30 })
    return command:logs(), ended.exit_code
  end

  local function random_bytes(size)
    local pieces = {}
    for index = 1, math.ceil(size / 256) do pieces[index] = core.random(256) end
    return table.concat(pieces):sub(1, size)
  end

  -- Waits until so many scripts pass input on, and no pipe has a name.
  local function wait_for_scripts(count)
    local seen
    wait_until(function()
      collectgarbage()
      seen = assert(sandbox:run("ls -A /tmp \"$TMPDIR\" | grep -c fifo; ps -eo args | grep -c '[i]flag=fullblock'")).stdout
      return seen == ("0\n%d\n"):format(count)
    end, function() return "pipes and scripts: " .. seen end)
  end

  it("is what is written, up to its end", function()
    local command = start("sort; echo sorted; exit 7")
    assert.is_true(command:write "b\nc\n")
    assert.is_true(command:write "")
    assert.is_true(command:write "a\n")
    assert.is_true(command:close_stdin())
    assert.is_true(command:close_stdin())
    assert.same({ "a\nb\nc\nsorted\n", 7 }, { output_of(command) })
  end)

  it("leaves no pipe when the command cannot be started", function()
    wait_for_scripts(0)
    local command, err = sandbox:start("cat", { stdin = true, cwd = "/no/such/directory" })
    assert.is_nil(command)
    assert.equal(400, err.status)
    wait_for_scripts(0)
  end)

  it("may be empty", function()
    local command = start { "wc", "-c" }
    assert.is_true(command:close_stdin())
    assert.equal("0\n", (output_of(command)))
  end)

  it("reaches the command while it runs", function()
    local command = start("while read -r line; do echo \"got $line\"; done")
    local text = ""
    local events = command:events()
    for line = 1, 3 do
      assert.is_true(command:write(line .. "\n"))
      while not text:find(("got %d\n"):format(line)) do text = text .. assert(events:next()).text end
    end
    assert.is_true(command:close_stdin())
    assert.equal("got 1\ngot 2\ngot 3\n", text)
    assert.equal(0, select(2, output_of(command)))
  end)

  it("carries any bytes, in pieces of any size", function()
    local bytes = random_bytes(700001)
    local command = start("cat >./tmp/copy")
    local from, size = 1, 1
    while from <= #bytes do
      assert.is_true(command:write(bytes:sub(from, from + size - 1)))
      from, size = from + size, size * 3
    end
    assert.is_true(command:close_stdin())
    assert.equal(0, select(2, output_of(command)))
    assert.is_true(bytes == assert(sandbox.files:read "/tmp/copy"))
  end)

  it("leaves environment, directory, user and the shell's name as they are without it", function()
    local command = start("echo \"$0 $# $GREETING\"; pwd; cat", { env = { GREETING = "hi", TMPDIR = "/nowhere" }, cwd = "/work" })
    assert.is_true(command:write "end\n")
    assert.is_true(command:close_stdin())
    assert.matches("^bash 0 hi\n[^\n]*/work\nend\n$", (output_of(command)))
  end)

  it("waits for a command that does not read, and says when the time is over", function()
    local command = start("while [ ! -e ./tmp/go ]; do sleep 0.05; done; wc -c")
    local piece, sent = ("x"):rep(300000), 0
    local ok, err
    repeat
      ok, err = command:write(piece, { timeout = 0.2 })
      if ok then sent = sent + 1 end
    until not ok
    assert.same({ "timeout", "timeout", "command:write" }, { err.kind, err.timeout_option, err.op })
    ok, err = command:close_stdin { timeout = 0.01 }
    assert.is_nil(ok)
    assert.same({ "timeout", "command:close_stdin" }, { err.kind, err.op })
    assert(sandbox.files:write("/tmp/go", ""))
    assert.is_true(command:close_stdin { timeout = 20 })
    -- Of the write that took too long, some frames may have arrived.
    local size = tonumber((output_of(command)))
    assert.is_true(size >= sent * 300000 and size <= (sent + 1) * 300000, size)
  end)

  it("ends with an error when the command has closed it, or has ended", function()
    for _, line in ipairs { "exec <&-; sleep 30", "true" } do
      local command = start(line)
      local ok, err
      repeat
        ok, err = command:write "x"
        opensandbox.sleep(0.01)
      until not ok
      assert.same({ "state", "stdin_closed", "command:write" }, { err.kind, err.code, err.op })
      assert.is_true(command:close_stdin())
      command:kill()
    end
  end)

  it("may be written by several tasks at once", function()
    local command = start("sort -n")
    local tasks = {}
    for index = 1, 20 do
      tasks[index] = opensandbox.spawn(function() assert(command:write(index .. "\n")) end)
    end
    for _, task in ipairs(tasks) do task:wait() end
    assert.is_true(command:close_stdin())
    local expected = {}
    for index = 1, 20 do expected[index] = index .. "\n" end
    assert.equal(table.concat(expected), (output_of(command)))
  end)

  it("loses and doubles no byte when connections are cut", function()
    local relay = cutting_relay.start { port = fixture:execd().port, seed = 13, cuts = 30, bytes = 600000, ms = 80 }
    local handle = assert(sandbox:handle())
    local execd = handle.endpoints["44772"]
    execd.url = execd.url:gsub(":%d+", ":" .. relay.port, 1)
    local command = start("cat >./tmp/copy", nil, assert(client:connect(handle, { wait = false })))
    local bytes = random_bytes(100003)
    local count = 0
    repeat
      assert(command:write(bytes))
      count = count + 1
    until relay.cuts() == 30
    assert(command:close_stdin())
    assert.equal(0, select(2, output_of(command)))
    assert.is_true(bytes:rep(count) == assert(sandbox.files:read "/tmp/copy"))
    wait_for_scripts(0) -- the delete passes the relay, too
    relay.stop()
  end)

  it("leaves no file and no session behind", function()
    wait_for_scripts(0)
    local command = start("cat")
    wait_for_scripts(1)
    assert.is_true(command:close_stdin())
    wait_for_scripts(0)
    local function drop() start("cat") end
    drop() -- the object is collected, which ends the input
    wait_for_scripts(0)
  end)

  it("leaves no pipe and no script when its start is cancelled, at whatever moment", function()
    wait_for_scripts(0)
    local begun = core.now()
    start("cat"):close_stdin()
    local duration = core.now() - begun
    for moment = 0, 29 do
      local task = opensandbox.spawn(function() return sandbox:start("cat", { stdin = true }) end)
      opensandbox.sleep(duration * moment / 30)
      task:cancel()
      local command = task:wait()
      if command then command:close_stdin() end
    end
    wait_for_scripts(0)
  end)

  it("stops the command and removes the pipe at any path when the start is cancelled before the command opens it", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.path == "/pty" then
          state.pipe = request.body:match("%.opensandbox%-%x+%.fifo")
          connection:respond(201, { ["Content-Type"] = "application/json" }, '{"session_id":"x"}')
        elseif request.path:find("/ws") then -- the script reports a path once
          local answers = websocket.frame("text", '{"type":"connected"}')
          if not state.has_reported then answers = answers .. websocket.frame("binary", "\1ready /var/" .. state.pipe .. "\n") end
          state.has_reported = true
          websocket.accept(request, connection, { with = answers })
        elseif request.path == "/command" then
          connection:start(200, { ["Content-Type"] = "text/event-stream" })
          connection:event { type = "init", text = "c1", timestamp = 1 }
          connection:event { type = "execution_complete", execution_time = 1, timestamp = 2 }
          connection:finish()
        else
          connection:respond(200, {}, "")
        end
      end
    ]]
    local other = opensandbox.new(server.url, "k")
    local handle = { id = "s", url = other.url, endpoints = { ["44772"] = { url = server.url, headers = {} } } }
    local from = assert(other:connect(handle, { wait = false }))
    local function requests_of(method, path)
      local list = {}
      for _, request in ipairs(server:requests()) do
        if request.method == method and request.path:find(path, 1, true) then list[#list + 1] = request.path end
      end
      return list
    end
    -- Cancels a start while it waits after so many requests, and returns the request that removes its pipe.
    local function removal_of_start(method, path, count)
      local task = opensandbox.spawn(function() return from:start("cat", { stdin = true }) end)
      wait_until(function() return #requests_of(method, path) == count end, "the request " .. path)
      opensandbox.sleep(0.1) -- the response arrives
      task:cancel()
      local command, err = task:wait()
      assert.is_nil(command)
      assert.same({ "cancelled", "sandbox:start" }, { err.kind, err.op })
      wait_until(function() return #requests_of("DELETE", "/files?") == count end, "the pipe is removed")
      assert.equal(count, #requests_of("DELETE", "/pty/x"))
      return (requests_of("DELETE", "/files?")[count]:gsub("%%2F", "/"):gsub("%.opensandbox%-%x+%.fifo", "PIPE"))
    end
    assert.equal("/files?path=/tmp/PIPE&path=/var/PIPE", removal_of_start("POST", "/command", 1))
    wait_until(function() return #requests_of("DELETE", "/command?id=c1") == 1 end, "the command is stopped")
    assert.equal("/files?path=/tmp/PIPE&path=%24TMPDIR/PIPE", removal_of_start("GET", "/ws", 2))
    assert.equal(1, #requests_of("POST", "/command"))
    other:close()
    server:stop()
  end)

  it("raises the caller's mistakes", function()
    local command = assert(sandbox:start("true"))
    assert.has_error(function() command:write "x" end, "command:write: the command was not started here with stdin = true")
    assert.error_matches(function() command:close_stdin() end, "was not started here with stdin = true")
    assert.error_matches(function() sandbox:start("cat", { stdin = "text" }) end, "option 'stdin' must be true or false")
    assert.error_matches(function() sandbox:start({ "cat" }, { stdin = true, shell = false }) end, "needs the shell")
    assert.error_matches(function() start("cat"):write(1) end, "the input must be a string")
  end)

  it("needs an execd that runs the commands of terminal sessions", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.path == "/pty" then
          connection:respond(201, { ["Content-Type"] = "application/json" }, '{"session_id":"x"}')
        elseif request.path:find("/ws") then
          websocket.accept(request, connection, { with = websocket.frame("text", '{"type":"connected"}') })
        else
          connection:respond(200, {}, "")
        end
      end
    ]]
    local other = opensandbox.new(server.url, "k", { timeout = 0.3 })
    local handle = { id = "s", url = other.url, endpoints = { ["44772"] = { url = server.url, headers = {} } } }
    local command, err = assert(other:connect(handle, { wait = false })):start("cat", { stdin = true })
    assert.is_nil(command)
    assert.same({ "timeout", "sandbox:start" }, { err.kind, err.op })
    assert.matches("^the script .* was not started in time: timeout of 0%.3 s", err.message) -- no command was started
    assert.matches("1%.0%.19", err.hint)
    other:close()
    local methods = {}
    for _, request in ipairs(server:requests()) do methods[request.method .. " " .. request.path:gsub("%?.*", "")] = true end
    assert.is_true(methods["DELETE /pty/x"])
    assert.is_nil(methods["POST /command"])
    server:stop()
  end)
end)

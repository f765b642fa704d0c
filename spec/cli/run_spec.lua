--- `opensandbox run` and `exec`: output as it arrives, input, exit codes, files in and out, and what stays after an end of any kind.

local process = require "spec.support.process"
local program = require "spec.support.program"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

describe("a command of opensandbox", function()
  local server, id

  setup(function()
    server = process.devserver { grace = 0.1 }
    id = program.check(server, { "create", "python:3.12", "--lifetime", "1h", "-m", "kept=yes" }):gsub("\n", "")
  end)
  teardown(function() server:stop() end)

  local function exec(...)
    return program.run(server, { "exec", id, ... })
  end

  -- The ids of the sandboxes that the test did not make itself.
  local function others()
    return (program.check(server, { "ls", "-q" }):gsub(id:gsub("%-", "%%-") .. "\n", ""))
  end

  local function is_alone()
    uv_loop.wait_until(function() return others() == "" end, "the sandbox is deleted")
  end

  it("runs in a sandbox of its own, which is deleted", function()
    local result = program.run(server, { "run", "python:3.12", "-e", "A=1", "--", "sh", "-c", 'echo "$A"; echo no >&2; exit 3' })
    assert.same({ 3, "1\n", "no\n" }, { result.code, result.out, result.err })
    assert.equal("", others())
  end)

  it("takes one argument as a line for the shell, and several as they are", function()
    assert.equal("a b\n2\n", exec("--", "echo 'a b'; echo $((1 + 1))").out)
    assert.equal("a  b $HOME *\n", exec("--", "echo", "a  b $HOME", "*").out)
  end)

  it("exits with its code, with 128 and the signal, with 124 after the time limit, and with 125 without a sandbox", function()
    assert.equal(7, exec("--", "exit 7").code)
    assert.equal(137, exec("--", "kill -9 $$").code)
    local late = exec("--timeout", "0.5s", "--", "sleep", "20")
    assert.equal(124, late.code)
    assert.truthy(late.err:find("stopped after 0.5 s", 1, true), late.err)
    assert.equal(125, program.run(server, { "exec", "no-such", "--", "true" }).code)
    assert.equal(2, program.run(server, { "run", "python:3.12" }).code)
    assert.equal("", others())
  end)

  it("has its directory, its variables and its user", function()
    local result = exec("-w", "/tmp", "-e", "A=x y", "--", 'pwd; echo "$A"')
    assert.truthy(result.out:find("tmp\nx y\n$"), result.out)
    local wrong = exec("-u", "root", "--", "id")
    assert.equal(2, wrong.code)
    assert.truthy(wrong.err:find("write UID or UID:GID", 1, true), wrong.err)
  end)

  it("shows its output as it arrives", function()
    local child = program.start(server, { "exec", "-n", id, "--", "echo one; until [ -e go ]; do sleep 0.05; done; echo two" })
    assert.equal("one", child:read_line(20))
    assert.is_true(child:running())
    assert.equal(0, exec("--", "touch go").code)
    assert.equal("two", child:read_line(20))
    assert.equal(0, child:wait(20))
    child:stop()
  end)

  it("reads our standard input, of any bytes and any length", function()
    local bytes = ("0123456789abcde\n"):rep(65536)
    local result = program.run(server, { "exec", id, "--", "wc -c; cat" }, { stdin = bytes })
    assert.equal(("%d\n"):format(#bytes), result.out)
    result = program.run(server, { "exec", id, "--exact", "--", "cat" }, { stdin = "\0\255\r\nx" })
    assert.equal("\0\255\r\nx", result.out)
    result = program.run(server, { "exec", "-n", id, "--", "cat; echo end" })
    assert.equal("end\n", result.out)
  end)

  it("explains for what it waits if the standard input stays open", function()
    local child = program.start(server, { "exec", id, "--", "cat" })
    local text = "when the standard input ends; -n gives it no input"
    uv_loop.wait_until(function() return child:stderr_text():find(text, 1, true) end, text)
    assert(child:write("late"))
    child:close_input()
    assert.equal(0, child:wait(20))
    assert.equal("late\n", child:output())
    child:stop()
  end)

  it("copies a directory in and back, a file only in, and a directory only back", function()
    local directory = temporary.directory()
    local both, results = directory .. "/both", directory .. "/results"
    assert(uv.fs_mkdir(both, 448))
    local file = temporary.file("input", directory)
    local handle = assert(io.open(both .. "/a", "w"))
    handle:write("old")
    handle:close()
    local result = program.run(server, { "run", "python:3.12", "-v", both .. ":/tmp/both", "-v", file .. ":/tmp/file:ro",
      "-v", results .. ":/tmp/results:out", "--",
      "cat ./tmp/both/a ./tmp/file; echo new >./tmp/both/b; echo lost >./tmp/file; mkdir ./tmp/results; "
        .. "echo r >./tmp/results/r; exit 5" })
    assert.same({ 5, "oldinput\n", "" }, { result.code, result.out, result.err })
    assert.same({ "a", "b" }, temporary.names(both))
    assert.same({ "r" }, temporary.names(results))
    assert.equal("input", assert(io.open(file)):read("*a"))
    temporary.remove(directory)
    local missing = program.run(server, { "run", "python:3.12", "-v", directory .. ":/x", "--", "true" })
    assert.equal(2, missing.code)
    assert.truthy(missing.err:find(directory, 1, true), missing.err)
  end)

  it("leaves local files alone that the command has not changed, and leaves out what .gitignore names", function()
    local directory = temporary.directory()
    for name, content in pairs { same = "1", changed = "1", ignored = "1", [".gitignore"] = "ignored\n" } do
      local handle = assert(io.open(directory .. "/" .. name, "w"))
      handle:write(content)
      handle:close()
    end
    local before = uv.fs_stat(directory .. "/same")
    local result = program.run(server, { "run", "--gitignore", "python:3.12", "-v", directory .. ":/tmp/w", "--",
      "ls ./tmp/w; echo 2 >./tmp/w/changed; touch ./tmp/w/same" })
    assert.same({ 0, "changed\nsame\n" }, { result.code, result.out })
    local after = uv.fs_stat(directory .. "/same")
    assert.same({ before.ino, before.mtime }, { after.ino, after.mtime })
    assert.equal(2, uv.fs_stat(directory .. "/changed").size)
    temporary.remove(directory)
  end)

  it("keeps the sandbox if it is told so", function()
    local result = program.run(server, { "run", "--keep", "python:3.12", "--", "echo kept >note" })
    local kept = result.err:match("kept sandbox (%S+)\n$")
    assert.equal("kept\n", program.check(server, { "exec", kept, "--", "cat note" }))
    program.check(server, { "kill", kept })
  end)

  local ENDING_SIGNALS = { "hup", "int", "quit", "usr1", "usr2", "alrm", "term", "xcpu", "xfsz", "vtalrm", "prof" }
  for _, short in ipairs(ENDING_SIGNALS) do
    local name, number = "sig" .. short, uv.constants["SIG" .. short:upper()]
    it("is stopped and its sandbox deleted by " .. name .. ", which ends the program", function()
      local env = process.module_paths()
      env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
      local child = process.start { env = env, argv = { "sh", "-c", 'ulimit -c 0; exec "$@"', "sh", -- no file of its memory
        process.lua(), "bin/opensandbox", "run", "-n", "python:3.12", "--", "echo started; sleep 100" } }
      assert.equal("started", child:read_line(20))
      child:kill(name)
      local code, signal = child:wait(20)
      assert.same({ 0, number }, { code, signal })
      assert.equal("", child:stderr_text())
      child:stop()
      is_alone()
    end)
  end

  it("cleans up when timeout(1) sends the signal twice", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
    local child = process.start { env = env, argv = { "timeout", "1.5", process.lua(), "bin/opensandbox", "run", "-n",
      "python:3.12", "--", "sleep 100" } }
    assert.equal(124, child:wait(20))
    child:stop()
    is_alone()
  end)

  it("works without standard streams", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
    local command = process.lua() .. " bin/opensandbox exec " .. id .. " -- "
    local child = process.start { env = env, argv = { "sh", "-c", command .. "'cat; echo end' <&-" } }
    assert.equal(0, child:wait(20))
    assert.equal("end\n", child:output())
    child:stop()
    child = process.start { env = env, argv = { "sh", "-c", command .. "'echo lost; exit 3' <&- >&- 2>&-; echo $?" } }
    assert.equal("3", child:read_line(20))
    child:stop()
  end)

  it("leaves no sandbox if the signal comes while it is created", function()
    local slow = process.devserver { grace = 0.1, args = { "--create-delay", "2" } }
    local child = program.start(slow, { "run", "-n", "python:3.12", "--", "true" })
    uv_loop.wait_until(function() return program.check(slow, { "ls", "-q" }) ~= "" end, "the create is under way")
    child:kill("sigterm")
    local _, signal = child:wait(20)
    assert.equal(15, signal)
    child:stop()
    uv_loop.wait_until(function() return program.check(slow, { "ls", "-q" }) == "" end, "the sandbox is deleted")
    slow:stop()
  end)

  it("is stopped in a sandbox that stays, by Ctrl-C in a terminal", function()
    local terminal = program.terminal(server, { "exec", id, "--",
      "touch running; trap 'rm running; exit' TERM; echo started; sleep 100 & wait" })
    terminal:expect("started")
    terminal:write("\3")
    local _, signal = terminal:wait()
    assert.equal(2, signal)
    terminal:close()
    uv_loop.wait_until(function() return exec("--", "test -e running").code == 1 end, "the command is stopped")
  end)

  it("ends when nobody reads its output any more, without a sandbox and without a message", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
    local child = process.start { env = env, argv = { "bash", "-c", process.lua()
      .. [[ bin/opensandbox run -n python:3.12 -- 'while echo y; do sleep 0.01; done' | head -n 2; echo "${PIPESTATUS[0]}"]] } }
    assert.equal(0, child:wait(30))
    assert.equal("y\ny\n141\n", child:output())
    assert.equal("", child:stderr_text())
    child:stop()
    is_alone()
  end)

  -- Runs a line of a shell, in which "$0" is the program. Returns its exit code, and what it printed to standard error.
  local function shell(line)
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.PROGRAM = server.url, server.key, process.lua() .. " bin/opensandbox"
    local child = process.start { env = env, argv = { "sh", "-c", (line:gsub("%$0", "$PROGRAM")) } }
    local code, text = child:wait(30), child:stderr_text()
    child:stop()
    return code, text
  end

  it("fails when its output cannot be written, with a code that is none of the command", function()
    if not uv.fs_stat("/dev/full") then return pending("no /dev/full") end
    local code, text = shell("$0 >/dev/full")
    assert.equal(1, code)
    assert.truthy(text:find("cannot write the output: ", 1, true), text)
    code, text = shell("$0 exec -n " .. id .. " -- echo x >/dev/full")
    assert.equal(125, code)
    assert.truthy(text:find("cannot write the output: ", 1, true), text)
  end)

  it("fails when its input cannot be read, which is not the end of the input", function()
    local code, text = shell("$0 exec " .. id .. " -- 'cat; echo end' <.")
    assert.equal(125, code)
    assert.truthy(text:find("cannot read the standard input: ", 1, true), text)
    code, text = shell("$0 cp - " .. id .. ":/work/never <.")
    assert.equal(1, code)
    assert.truthy(text:find("opensandbox: cannot read the standard input: ", 1, true), text)
  end)
end)

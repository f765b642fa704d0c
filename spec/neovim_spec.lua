--- The library in a real Neovim, in luv scripts, and in a tree that was built but not installed.

local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local uv_loop = require "spec.support.uv_loop"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local websocket = require "spec.hosts.websocket"

local GRACE = 0.2    -- seconds that a command's stream stays open after its end
local TRIES = 3      -- the best of which counts, where time is measured: the machine may be busy with something else
local STEADY = 20    -- milliseconds
local ROOT = uv.cwd()
local ABI = rawget(_G, "jit") and "jit" or _VERSION:match("%d+%.%d+")

local server, client, elsewhere, scratch

local function start()
  server = process.devserver { grace = GRACE }
  client = opensandbox.new(server.url, server.key)
  elsewhere, scratch = temporary.directory(), temporary.directory()
end

local function stop()
  client:close()
  server:stop()
  assert(uv.fs_rmdir(elsewhere))
  temporary.remove(scratch) -- Neovim 0.12 leaves a directory in its TMPDIR
end

-- Runs a program to its end: exit code, output, errors.
local function run(argv, env, cwd)
  local child = process.start { argv = argv, env = env, cwd = cwd }
  local code = child:wait(30)
  local output = child:output()
  child:stop()
  return code, output, child:stderr_text()
end

local function is_gone(id)
  local info, err = client:get_sandbox(id)
  assert.is_true(info ~= nil or err.status == 404, tostring(err))
  return info == nil
end

-- Calls `try` until it gives true, at most TRIES times; else fails with what it said last.
local function best_of(try)
  local ok, text
  for _ = 1, TRIES do
    ok, text = try()
    if ok then return end
  end
  error(text, 2)
end

-- A Neovim with nothing but the tree on its runtime path, somewhere else, which runs a scenario of spec/hosts/neovim.lua. It writes no
-- swap files, which would be in the home directory.
local function start_neovim(scenario, env)
  local full = {
    LUA_PATH = false, LUA_CPATH = false, NVIM_LOG_FILE = "/dev/null", SCENARIO = scenario, OPENSANDBOX_ROOT = ROOT,
    OPEN_SANDBOX_DOMAIN = server.url, OPEN_SANDBOX_API_KEY = server.key, TMPDIR = scratch,
  }
  for name, value in pairs(env or {}) do full[name] = value end
  return process.start { cwd = elsewhere, env = full, argv = {
    "nvim", "--headless", "--clean", "-n", "-u", "NONE", "--cmd", "let &rtp .= ',' . escape($OPENSANDBOX_ROOT, ',')",
    "-c", "lua dofile(vim.env.OPENSANDBOX_ROOT .. '/spec/hosts/neovim.lua')",
  } }
end

-- The next thing that the scenario says.
local function heard(child)
  local line, problem = child:read_line(20)
  local seen = line and json.decode(line)
  if not seen or seen.problem then
    child:stop()
    error(("%s\n%s"):format(seen and seen.problem or line or problem, child:stderr_text()), 3)
  end
  return seen
end

-- What :checkhealth shows, in the form of Neovim 0.7: "- OK: text". It is "- OK text" since 0.9, and "- ✅ OK text" since 0.11.
local function health_text(text)
  return (text:gsub("%- [\128-\255 ]*(%u+):? ", "- %1: "))
end

local function in_neovim(scenario, env)
  local child = start_neovim(scenario, env)
  local seen = heard(child)
  local code = child:wait(5)
  child:stop()
  assert.equal(0, code, child:stderr_text())
  return seen
end

-- Makes the steps of the scenario `terminal`.
local function at_terminal(steps, env)
  local full = { STEPS = json.encode(steps) }
  for name, value in pairs(env or {}) do full[name] = value end
  local child = start_neovim("terminal", full)
  for _ in ipairs(steps) do heard(child) end
  local code = child:wait(5)
  child:stop()
  assert.equal(0, code, child:stderr_text())
end

-- Returns the first of the programs that a sandbox of the development server has.
local function installed(names)
  for _, name in ipairs(names) do
    for _, directory in ipairs { "/usr/bin/", "/bin/" } do
      if uv.fs_access(directory .. name, "X") then return name end
    end
  end
end

-- Returns lines with the numbers, as seq writes them.
local function sequence(first, last)
  local lines = {}
  for number = first, last do lines[#lines + 1] = number end
  return table.concat(lines, "\n")
end

-- Programs that use a terminal, at one of 15 lines: the steps with each.
local programs = {
  -- Where there is no Vim, Debian runs Neovim by that name, whose default is to show a line with the status.
  { names = { "vim", "vim.tiny", "nvim" }, arguments = "--clean -n --cmd 'set laststatus=1' text", steps = {
    { shows = "~\n~\n" },
    { keys = "ihello<Esc>", shows = "^hello" .. ("\n~"):rep(13) .. "\n[^~]+$" },
    { keys = "yy3pGidear <Esc>", shows = "^hello\nhello\nhello\ndear hello" .. ("\n~"):rep(10) .. "\n[^~]+$" },
    { keys = ":wq<CR>", shows = "%[exit code 0%]" },
    { ex = "SandboxTerminal cat text", shows = "^hello\nhello\nhello\ndear hello\n+%[exit code 0%]" },
  } },
  { names = { "top" }, arguments = "", steps = {
    { shows = "oad average.*\n *PID.*COMMAND\n *%d+ %a+ " },
    { keys = "q", shows = "%[exit code 0%]" },
  } },
  { names = { "python3" }, arguments = "-i", steps = {
    { shows = "\n>>>\n" },
    { keys = "6 * 7<CR>", shows = "\n>>> 6 %* 7\n42\n>>>\n" },
    { keys = "<Up> + 1<CR>", shows = "\n>>> 6 %* 7\n42\n>>> 6 %* 7 %+ 1\n43\n>>>\n" },
    { keys = "while True: pass<CR><CR>", shows = "\n%.%.%.\n" },
    { keys = "<C-c>", shows = "\nKeyboardInterrupt\n>>>" },
    { keys = "exit(5)<CR>", shows = "%[exit code 5%]" },
  } },
  { names = { "less" }, arguments = "numbers", before = "SandboxTerminal seq 100 >numbers", steps = {
    { shows = "^" .. sequence(1, 14) .. "\n[^\n]*numbers[^\n]*$" },
    { keys = "G", shows = "^" .. sequence(87, 100) .. "\n%(END%)$" },
    { keys = "?50<CR>", shows = "^" .. sequence(50, 63) .. "\n:$" },
    { keys = "q", shows = "%[exit code 0%]" },
  } },
}

local function what_neovim_lacks()
  if not pcall(run, { "nvim", "--version" }) then return "nvim is not installed (Debian: neovim)" end
  if not uv.fs_stat("build/jit/opensandbox/core.so") and run { "make", "-s", "LUA=luajit", "core" } ~= 0 then
    return "the core cannot be built for LuaJIT"
  end
end

-- Neovim has its own Lua, whichever runs these tests: once is enough.
if ABI == "jit" then
  local lacking = what_neovim_lacks()

  describe("in Neovim", function()
    setup(start)
    teardown(stop)

    local function test(name, fn)
      it(name, function()
        if lacking then return pending(lacking) end
        fn()
      end)
    end

    test("fifty commands at once take as long as one, and the editor is never held up #alone", function()
      best_of(function()
        local seen = in_neovim "workflow"
        assert.equal("some bytes\n", seen.text)
        for i = 1, 50 do assert.equal(tostring(i), seen.outputs[i]) end
        assert.equal("cancelled", seen.cancelled)
        assert.is_true(seen.stopped)
        assert.same({ "ready got it 5", "a b " }, { seen.terminal, seen.sorted })
        assert.equal('{"a":{}}', seen.empty_object)
        local ok = seen.seconds <= 1.3 * seen.slowest + 0.1 and seen.beat.late <= STEADY
        return ok, ("%.3f s, the slowest %.3f s; a beat %.1f ms late"):format(seen.seconds, seen.slowest, seen.beat.late)
      end)
    end)

    test("a WebSocket is received from while it is sent to, and the editor is never held up #alone", function()
      local echo = fault_server.start(websocket.server)
      best_of(function()
        local seen = in_neovim("websocket", { WEBSOCKET_URL = echo.url })
        local numbers = {}
        for index = 1, 50 do numbers[index] = tostring(index) end
        assert.equal(table.concat(numbers, " "), seen.outputs)
        assert.is_true(seen.pongs >= 10, seen.pongs .. " pongs")
        assert.same({ "cancelled", 1000 }, { seen.cancelled, seen.closed })
        return seen.echo <= 0.01 and seen.beat.late <= STEADY,
          ("the quickest echo took %.1f ms, a beat was %.1f ms late"):format(seen.echo * 1000, seen.beat.late)
      end)
      echo:stop()
    end)

    test(":qa during a command is at once, and takes the sandbox with it #alone", function()
      best_of(function()
        local child = start_neovim "quit"
        local seen = heard(child)
        local asked = uv_loop.now()
        local code = child:wait(10)
        local took = uv_loop.now() - asked
        child:stop()
        assert.equal(0, code, child:stderr_text())
        assert.is_true(is_gone(seen.id))
        return took < 1000 and seen.beat.count >= 80 and seen.beat.late <= STEADY,
          ("quit after %.0f ms; %d beats, one %.1f ms late"):format(took, seen.beat.count, seen.beat.late)
      end)
    end)

    test("callbacks for output may call the whole API", function()
      local seen = in_neovim "callbacks"
      assert.is_false(seen.fast)
      assert.same({ "", "one", "three" }, seen.lines)
      assert.equal("two\n", seen.stderr)
    end)

    test("a call outside of a task waits, while the editor and the tasks go on #alone", function()
      best_of(function()
        local seen = in_neovim "blocking"
        assert.equal("done\n", seen.stdout)
        assert.equal(2, seen.others)
        -- Neovim notices at once what goes on: twenty times 100 ms would be two seconds.
        return seen.seconds >= 0.5 and seen.seconds < 1 and seen.twenty < 1 and seen.beat.late <= STEADY,
          ("%.3f s, twenty %.3f s, a beat %.1f ms late"):format(seen.seconds, seen.twenty, seen.beat.late)
      end)
    end)

    test("Ctrl-C ends such a wait with an error at the caller's line, and the command", function()
      local seen = in_neovim "interrupt"
      assert.is_true(seen.seconds < 10)
      assert.truthy(seen.problem_raised, "nothing was raised")
      assert.truthy(seen.problem_raised:find(("neovim.lua:%d: "):format(seen.line), 1, true), seen.problem_raised)
      assert.truthy(seen.problem_raised:find("interrupted", 1, true), seen.problem_raised)
      assert.is_true(seen.stopped)
    end)

    test("a fast event may start tasks, and is told at its line what it must not do", function()
      local seen = in_neovim "fast"
      assert.is_true(seen.fast)
      assert.is_false(seen.raised)
      assert.truthy(seen.text:find(("neovim.lua:%d: "):format(seen.line), 1, true), seen.text)
      assert.truthy(seen.text:find("fast event", 1, true), seen.text)
      assert.equal("from a task\n", seen.stdout)
      assert.is_true(is_gone(seen.id)) -- it was there when Neovim quit
    end)

    test("an error in a task that nobody waits for is shown", function()
      local seen = in_neovim "unheard"
      assert.truthy(seen.text:find("nobody waited for it", 1, true), seen.text)
      assert.truthy(seen.text:find("neovim.lua:%d+: oops"), seen.text)
    end)

    -- Neovim 0.11 and lua-cjson both export strbuf_*: a lua-cjson that is loaded into it writes garbage.
    test("requests are right where another plugin has loaded lua-cjson", function()
      if not pcall(require, "cjson") then return pending("lua-cjson is not installed") end
      local seen = in_neovim("cjson", { LUA_CPATH = package.cpath })
      assert.same({ "vim.json", "loaded", "a\"é\n" }, { seen.codec, seen.cjson, seen.stdout })
    end)

    test("nothing of ours is active on the loop once all tasks have ended", function()
      local seen = in_neovim "handles"
      assert.is_true(seen.made > 0 and seen.made < 3, ("%d handles were made"):format(seen.made))
    end)

    test(":checkhealth finds the parts and the server, and does not show the key", function()
      local text = health_text(in_neovim("health").text)
      for _, expected in ipairs {
        "OK: C core: " .. ROOT .. "/build/jit/opensandbox/core.so", "libcurl/", "OK: JSON: vim.json", "OK: event loop: uv",
        "OPEN_SANDBOX_API_KEY is set", "OK: the server responds: " .. server.url,
      } do assert.truthy(text:find(expected, 1, true), text) end
      assert.falsy(text:find("ERROR", 1, true), text)
      assert.falsy(text:find(server.key, 1, true), text)
    end)

    test(":checkhealth does not hang where the server is silent", function()
      local silent = uv.new_tcp() -- it listens, and nobody takes the connection
      assert(silent:bind("127.0.0.1", 0))
      assert(silent:listen(16, function() end))
      local url = ("http://127.0.0.1:%d"):format(silent:getsockname().port)
      local seen = in_neovim("health", { OPEN_SANDBOX_DOMAIN = url, OPEN_SANDBOX_API_KEY = "" })
      uv_loop.close(silent)
      assert.truthy(health_text(seen.text):find("WARNING: list_sandboxes", 1, true), seen.text)
      assert.truthy(seen.text:find("OPEN_SANDBOX_API_KEY is not set", 1, true), seen.text)
      assert.is_true(seen.seconds < 8, seen.seconds)
    end)

    test("the example runs the selected lines, shows output as it comes, and can be stopped", function()
      local seen = in_neovim "example"
      assert.equal("one\n", seen.first)
      assert.truthy(seen.whole:find("^one\ntwo\n%[exit code 3 after [%d.]+ s%]$"), seen.whole)
      assert.truthy(seen.stopped:find("^begun\n%[sandbox:run: the task was cancelled"), seen.stopped)
    end)

    test("the notebook keeps variables from block to block, shows output as it comes, and can be interrupted", function()
      local seen = in_neovim "notebook"
      assert.equal("  first", seen.first)
      assert.equal("  first\n  42", seen.whole)
      assert.truthy(seen.interrupted:find("begun", 1, true), seen.interrupted)
      assert.is_nil(seen.interrupted:find("not this", 1, true))
    end)

    test("the terminal is a shell: Ctrl-C stops a job, a resize arrives, and the exit code is shown", function()
      at_terminal {
        { ex = "SandboxTerminal", keys = "echo $((6 * 7))<CR>", shows = "\n42\n" }, -- typed before there is a shell
        { keys = "echo beg''un; sleep 60; echo not this<CR>", shows = "\nbegun\n" },
        { keys = "<C-c>", shows = "%^C" },
        { keys = "echo status $?<CR>", shows = "\nstatus 130\n" },
        { keys = "stty size<CR>", shows = "\n15 80\n" },
        { keys = "sh -c 'trap \"stty size\" WINCH; echo ready; while :; do sleep 0.1; done'<CR>", shows = "\nready\n" },
        { ex = "set columns=100", shows = "\n15 100\n" },
        { ex = "resize 12", shows = "\n12 100\n", needs = "##WinResized" },
        { keys = "<C-c>", shows = "%^C.*%^C" },
        { ex = "resize 10", keys = "stty size<CR>", shows = "stty size\n10 100\n" }, -- Neovim 0.7 has no event for it
        { keys = "exit 3<CR>", shows = "\n%[exit code 3%]" },
      }
    end)

    test("a terminal is closed with its buffer, and the sandbox of all terminals with the last one", function()
      at_terminal {
        { ex = "SandboxTerminal", keys = "echo $$ >pid; echo writ''ten<CR>", shows = "\nwritten\n" },
        { ex = "SandboxTerminal", keys = "echo wait''ing; while kill -0 $(cat pid); do sleep 0.05; done; echo go''ne<CR>",
          shows = "\nwaiting\n", sandboxes = 1 },
        { ex = "wincmd p | bwipeout! | wincmd b", shows = "\ngone\n", sandboxes = 1 },
        { ex = "bwipeout!", sandboxes = 0 },
        { ex = "SandboxTerminal echo again", shows = "^again\n+%[exit code 0%]", sandboxes = 1 },
        { ex = "bwipeout", sandboxes = 0 },
      }
    end)

    test("a terminal that is closed while its sandbox is created leaves none, and the next one has its own", function()
      at_terminal {
        { ex = "SandboxTerminal", sandboxes = 1 },
        { ex = "bwipeout! | SandboxTerminal echo again", shows = "^again\n+%[exit code 0%]", sandboxes = 1 },
      }
    end)

    test("the terminal shows why there is no sandbox", function()
      at_terminal({
        { ex = "SandboxTerminal", shows = "^\n%[create: .*HTTP 401" },
        { ex = "bwipeout" },
      }, { OPEN_SANDBOX_API_KEY = "wrong" })
    end)

    test("the selected lines run at a terminal, where they can ask", function()
      at_terminal {
        { ex = "set filetype=sh | call setline(1, ['echo not this', 'printf \"name? \"; read name', 'echo hello $name; exit 4'])" },
        { ex = "2,3SandboxTerminalRun", shows = "^name%?\n" },
        { keys = "world<CR>", shows = "^name%? world\nhello world\n+%[exit code 4%]" },
      }
    end)

    for _, program in ipairs(programs) do
      local name = installed(program.names)
      test(("%s works in the terminal"):format(program.names[1]), function()
        if not name then return pending(program.names[1] .. " is not installed") end
        local steps = { { keys = ("<C-\\><C-n>:SandboxTerminal %s %s<CR>"):format(name, program.arguments) } }
        if program.before then table.insert(steps, 1, { ex = program.before, shows = "%[exit code 0%]" }) end
        for _, step in ipairs(program.steps) do steps[#steps + 1] = step end
        at_terminal(steps)
      end)
    end
  end)
end

describe("a luv script", function()
  setup(start)
  teardown(stop)

  it("ends its loop when its tasks have ended, with nothing left on it", function()
    best_of(function()
      local code, output, problem = run(
        { process.lua(), "spec/hosts/neovim_luv.lua", server.url, server.key }, process.module_paths())
      assert.equal(0, code, problem)
      local beats, late, draining, active = output:match("^(%d+)%s+(%S+)%s+(%S+)%s+(%d+)")
      assert.equal("0", active)
      assert.equal("true", draining) -- it did not wait for the connections that are drained in the background
      return tonumber(beats) >= 20 and tonumber(late) < GRACE / 2, output
    end)
  end)
end)

describe("a tree that was built and installed nowhere", function()
  local SCRIPT = 'for _ = 1, 2 do print(pcall(require, "opensandbox")) end print(package.loaded["opensandbox.intree"])'
  local directory

  -- The Lua files by themselves, in a directory of their own.
  setup(function()
    directory = temporary.directory()
    assert(uv.fs_symlink(ROOT .. "/lua", directory .. "/lua"))
  end)
  teardown(function()
    temporary.remove(directory)
  end)

  -- What `require` says where only the Lua files are on the path: those in `tree`, as seen from `cwd`.
  local function required(tree, cwd)
    local env = process.module_paths()
    env.LUA_PATH = ("%slua/?.lua;%slua/?/init.lua;%s"):format(tree, tree, env.LUA_PATH)
    env.LUA_CPATH = env.LUA_CPATH:gsub("[^;]*build[^;]*", "./?.nothing")
    local code, output, problem = run({ process.lua(), "-e", SCRIPT }, env, cwd)
    assert.equal(0, code, problem)
    return output
  end

  it("is found from its Lua files, by an absolute path and by a relative one", function()
    local core = ("build/%s/opensandbox/core.so\n"):format(ABI)
    for _, case in ipairs { { ROOT .. "/", directory }, { "", ROOT }, { "./", ROOT } } do
      local output = required(case[1], case[2])
      assert.truthy(output:find("^true"), output)
      assert.truthy(output:find("\n" .. case[1] .. core, 1, true), output)
    end
  end)

  it("says in one line what to run when it is not built, each time", function()
    local said = ("false\topensandbox: its C core is not built for this Lua: run `make LUA=lua%s` in %s/\n"):format(ABI, directory)
    assert.equal(said .. said .. "nil\n", required(directory .. "/", directory))
  end)
end)

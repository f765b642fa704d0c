--- The text of a run in an isolated session, given to a real bash in the way of execd.

local core = require "opensandbox.core"
local http_client = require "spec.support.http_client"
local isolated_shell_server = require "spec.support.isolated_shell_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local recordings = require "spec.support.recordings"
local temporary = require "spec.support.temporary"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local server, client, session
setup(function() server = isolated_shell_server.start() end)
teardown(function() server:stop() end)
before_each(function()
  client = opensandbox.new(server.url, "key", { retry = false })
  session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id
end)
after_each(function()
  assert(client:delete_isolated_session(server.url, session))
  client:close()
end)

local function run(code, opts)
  opts = opts or {}
  opts.timeout = opts.timeout or 10
  return client:run_isolated(server.url, session, code, opts)
end

-- Runs codes one after the other and compares: each is { code, output, exit code (default 0), options }. The output is a text, or a
-- function of it.
local function plays(list)
  for i, step in ipairs(list) do
    local result, err = run(step[1], step[4])
    assert.is_truthy(result, ("step %d: %s"):format(i, tostring(err)))
    assert.equal(step[3] or 0, result.exit_code, ("step %d: %s"):format(i, result.stdout))
    if type(step[2]) == "string" then
      assert.equal(step[2], result.stdout)
    else
      assert.is_true(step[2](result.stdout), result.stdout)
    end
    assert.is_nil(result.session_ended)
  end
end

local function has(text)
  return function(output) return output:find(text, 1, true) ~= nil end
end

local SHELL_GONE = "session process exited without end marker (process may have died or called exit)"

-- Texts and outcome of a stream of events, without the lines and processes that bash counts. Which of two texts execd has for a
-- shell that is gone is a race.
local function summary(stream)
  local lines = {}
  for frame in stream:gmatch("[^\n]+") do
    local event = assert(json.decode(frame))
    local text = event.type == "error" and event.error.ename .. " " .. event.error.evalue or event.text
    text = text and text:gsub("line %d+", "line N"):gsub("N: +%d+ ", "N: "):gsub("read stdout: .*", SHELL_GONE)
    text = text and text:gsub("Killed +", "Killed ") -- versions of bash differ in the spaces
    lines[#lines + 1] = event.type .. " " .. (text or "")
  end
  return lines
end

describe("the shell of these tests", function()
  local function feed(recording)
    local path = recording.request.path:gsub("/session/[^/]+", "/session/" .. session)
    return assert(http_client.request { url = server.url .. path, body = recording.request.body, method = "POST" })
  end

  for _, names in ipairs {
    { "run-true" }, { "run-stderr" }, { "run-blank-lines" }, { "run-no-newline" }, { "run-heredoc" }, { "run-not-found" },
    { "run-child-killed" }, { "run-nul-code" }, { "run-stdin-cat", "run-stdin-cat-then-run" }, { "run-read", "read-then-run" },
    { "run-braces-devnull", "braces-then-run" }, { "run-exit", "run-exit-then-run" }, { "run-set-e", "run-set-e-then-run" },
    { "run-set-e-before", "run-set-e-before-then-run" }, { "run-syntax-error", "run-syntax-error-then-run" }, { "run-exec" },
    { "run-subshell-set-e", "subshell-set-e-then-run" }, { "run-unclosed-quote" }, { "run-cd", "run-cd-after" },
  } do
    it("answers unchanged code as the recorded execd: " .. table.concat(names, ", "), function()
      for _, name in ipairs(names) do
        local recording = assert(recordings.load("isolated/" .. name))
        local response = feed(recording)
        assert.equal(recording.response.status, response.status)
        if response.status == 200 then
          assert.same(summary(recording.response.body), summary(response.body))
        else
          assert.equal(recording.response.body, response.body)
        end
      end
    end)
  end
end)

describe("a run", function()
  it("whose code reads standard input finds it empty, and the next run is its own", function()
    plays {
      { "cat; echo rc=$?", "rc=0\n" }, { "echo next", "next\n" },
      { "read line; echo got=$line $?; false", "got= 1\n", 1 }, { "echo next", "next\n" },
      { "sh -; sort; cat /dev/stdin; wc -c <&0", "0\n" }, { "echo next", "next\n" },
      { "f() { cat; }; f; echo piped | f", "piped\n" }, { "f; cat <<< word", "word\n" },
      { "select x in a b; do break; done; echo $?", function(text) return text:find("1\n$") ~= nil end },
      { "while read -r l; do echo $l; done", "" }, { "cat & wait; exec </etc/passwd; echo own", "own\n" },
      { "echo next", "next\n" },
    }
  end)

  it("keeps directory, variables, functions, options and open files", function()
    local directory = temporary.directory()
    plays {
      { "cd " .. directory .. "; export A=1; B=2; f() { echo f$1; }; set -f; set -- x y; exec 3</etc/passwd; l=(1 2 3)", "" },
      { "pwd; echo $A $B * $# ${l[2]}; f 1; sh -c 'echo $A'; read -r p <&3; [ -n \"$p\" ] && echo read",
        directory .. "\n1 2 * 2 3\nf1\n1\nread\n" },
      { "shopt -s expand_aliases extglob\nalias hi='echo hi'\nhi; touch a b; set +f; echo !(a)", "hi\nb\n" }, { "hi", "hi\n" },
    }
    temporary.remove(directory)
  end)

  it("has the exit code of its code", function()
    plays {
      { "true", "" }, { "false", "", 1 }, { "(exit 3)", "", 3 }, { "echo $?", "0\n" }, { "sh -c 'exit 255'", "", 255 },
      { "return 4", has "return", 2 }, { "no-such-program", has "not found", 127 }, { "! true", "", 1 }, { "true | false", "", 1 },
      { "set -o pipefail; false | true", "", 1 }, { "# a comment", "" }, { " \n;", has "syntax error", 2 },
      { "sh -c 'kill -9 $$'", has "", 137 },
    }
  end)

  it("with an error of syntax has an exit code, and the session lives", function()
    for _, code in ipairs {
      "echo before\nif then\necho after", "echo 'abc", 'echo "abc', "(echo a", "{ echo a", "echo a; }", "echo a\n}", "cat; } ; {",
      "echo a)", "} </dev/null; {", "' </dev/null; echo broke out '",
      "echo `a", "echo $(", "case x in", "f() {", "'", "\"", "echo ${",
    } do
      local result = assert(run(code))
      assert.is_true(result.exit_code ~= 0, code)
      assert.is_truthy(result.stdout:find("bash: ", 1, true), code)
      assert.is_nil(result.stdout:find("broke out\n", 1, true))
      assert.equal("alive\n", assert(run "echo alive").stdout)
    end
    assert.equal("before\n", assert(run("echo before\nif then\necho after")).stdout:sub(1, 7))
    plays { { "set -o posix", "" }, { "if then", has "syntax error", 2 }, { "echo alive", "alive\n" } }
  end)

  it("with an error of syntax in a substitution has an end, and the runs after it are read as they are", function()
    for _, code in ipairs { "echo $( ;", "cat <( || true", "echo $(( $( if & ))" } do -- bash 5.2 exits at these
      local result, err = run(code)
      assert.is_true(result and result.exit_code ~= 0 or err.session_ended, code)
      if err then session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id end
    end
    for _, code in ipairs { ">(>${xdone $([<(echo", "2>&1fi<({coproc", "false!$(~&&<(", "do$(break" } do -- nor does it forget these
      local result, err = run(code)
      assert.is_true(result and result.exit_code ~= 0 or err.session_ended, code)
      if err then session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id end
    end
    plays {
      { "echo 'it is' \"one 'quoted' text\"", "it is one 'quoted' text\n" }, { "echo 'abc", has "unexpected EOF", 2 },
      { "echo $A", "it's\n", 0, { env = { A = "it's" } } }, { "echo next", "next\n" },
    }
  end)

  it("takes comments, here-documents, backslashes and quotes at the end", function()
    plays {
      { "echo a # b", "a\n" }, { "echo a \\", "a\n" }, { "echo 'it'\\''s' \"q\"", "it's q\n" }, { "echo a\r", "a\n" },
      { "cat <<EOF\nin 'x' \"$((1+1))\"\nEOF", "in 'x' \"2\"\n" }, { "cat <<'EOF'\n$HOME '\nEOF\n# end", "$HOME '\n" },
      { "cat <<EOF\nno end", has "no end\n" }, { "cat <<-EOF\n\tx\n\tEOF", "x\n" }, { "echo next", "next\n" },
      { "echo a\n\n\necho b\n\n", "a\nb\n" }, { ": " .. ("x"):rep(200000) .. "\necho done", "done\n" },
    }
  end)

  it("has the variables of 'env' for itself, whatever they hold, and keeps the rest", function()
    local value = "it's \"x\" $HOME `id` \\ \n two"
    plays {
      { "A=old; export A", "" },
      { 'printf %s "$A"; sh -c \'printf "|%s" "$A"\'; (printf "|%s" "$A"); cd /usr; export B=2; C=3', function(text)
        return text == (value .. "|" .. value .. "|" .. value .. "\n")
      end, 0, { env = { A = value } } },
      { "echo $A $B $C; pwd; sh -c 'echo $A'", "old 2 3\n/usr\nold\n" },
      { "A=changed; echo $A", "changed\n", 0, { env = { A = "x" } } }, { "echo $A", "old\n" },
      { "v=axb; echo $v", "a b\n", 0, { env = { IFS = "x" } } }, { "v=axb; echo $v", "axb\n" },
      { "cat; if then", has "syntax error", 2, { env = { A = "x" } } }, { "echo $A$_X1", "old\n" },
      { "echo $_X1$PATH", "12\n", 0, { env = { _X1 = "1", PATH = "2" } } }, { "ls / >/dev/null; echo $?", "0\n" },
    }
  end)

  it("enters 'cwd', stays there, and says that it cannot", function()
    local directory = temporary.directory()
    for _, name in ipairs { "a b", "-", "it's", "CD" } do assert(core.mkdir(directory .. "/" .. name, 448)) end
    plays {
      { "pwd", directory .. "\n", 0, { cwd = directory } }, { "pwd; false", directory .. "/a b\n", 1, { cwd = "a b" } },
      { "pwd", directory .. "/a b\n" }, { "cd ..", "" },
      { "pwd; echo $A", directory .. "/-\n1\n", 0, { cwd = "-", env = { A = "1" } } },
      { "pwd", directory .. "/it's\n", 0, { cwd = directory .. "/it's" } }, { "cd ..; CDPATH=/usr; cd() { echo own; }", "" },
      { "pwd", directory .. "/CD\n", 0, { cwd = "CD" } },
    }
    local result, err = run("echo ran", { cwd = "/no such" })
    assert.is_nil(result)
    assert.same({ "state", "start_failed", "run_isolated" }, { err.kind, err.code, err.op })
    assert.matches("the code was not started: .*cd: /no such: No such file or directory", err.message)
    plays { { "pwd", directory .. "/CD\n" } }
    temporary.remove(directory)
  end)

  it("whose own exit code is that of a 'cwd' that fails is no failure of it", function()
    plays { { "(exit 125)", "", 125, { cwd = "/usr" } }, { "echo cd: /tmp; (exit 125)", "cd: /tmp\n", 125, { cwd = "/usr" } } }
  end)

  it("ends the session with exit, exec, a failure under set -e and a lost shell, and says so", function()
    for _, code in ipairs { "echo before; exit 7", "set -e; echo before; false; echo after", "echo before; exec true",
      "echo before; kill -9 $$", "set -e\necho before\nif then" } do
      local result, err = run(code)
      assert.is_nil(result)
      assert.same({ "state", "session_ended", true, "before" },
        { err.kind, err.code, err.session_ended, err.result.stdout:match("before") }, code)
      assert.is_true(err.result.session_ended)
      assert.matches("Create another session", err.hint)
      result, err = run "echo next"
      assert.is_nil(result)
      assert.same({ "state", "SESSION_NOT_FOUND", 404 }, { err.kind, err.code, err.status })
      assert.matches("Create another session", err.hint)
      session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id
    end
  end)

  it("with set -e lasts until something fails outside of ( )", function()
    plays {
      { "(set -e; echo one; false; echo two)", "one\n", 1 }, { "set -e", "" },
      { "echo a; false || true; if false; then :; fi", "a\n" },
      { "echo $A", "1\n", 0, { env = { A = "1" }, cwd = "/usr" } },
    }
    local err = select(2, run("false", { cwd = "/" }))
    assert.equal("session_ended", err.code)
  end)

  it("ends the session when its time is over", function()
    for _, code in ipairs { "echo before; sleep 60", "echo before; trap '' INT; sleep 60" } do
      local result = assert(run(code, { timeout = 0.6 }))
      assert.same({ true, true, -1, "interrupt", "before\n" },
        { result.timed_out, result.session_ended, result.exit_code, result.signal, result.stdout })
      assert.equal("SESSION_NOT_FOUND", select(2, run "true").code)
      session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id
    end
  end)
end)

describe("a run that nobody waits for any more", function()
  local function ended()
    wait_until(function()
      local result, err = run "true"
      return not result and err.code == "SESSION_NOT_FOUND"
    end, "the session goes on")
    session = assert(client:create_isolated_session(server.url, { workspace = "/" })).id
  end

  it("ends the session: a cancelled task, an error in a callback", function()
    local began = false
    local task = opensandbox.spawn(function()
      return run("echo go; sleep 60", { on_stdout = function() began = true end, timeout = 50 })
    end)
    wait_until(function() return began end)
    assert.is_true(task:cancel())
    local err = select(2, task:wait(5))
    assert.same({ "cancelled", true, true, "go\n" }, { err.kind, err.session_ended, err.result.session_ended, err.result.stdout })
    assert.matches("The session ends with the connection", err.hint)
    ended()
    task = opensandbox.spawn(function() return run("sleep 61", { timeout = 50 }) end) -- without a single event
    wait_until(function()
      local fed = server:state().fed
      return fed[#fed]:find("sleep 61", 1, true)
    end)
    task:cancel()
    assert.is_true(select(2, task:wait(5)).session_ended)
    ended()
    local ok, problem = pcall(run, "echo go; sleep 60", { on_stdout = function() error("own", 0) end, timeout = 50 })
    assert.same({ false, "own" }, { ok, problem })
    ended()
  end)
end)

describe("a helper script", function()
  local function helper(script, opts)
    opts = opts or { cwd = "/" }
    return client:for_op("helper"):run_isolated_helper(server.url, session, script, opts)
  end

  it("runs as in any shell, whatever the session's shell is set to, and changes nothing there", function()
    plays { { "set -efC; set -x; IFS=:; tar() { echo own; }; alias echo=false; cd /usr", has "" } }
    local result = assert(helper("echo a b; tar --version >/dev/null 2>&1 && echo tar\n"
      .. "echo /et*; pwd; cd /tmp; X=1; cat; exit 66"))
    assert.equal(66, result.exit_code)
    assert.is_truthy(result.stdout:find("a b\ntar\n/etc\n/\n", 1, true), result.stdout)
    plays { { "set +x; pwd; echo [$X]", has "/usr\n[]\n" }, { "true", "" } }
  end)

  it("that has a quote open or a directory that is missing is an exit code", function()
    assert.equal(2, assert(helper "echo 'abc").exit_code)
    local result, err = helper("echo ran", { cwd = "/no/such" })
    assert.is_nil(err)
    assert.equal(125, result.exit_code)
    assert.is_nil(result.stdout:find("ran\n", 1, true))
    plays { { "echo next", "next\n" } }
  end)
end)

describe("a directory of a session whose files are not those of its shell", function()
  local here, there, isolated

  local function write(path, content)
    local file = assert(io.open(path, "wb"))
    file:write(content)
    file:close()
  end

  local function read(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("*a")
    file:close()
    return content
  end

  before_each(function()
    here, there = temporary.path(), temporary.directory()
    local sandbox = assert(client:connect({ id = "sb", url = client.url, endpoints = { ["44772"] = { url = server.url } } },
      { wait = false }))
    isolated = assert(sandbox:isolated { workspace = there, mode = "ro" })
    write(there .. "/one", ("\0\1\255\n"):rep(100000))
    assert(core.mkdir(there .. "/sub", 448))
    write(there .. "/sub/it's $two", "2")
    assert(core.symlink("sub/gone", there .. "/link"))
    for _, name in ipairs { "/.execd", "/.execd/background-runs" } do assert(core.mkdir(there .. name, 493)) end
    write(there .. "/.execd/background-runs/r1.log", "log")
  end)
  after_each(function()
    isolated:close()
    os.execute("rm -rf '" .. here .. "' '" .. there .. "'")
  end)

  for _, verify in ipairs { false, true } do
    it("comes through the output of a run" .. (verify and ", and is verified" or ""), function()
      local last
      local count = assert(isolated.files:download_dir(".", here, { verify = verify, on_progress = function(done) last = done end,
        ignore = { "nothing" } }))
      assert.same({ 2, 1 }, { count.files, count.symlinks })
      assert.equal(("\0\1\255\n"):rep(100000), read(here .. "/one"))
      assert.equal("2", read(here .. "/sub/it's $two"))
      assert.same({ "symlink", "sub/gone" }, { core.lstat(here .. "/link"), (select(5, core.lstat(here .. "/link"))) })
      assert.same({ "link", "one", "sub" }, temporary.names(here))
      assert.is_true(last > 400000)
      assert.equal("alive\n", assert(isolated:run "echo alive").stdout)
      local attached = assert(isolated.sandbox:isolated { id = isolated.id })
      assert.equal(1, assert(attached.files:download_dir(there .. "/sub", here .. "/again", { verify = verify })).files)
      assert.same({ "it's $two" }, temporary.names(here .. "/again"))
    end)
  end

  it("that the shell cannot enter leaves no session", function()
    local created, err = isolated.sandbox:isolated { workspace = there .. "/none" }
    assert.is_nil(created)
    assert.same({ "state", "start_failed", "sandbox:isolated" }, { err.kind, err.code, err.op })
    assert.matches("bubblewrap", err.hint)
    local requests = server:requests()
    assert.equal("DELETE", requests[#requests].method)
  end)

  it("that is missing, or not of the session, is an error", function()
    local count, err = isolated.files:download_dir("none", here)
    assert.is_nil(count)
    assert.same({ "state", "not_a_directory", "files:download_dir" }, { err.kind, err.code, err.op })
    err = select(2, isolated.files:download_dir("/etc", here))
    assert.equal("outside_workspace", err.code)
    err = select(2, isolated.files:upload_dir(there, "/etc"))
    assert.equal("outside_workspace", err.code)
    err = select(2, isolated.files:upload_dir(there, "up"))
    assert.same({ "state", "read_only", "files:upload_dir" }, { err.kind, err.code, err.op })
    assert.is_nil(core.lstat(here))
  end)

  it("that cannot be packed, or comes as nonsense, is an error with its reason", function()
    local tools = temporary.directory()
    local function tar(script)
      write(tools .. "/tar", "#!/bin/sh\n" .. script)
      assert(core.chmod(tools .. "/tar", 493))
    end
    assert(isolated:run("PATH=" .. tools .. ":$PATH"))
    for script, expected in pairs {
      ["echo some bytes; echo the reason >&2; exit 2"] = { "tar_failed", "the reason" },
      ["echo nonsense"] = { "bad_archive", "cannot be read" },
      ["exit 0"] = { "bad_archive", "" },
      ["echo 'not!base64' >/dev/fd/3 2>/dev/null; exit 0"] = { "bad_archive", "" },
    } do
      tar(script)
      local count, err = isolated.files:download_dir(there, here)
      assert.is_nil(count)
      assert.equal(expected[1], err.code, tostring(err))
      assert.is_truthy(err.message:find(expected[2], 1, true), err.message)
      assert.same({}, temporary.names(here))
    end
    temporary.remove(tools)
    assert.equal("alive\n", assert(isolated:run "echo alive").stdout)
  end)
end)

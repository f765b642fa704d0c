--- Commands with standard input, and commands that the system refuses.

local fixtures = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local fixture, sandbox

setup(function()
  fixture = fixtures.new()
  sandbox = fixture.sandbox
end)
teardown(function() fixture:close() end)

describe("a command whose text is too long for the system", function()
  local long = ("# a comment that is long\n"):rep(6000) .. "print(42)"

  it("is an error with a remedy: as an argument, as a script, as a variable, and in the background", function()
    for name, try in pairs {
      argument = function() return sandbox:run { "python3", "-c", long } end,
      script = function() return sandbox:run(long) end,
      variable = function() return sandbox:run("true", { env = { LONG = long } }) end,
      background = function() return sandbox:start(long) end,
      durable = function() return sandbox:run(long, { durable = true }) end,
      exact = function() return sandbox:run(long, { capture = "exact" }) end,
    } do
      local result, err = try()
      assert.is_nil(result, name)
      assert.equal("state", err.kind, name .. ": " .. tostring(err))
      assert.truthy(err.message:find("argument list too long", 1, true), tostring(err))
      assert.truthy(err.hint:find("files:write", 1, true), name)
    end
  end)

  it("runs in a session, which takes it as a file", function()
    local session = assert(sandbox:session())
    local result = assert(session:run((long:gsub("print%(42%)", "echo 42"))))
    assert.same({ 0, "42\n" }, { result.exit_code, result.stdout })
    session:close()
  end)
end)

describe("the standard input of a command", function()
  local bytes = {}
  for i = 0, 255 do bytes[i + 1] = string.char(i) end
  bytes = table.concat(bytes):rep(40)

  local function nothing_is_left()
    wait_until(function() return #assert(sandbox.files:search("/tmp", ".opensandbox-*.stdin")) == 0 end, "an input is left")
  end

  -- The forms of an input, each made anew.
  local forms = {
    bytes = function(content) return content end,
    handle = function(content)
      local path = temporary.file("not this" .. content)
      local handle = assert(io.open(path, "rb"))
      handle:seek("set", #"not this")
      return handle, function()
        handle:close()
        os.remove(path)
      end
    end,
    path = function(content)
      local path = temporary.file(content)
      return { path = path }, function() os.remove(path) end
    end,
    reader = function(content)
      local at = 1
      return function()
        if at > #content then return nil end
        at = at + 1000
        return content:sub(at - 1000, at - 1)
      end
    end,
  }

  local ways = {
    plain = {}, durable = { durable = true }, exact = { capture = "exact" },
    ["durable and exact"] = { durable = true, capture = "exact" },
  }

  for form, make in pairs(forms) do
    it("arrives byte for byte: " .. form, function()
      for way, opts in pairs(ways) do
        local input, done = make(bytes)
        local given = { stdin = input }
        for name, value in pairs(opts) do given[name] = value end
        local result = assert(sandbox:run("cksum; exit 3", given))
        assert.same({ 3, "" }, { result.exit_code, result.stderr }, way)
        local expected = assert(sandbox:run("cksum", { stdin = bytes })).stdout
        assert.equal(expected, result.stdout, way)
        assert.truthy(result.stdout:find(" " .. #bytes .. "\n", 1, true), result.stdout)
        if done then done() end
      end
      nothing_is_left()
    end)
  end

  it("comes back as it was, when the output is exact", function()
    local result = assert(sandbox:run("cat", { stdin = bytes, capture = "exact" }))
    assert.is_true(result.stdout == bytes)
    assert.equal("", assert(sandbox:run("cat", { stdin = "" })).stdout)
    assert.equal("", assert(sandbox:run("cat")).stdout)
  end)

  it("goes to programs of a list, and to what a script runs", function()
    assert.equal("a\nb\n", assert(sandbox:run({ "sort" }, { stdin = "b\na\n" })).stdout)
    assert.equal("42\n", assert(sandbox:run({ "python3", "-" }, { stdin = ("# long\n"):rep(50000) .. "print(42)" })).stdout)
    assert.equal("one:two three\n", assert(sandbox:run("read a; read b c; echo $a:$b $c", { stdin = "one\ntwo three\n" })).stdout)
  end)

  it("changes nothing else: exit codes, signals, syntax errors, here-documents, exec, and what the shell says", function()
    for _, command in ipairs {
      "exit 7", "false", "no-such-command", "echo 'open", "if", "cat <<E\nhere\nE", "exec printf done", "kill -9 $$",
      "kill -TERM $$",
      "sh -c 'kill -KILL $$'", "echo $0 $#; echo $1", "echo \"it's \\$HOME\"", "set -e; false; echo never",
      "true &\nwait; echo over", "trap 'echo trapped' EXIT; exit 4", "cd /; pwd; echo ${UNSET-unset}",
      "set | grep -c opensandbox; :", "printf 'a\\0b'",
      "echo own >./tmp/own; exec <./tmp/own; cat", "exec <./tmp/own; cat", "exec <./tmp/own", "exec 0<&-; echo closed",
      "exec </dev/null; cat; echo empty", "exec <./tmp/no-such; echo after",
    } do
      local plain = assert(sandbox:run(command))
      local fed = assert(sandbox:run(command, { stdin = "input\n" }))
      for _, field in ipairs { "exit_code", "signal", "stdout", "stderr", "timed_out" } do
        assert.equal(plain[field], fed[field], ("%s of %q"):format(field, command))
      end
    end
    local result = assert(sandbox:run("exec sleep 100", { stdin = "x", timeout = 0.3 }))
    assert.same({ -1, "killed", true }, { result.exit_code, result.signal, result.timed_out })
    nothing_is_left()
  end)

  it("that cannot be read is an error that names the option and the reason, and leaves nothing", function()
    local directory = temporary.directory()
    local closed = assert(io.open(temporary.file("x", directory)))
    closed:close()
    assert(os.execute("mkfifo " .. directory .. "/fifo"))
    for reason, input in pairs {
      ["is a directory"] = { path = directory }, ["No such file"] = { path = directory .. "/none" },
      ["is not a regular file"] = { path = directory .. "/fifo" }, ["Is a directory"] = assert(io.open(directory)),
      ["returned a number instead of a string"] = function() return 5 end, ["my reason"] = function() return nil, "my reason" end,
    } do
      local result, err = sandbox:run("cat", { stdin = input })
      assert.is_nil(result)
      assert.same({ "state", "body_failed", "sandbox:run" }, { err.kind, err.code, err.op })
      assert.matches("^option 'stdin' could not be read: .*" .. reason, err.message)
    end
    assert.error_matches(function() sandbox:run("cat", { stdin = function() error("my mistake", 0) end }) end, "^my mistake$")
    assert.error_matches(function() sandbox:run("cat", { stdin = closed }) end, "option 'stdin' must be .* not closed file")
    assert.error_matches(function() sandbox:run("cat", { stdin = { path = "" } }) end, "the path of option 'stdin' must be ")
    local result, err = sandbox:run("cat", { stdin = "x", cwd = "/no/such/directory" })
    assert.same({ nil, 400 }, { result, err.status })
    nothing_is_left()
    temporary.remove(directory)
  end)

  it("may be a table that can be called", function()
    local pieces = { "a", "", "b" }
    local input = setmetatable({}, { __call = function() return table.remove(pieces, 1) end })
    assert.equal("ab\n", assert(sandbox:run("cat", { stdin = input })).stdout)
  end)

  it("is read in a directory of its own, with an environment, and where PATH finds nothing", function()
    assert(sandbox.files:mkdir("/work/input"))
    local result = assert(sandbox:run("pwd; cat; echo $X", { stdin = "x\n", cwd = "/work/input", env = { X = "y" } }))
    assert.truthy(result.stdout:find("/work/input\nx\ny\n$"), result.stdout)
    -- Without bubblewrap, only TMPDIR names the directory of the file.
    local tmpdir = fixture.root == "" and "/no/such" or nil
    result = assert(sandbox:run("read a; echo $a", { stdin = "x\n", env = { PATH = "/nothing", TMPDIR = tmpdir } }))
    assert.equal("x\n", result.stdout)
  end)

  it("arrives in a session, whose state stays", function()
    local session = assert(sandbox:session())
    local result = assert(session:run("cksum; cd /; export A=1", { stdin = bytes }))
    assert.equal(assert(sandbox:run("cksum", { stdin = bytes })).stdout, result.stdout)
    assert.equal("/1\n", assert(session:run("echo $(pwd | tail -c 2)$A")).stdout:gsub("^[^/]*", ""))
    assert.equal("", assert(session:run("cat")).stdout)
    session:close()
    nothing_is_left()
  end)

  it("where commands see this machine as it is", function()
    local server = process.devserver { grace = 0.2, args = { "--isolation", "none" } }
    local client = opensandbox.new(server.url, server.key)
    local one = assert(client:create { image = "any" })
    assert.equal("fed", assert(one:run("cat", { stdin = "fed", capture = "exact" })).stdout)
    local where = assert(one:run("readlink /proc/self/fd/0", { stdin = "x" })).stdout:gsub("\n", "")
    assert.truthy(where:find("%.opensandbox%-%x+%.stdin"), where)
    where = where:gsub(" %(deleted%)$", "")
    wait_until(function() return not uv.fs_lstat(where) end, where .. " is left")
    client:close()
    server:stop()
  end)

  it("that cannot be read is an error, and nothing runs", function()
    local reason = { "any value" }
    local ok, raised = pcall(sandbox.run, sandbox, "mkdir work; touch work/ran", { stdin = function() error(reason) end })
    assert.same({ false, true }, { ok, raised == reason })
    local result, err = sandbox:run("mkdir work; touch work/ran", { stdin = function() return nil, "the source is gone" end })
    assert.is_nil(result)
    assert.same({ "body_failed", "sandbox:run" }, { err.code, err.op })
    result, err = sandbox:run("mkdir work; touch work/ran", { stdin = { path = "/no/such/file" } })
    assert.is_nil(result)
    assert.truthy(err.message:find("/no/such/file", 1, true), tostring(err))
    assert.is_false(sandbox.files:exists("/work/ran"))
    nothing_is_left()
  end)

  it("is removed when the task is cancelled, or a callback raises", function()
    local one
    one = opensandbox.spawn(function()
      return sandbox:run("cat; sleep 60", { stdin = "x\n", on_stdout = function() one:cancel() end })
    end)
    local result, err = one:wait()
    assert.is_nil(result)
    assert.equal("cancelled", err.kind)
    local reason = {}
    local ok, raised = pcall(sandbox.run, sandbox, "cat; sleep 60", { stdin = "x\n", on_stdout = function() error(reason) end })
    assert.same({ false, true }, { ok, raised == reason })
    nothing_is_left()
  end)

  it("of the wrong kind, or where there can be none, raises at the caller's line", function()
    local function raises(part, fn)
      local ok, message = pcall(fn)
      assert.is_false(ok)
      assert.truthy(message:find("run_command_spec%.lua:%d+: "), message)
      assert.truthy(message:find(part, 1, true), message)
    end
    local closed = assert(io.open("Makefile"))
    closed:close()
    for _, bad in ipairs { 5, true, closed } do
      raises("option 'stdin' must be", function() sandbox:run("x", { stdin = bad }) end)
    end
    raises("path", function() sandbox:run("x", { stdin = {} }) end)
    raises("did you mean 'path'", function() sandbox:run("x", { stdin = { pth = "x" } }) end)
    raises("need the shell", function() sandbox:run({ "x" }, { stdin = "x", shell = false }) end)
    raises("background", function() fixture.client:run_command(fixture:execd(), "x", { stdin = "x", background = true }) end)
  end)

  it("of many megabytes takes little memory", function()
    if not process.rss() then return pending("no /proc here") end
    local left = 400
    local piece = ("x"):rep(160 * 1024)
    assert(sandbox:run("cksum", { stdin = function() return nil end }))
    local before = process.rss().peak
    local result = assert(sandbox:run("wc -c", { stdin = function()
      left = left - 1
      return left >= 0 and piece or nil
    end }))
    assert.equal(400 * #piece, tonumber(result.stdout))
    assert.is_true(process.rss().peak - before < 16 * 1024)
  end)
end)

--- Variables that a sandbox keeps for all later commands.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

-- Values that are hard to write into a file of variables.
local VALUES = {
  PLAIN = "a/b:c", EMPTY = "", SPACES = " two  words ", QUOTES = [[a 'b' "c"]], DOLLAR = "$HOME ${HOME} $5 $",
  BACKSLASH = [[a\n\\b\]], LINES = "one\ntwo\n\nfour\n", TABS = "a\tb\rc", EQUALS = "a=b=c", HASH = "a # b",
  ALL = "it's $HOME $5\n\"\\'", UMLAUT = "äöü", BYTES = "\255\254'", NUMBER = 5,
}

for _, isolation in ipairs { "auto", "none" } do
  describe("set_env, with isolation " .. isolation .. ",", function()
    local server, client, sandbox

    setup(function()
      server = process.devserver { grace = 0.05, isolation = isolation }
      client = opensandbox.new(server.url, server.key)
    end)
    teardown(function()
      client:close()
      server:stop()
    end)
    before_each(function() sandbox = assert(client:create { image = "any", env = { FIRST = "create" } }) end)
    after_each(function() assert(sandbox:kill()) end)

    local function value_of(name, env)
      return assert(sandbox:run(("printf %%s \"$%s\""):format(name), { capture = "exact", env = env })).stdout
    end

    it("sets any value for later commands, in the foreground and in the background", function()
      assert.is_true(assert(sandbox:set_env(VALUES)))
      for name, value in pairs(VALUES) do
        assert.equal(tostring(value), value_of(name), name)
      end
      local command = assert(sandbox:start('printf %s "$EQUALS"'))
      assert(command:wait { timeout = 20 })
      assert.equal("a=b=c", (assert(command:logs()):gsub("\n$", "")))
    end)

    it("replaces a value, keeps the others, and gives way to the option env of a command", function()
      assert(sandbox:set_env { FIRST = "one", SECOND = "two" })
      assert(sandbox:set_env { FIRST = "new" })
      assert.same({ "new", "two" }, { value_of "FIRST", value_of "SECOND" })
      assert.equal("mine", value_of("FIRST", { FIRST = "mine" }))
    end)

    it("is seen by those who connect to the sandbox", function()
      assert(sandbox:set_env { SHARED = "yes" })
      assert.equal("yes\n", assert(assert(client:connect(sandbox.id)):run('echo "$SHARED"')).stdout)
    end)

    it("sets PATH, which its own commands need", function()
      assert(sandbox:set_env { PATH = "/opt/nothing" })
      assert.equal("/opt/nothing\n", assert(sandbox:run('echo "$PATH"')).stdout)
      assert.equal("none\n", assert(sandbox:run('PATH=/usr/bin:/bin; ls "$EXECD_ENVS".* 2>/dev/null || echo none')).stdout)
    end)

    it("leaves nothing behind but the variables", function()
      assert(sandbox:set_env { A = "1" })
      assert.equal("A=1\n", assert(sandbox:run('cat "$EXECD_ENVS"')).stdout)
      assert.equal("none\n", assert(sandbox:run('ls "$EXECD_ENVS".* 2>/dev/null || echo none')).stdout)
    end)

    it("is an error where the sandbox has no such file, or cannot write to it", function()
      local bare = assert(client:create { image = "any", env = { EXECD_ENVS = "" } })
      local _, err = bare:set_env { A = "1" }
      assert.same({ "state", "unsupported", "sandbox:set_env", bare.id }, { err.kind, err.code, err.op, err.sandbox_id })
      assert.matches("$EXECD_ENVS is not set in it", err.message, 1, true)
      assert(bare:kill())
      bare = assert(client:create { image = "any", env = { EXECD_ENVS = "/dev/null/file" } })
      _, err = bare:set_env { A = "1" }
      assert.same({ "state", "env_failed" }, { err.kind, err.code })
      assert.matches("the variables could not be written: ", err.message, 1, true)
      assert(bare:kill())
    end)

    it("takes a time limit for all of its commands", function()
      assert(sandbox:run('rm -f "$EXECD_ENVS"; mkdir -p "$(dirname "$EXECD_ENVS")"; mkfifo "$EXECD_ENVS"')) -- nobody reads it
      local _, err = sandbox:set_env({ A = "1" }, { timeout = 0.5 })
      assert.same({ "timeout", "timeout" }, { err.kind, err.timeout_option })
    end)

    it("is an error after the end of the object", function()
      local other = assert(client:create { image = "any" })
      assert(other:kill())
      local _, err = other:set_env { A = "1" }
      assert.equal("closed", err.kind)
    end)
  end)
end

describe("set_env", function()
  it("raises for what is no variable", function()
    local client = opensandbox.new("http://127.0.0.1:1", "k")
    local sandbox = assert(client:connect("s", { wait = false }))
    local wrong = {
      { nil, "the variables must be a table, not nil" }, { {}, "the table of variables must not be empty" },
      { { "A=1" }, "the variables must be a table of strings, by name" }, { { ["A-B"] = "1" }, "not \"A-B\"" },
      { { ["1A"] = "1" }, "not \"1A\"" }, { { [""] = "1" }, "whose names have no '='" }, { { A = "\0" }, "without NUL bytes" },
      { { A = true }, "entry \"A\" must be a string, not true" }, { { A = ("x"):rep(33000) }, "32 KiB together at most" },
    }
    for i = 1, #wrong do
      assert.error_matches(function() sandbox:set_env(wrong[i][1]) end, wrong[i][2], 1, true)
    end
    assert.error_matches(function() sandbox:set_env({ A = "1" }, { seconds = 1 }) end, "sandbox:set_env: unknown option 'seconds'",
      1, true)
    client:close()
  end)
end)

-- An execd of August 2026: before each command it reads the lines of its file as they stand, and replaces $NAME by its own variables.
local AUGUST = [[
  local shell = require "opensandbox.base.shell"
  local temporary = require "spec.support.temporary"
  local directory = temporary.directory()
  state.file = directory .. "/env"
  state.commands = 0
  local function expand(name) return name == "HOME" and "/root" or "" end
  local function run(command)
    local line = { "env -i PATH=" .. shell.quote(os.getenv("PATH")), "EXECD_ENVS=" .. shell.quote(state.file) }
    local file = io.open(state.file)
    for text in (file and file:read("*a") or ""):gmatch("[^\n]+") do
      local name, value = text:match("^%s*([^=#][^=]*)=(.-)%s*$")
      if name then
        value = value:gsub("%${([%w_]+)}", expand):gsub("%$([%w_]+)", expand)
        line[#line + 1] = shell.quote(name .. "=" .. value)
      end
    end
    if file then file:close() end
    local pipe = io.popen(table.concat(line, " ") .. " sh -c " .. shell.quote(command) .. "; echo \"#$?\"")
    local output = pipe:read("*a")
    pipe:close()
    return output:match("^(.*)#(%d+)\n$")
  end
  return {
    on_request = function(request, connection)
      if request.path:find("/endpoints/", 1, true) then
        return connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode { endpoint = request.headers.host })
      end
      state.commands = state.commands + 1
      local output, code = run(json.decode(request.body).command)
      connection:start(200, { ["Content-Type"] = "text/event-stream" })
      connection:event { type = "init", text = "c1" }
      for text in output:gmatch("[^\n]+") do connection:event { type = "stdout", text = text } end
      if code == "0" then connection:event { type = "execution_complete", execution_time = 1 } end
      if code ~= "0" then connection:event { type = "error", error = { ename = "CommandExecError", evalue = code } } end
      connection:finish()
    end,
  }
]]

describe("set_env with an execd of August, which keeps quotes,", function()
  local server, client, sandbox

  before_each(function()
    server = fault_server.start(AUGUST)
    client = opensandbox.new(server.url, "k")
    sandbox = assert(client:connect("s", { wait = false }))
  end)
  after_each(function()
    client:close()
    require("spec.support.temporary").remove((server:state().file:match("^(.*)/")))
    server:stop()
  end)

  local function value_of(name) return (assert(sandbox:run(("printf '%%s\\n' \"$%s\""):format(name))).stdout:gsub("\n$", "")) end

  it("writes values as they stand, and remembers that", function()
    local values = { QUOTES = [[it's "so"]], SPACE = "two words", BACKSLASH = [[a\b]], HASH = "a # b", PLAIN = "x" }
    assert(sandbox:set_env(values))
    for name, value in pairs(values) do assert.equal(value, value_of(name)) end
    local before = server:state().commands
    assert(sandbox:set_env { MORE = "two words" })
    assert.equal(before + 2, server:state().commands)
    assert.equal("two words", value_of("MORE"))
  end)

  it("says which value it cannot carry, and changes nothing", function()
    assert(sandbox:set_env { KEPT = "old" })
    for _, value in ipairs { "$HOME", "one\ntwo", " edge", "edge " } do
      local _, err = sandbox:set_env { KEPT = "new", HARD = value }
      assert.same({ "state", "unsupported", "sandbox:set_env" }, { err.kind, err.code, err.op })
      assert.equal("this execd reads another value than was written for HARD", err.message)
      assert.same({ "old", "" }, { value_of("KEPT"), value_of("HARD") })
    end
  end)
end)

describe("set_env with a hostile sandbox", function()
  it("takes no time for a reason of white space", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, { ["Content-Type"] = "application/json" }, json.encode { endpoint = request.headers.host })
        end
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1" }
        connection:event { type = "stderr", text = (" "):rep(256 * 1024) .. "x" }
        connection:event { type = "error", error = { ename = "CommandExecError", evalue = "1" } }
        connection:finish()
      end
    ]]
    local client = opensandbox.new(server.url, "k")
    local before = opensandbox.now()
    local ok, err = assert(client:connect("s", { wait = false })):set_env { A = "x" }
    assert.is_nil(ok)
    assert.same({ "state", "env_failed", "sandbox:set_env" }, { err.kind, err.code, err.op })
    assert.is_true(opensandbox.now() - before < 10)
    client:close()
    server:stop()
  end)
end)

--- Code: results, errors and output of what runs in a kernel, and which end of the stream is one.

local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a code context of a sandbox", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("keeps the variables of Python, and gives output, result and error", function()
    local code = assert(sandbox:code())
    assert.same({ "python", "opensandbox.Code: " .. code.id }, { code.language, tostring(code) })
    local result = assert(code:run("import sys\nx = 41\nprint('out')\nprint('err', end='', file=sys.stderr)"))
    assert.same({ "out\n", "err" }, { result.stdout, result.stderr })
    assert.same({}, result.results)
    local told = {}
    result = assert(code:run("x + 1", { on_result = function(one) told[#told + 1] = one end }))
    assert.equal("42", result.text)
    assert.same({ { ["text/plain"] = "42" } }, result.results)
    assert.same(result.results, told)
    assert.equal("number", type(result.execution_count))
    result = assert(code:run("print('before')\n1/0"))
    assert.same({ "ZeroDivisionError", "division by zero", "before\n" }, { result.error.name, result.error.value, result.stdout })
    assert.is_true(#result.error.traceback > 0)
    assert.is_nil(result.text)
    assert.is_nil(rawget(result, "exit_code"))
    assert.is_true(code:close())
  end)

  it("keeps the variables of bash", function()
    local code = assert(sandbox:code("bash", { cwd = "/work" }))
    assert.equal("bash", code.language)
    assert(code:run("name=world"))
    local texts = {}
    local result = assert(code:run("echo hello $name; pwd", { on_stdout = function(text) texts[#texts + 1] = text end }))
    assert.matches("^hello world\n.*/work\n$", result.stdout)
    assert.equal(result.stdout, table.concat(texts))
    assert.is_true(code:close())
  end)

  it("is listed, attached to and deleted", function()
    local code = assert(sandbox:code("bash"))
    local function listed()
      for _, context in ipairs(assert(sandbox:code_contexts("bash"))) do
        if context.id == code.id then return true end
      end
      return false
    end
    assert.is_true(listed())
    assert(code:run("a=1"))
    local attached = assert(sandbox:code("bash", { id = code.id }))
    assert.equal("1\n", assert(attached:run("echo $a")).stdout)
    assert.is_true(attached:close())
    assert.is_true(listed())
    assert.is_true(code:close())
    assert.is_false(listed())
    assert.same({ "closed", "code:run" }, { select(2, code:run("1")).kind, select(2, code:run("1")).op })
    local result, err = assert(sandbox:code("bash", { id = code.id })):run("1")
    assert.is_nil(result)
    assert.same({ 500, "code:run" }, { err.status, err.op })
  end)

  it("runs one thing at a time, is interrupted by another task, and goes on", function()
    local code = assert(sandbox:code())
    local began = false
    local task = opensandbox.spawn(function()
      return code:run("import time\nprint('go', flush=True)\ntime.sleep(60)", { on_stdout = function() began = true end })
    end)
    wait_until(function() return began end)
    local result, err = code:run("1")
    assert.is_nil(result)
    assert.same({ "state", "busy", true }, { err.kind, err.code, err.retryable })
    assert.is_true(code:interrupt())
    result = assert(task:wait(10))
    assert.same({ "KeyboardInterrupt", "go\n" }, { result.error.name, result.stdout })
    assert.equal("2", assert(code:run("1 + 1")).text)
    assert.is_true(code:close())
  end)

  it("is interrupted when the time is over and when the task is cancelled, and goes on", function()
    local code = assert(sandbox:code())
    local sleep = "import time\nprint('so far', flush=True)\ntime.sleep(60)"
    local result, err = code:run(sleep, { timeout = 0.5 })
    assert.is_nil(result)
    assert.same({ "timeout", "timeout", "code:run" }, { err.kind, err.timeout_option, err.op })
    assert.equal("so far\n", err.result.stdout)
    assert.equal("1", assert(code:run("1")).text) -- at once: what was interrupted gets a moment to end
    local began = false
    local task = opensandbox.spawn(function() return code:run(sleep, { on_stdout = function() began = true end }) end)
    wait_until(function() return began end)
    assert.is_true(task:cancel())
    assert.equal("cancelled", select(2, task:wait(5)).kind)
    assert.equal("1", assert(code:run("1")).text) -- at once: what was interrupted gets a moment to end
    assert.is_true(code:close())
  end)

  it("is not needed: run_code takes the language's own", function()
    local execd = assert(client:discover_execd(sandbox.id))
    assert(client:run_code(execd, "shared = 5"))
    assert.equal("5", assert(client:run_code(execd, "shared", { language = "python" })).text)
    assert.is_true(client:delete_code_contexts(execd, "python"))
    assert.same({}, assert(client:list_code_contexts(execd, "python")))
  end)
end)

-- Events by hand: the code that is sent names what happens.
local SERVER = [[
  local base64 = require "opensandbox.base.base64"
  local JSON = { ["Content-Type"] = "application/json" }
  local function begin(connection, text)
    connection:start(200, { ["Content-Type"] = "text/event-stream" })
    connection:event { type = "init", text = "ctx", timestamp = 1 }
    connection:event { type = "ping", text = "pong", timestamp = 1 }
    if text then connection:event { type = "stdout", text = text, timestamp = 2 } end
    return connection
  end
  local COMPLETE = { type = "execution_complete", execution_time = 1, timestamp = 3 }
  local ERROR = { type = "error", timestamp = 4, error = { ename = "NameError", evalue = "3", traceback = json.null } }
  local runs = {}
  function runs.early_complete(connection)
    begin(connection, "first\n"):event(COMPLETE)
    connection:event { type = "stdout", text = "second" }
    connection:event { type = "stderr", text = "third\n" }
    connection:after(50, function()
      connection:event { type = "result", results = { text = "late" } }
      connection:finish()
    end)
  end
  function runs.complete_then_error(connection)
    begin(connection, "first\n"):event(COMPLETE)
    connection:event { type = "status", text = "error" }
    connection:event(ERROR)
    connection:finish()
  end
  function runs.error_then_complete(connection)
    begin(connection):event(ERROR)
    connection:event(COMPLETE)
    connection:finish()
  end
  function runs.error_twice(connection)
    begin(connection):event(ERROR)
    connection:chunk('{"code":"RUNTIME_ERROR","message":"error running codes no such column"}'):finish()
  end
  function runs.types(connection)
    begin(connection):event { type = "execution_count", execution_count = 7 }
    connection:event { type = "result", results = { text = "first" } }
    connection:event { type = "result", results = "none" }
    connection:event { type = "result", results = {
      text = "<Figure>", ["text/html"] = "<b>x</b>", ["image/svg+xml"] = "<svg/>", ["image/png"] = base64.encode("\137PNG\0\255"),
      ["application/pdf"] = base64.encode("%PDF"), ["audio/wav"] = "not base64!",
      ["application/json"] = { a = { 1, 2 }, b = json.null },
    } }
    connection:event(COMPLETE)
    connection:finish()
  end
  function runs.neither(connection) begin(connection, "so far"):finish() end
  function runs.torn(connection)
    begin(connection, "so far"):event(COMPLETE)
    connection:chunk('{"type":"stdout","text":"ab\n\n'):finish()
  end
  function runs.reset(connection) begin(connection, "so far"):event(COMPLETE):after(20, connection.reset) end
  function runs.silent(connection) begin(connection, "so far") end
  function runs.mute(connection) connection:silence() end
  function runs.late(connection) connection:after(200, function() begin(connection, "late") end) end
  function runs.busy(connection)
    begin(connection):chunk('{"code":"RUNTIME_ERROR","message":"error running codes session is busy"}'):finish()
  end
  return {
    on_request = function(request, connection)
      if request.path:find("/endpoints/") then
        return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/at", headers = {} })
      elseif request.method == "DELETE" then
        return connection:respond(200, {}, "")
      elseif request.path:find("/code/context$") then
        if json.decode(request.body).language == "cobol" then return connection:silence() end
        return connection:respond(200, JSON, json.encode { id = "ctx", language = json.decode(request.body).language })
      end
      local body = json.decode(request.body)
      state.context = body.context
      runs[body.code](connection)
    end,
  }
]]

describe("a run of code", function()
  local server, client, execd

  before_each(function()
    server = fault_server.start(SERVER)
    client = opensandbox.new(server.url, "key", { retry = false })
    execd = { url = server.url .. "/at", headers = {} }
  end)
  after_each(function()
    client:close()
    server:stop()
  end)

  local function deletions()
    local found = {}
    for _, request in ipairs(server:requests()) do
      if request.method == "DELETE" then found[#found + 1] = request.path end
    end
    return found
  end

  local function interrupted_once()
    wait_until(function() return #deletions() > 0 end, "it was not interrupted")
    wait_until(function() return client:step(0) == 0 end, "requests stay under way")
    assert.same({ "/at/code?id=ctx" }, deletions())
  end

  local function fails(what, opts)
    local result, err = client:run_code(execd, what, opts)
    assert.is_nil(result)
    assert.equal("run_code", err.op)
    return err
  end

  it("goes on after execution_complete, to the end of the stream", function()
    local result = assert(client:run_code(execd, "early_complete"))
    assert.same({ "first\nsecond", "third\n", "late" }, { result.stdout, result.stderr, result.text })
    assert.is_nil(result.error)
  end)

  it("has failed when there is an error, wherever it stands", function()
    for _, what in ipairs { "complete_then_error", "error_then_complete", "error_twice" } do
      local result = assert(client:run_code(execd, what))
      assert.same({ name = "NameError", value = "3", traceback = {} }, result.error, what)
    end
  end)

  it("gives results by MIME type: binary ones as bytes, JSON as tables", function()
    local result = assert(client:run_code(execd, "types"))
    assert.same({ "<Figure>", 7, 2 }, { result.text, result.execution_count, #result.results })
    assert.same({
      ["text/plain"] = "<Figure>", ["text/html"] = "<b>x</b>", ["image/svg+xml"] = "<svg/>", ["image/png"] = "\137PNG\0\255",
      ["application/pdf"] = "%PDF", ["audio/wav"] = "not base64!", ["application/json"] = { a = { 1, 2 } },
    }, result.results[2])
  end)

  it("always says the language, without which execd would take the code for a command", function()
    for _, case in ipairs {
      { nil, { language = "python" } },
      { { language = "go" }, { language = "go" } },
      { { context = "c" }, { id = "c", language = "python" } },
      { { context = { id = "c", language = "java" } }, { id = "c", language = "java" } },
    } do
      assert(client:run_code(execd, "types", case[1]))
      assert.same(case[2], server:state().context)
    end
  end)

  it("without an end that proves something is an error that carries what arrived", function()
    for what, code in pairs { neither = "cut", torn = "broken_event" } do
      local err = fails(what)
      assert.same({ "stream", code, "so far" }, { err.kind, err.code, err.result.stdout }, what)
    end
    assert.matches("the event stream ended before the code did$", fails("neither").message)
    assert.same({}, deletions()) -- execd has ended it
  end)

  it("is interrupted when its stream breaks", function()
    local err = fails "reset"
    assert.same({ "stream", "cut", "so far" }, { err.kind, err.code, err.result.stdout })
    interrupted_once()
  end)

  it("is interrupted when the stream is silent for too long", function()
    local err = fails("silent", { idle_timeout = 0.2 })
    assert.same({ "timeout", "idle_timeout", "so far" }, { err.kind, err.timeout_option, err.result.stdout })
    interrupted_once()
  end)

  it("is interrupted when its time is over", function()
    local err = fails("silent", { timeout = 0.2 })
    assert.same({ "timeout", "timeout", "so far" }, { err.kind, err.timeout_option, err.result.stdout })
    assert.matches("timeout of 0.2 s ran out", err.message)
    interrupted_once()
  end)

  it("is interrupted when a callback raises", function()
    local ok, problem = pcall(client.run_code, client, execd, "silent", { on_stdout = function() error("mine", 0) end })
    assert.same({ false, "mine" }, { ok, problem })
    interrupted_once()
  end)

  it("is interrupted when the task is cancelled before the first event, as soon as that is there", function()
    local task = opensandbox.spawn(function() return client:run_code(execd, "late", { context = "ctx" }) end)
    wait_until(function() return server:state().context end)
    assert.is_true(task:cancel())
    assert.equal("cancelled", select(2, task:wait(5)).kind)
    interrupted_once()
  end)

  it("in a context that runs something else was not run, and can be tried again", function()
    local err = fails "busy"
    assert.same({ "state", "busy", true }, { err.kind, err.code, err.retryable })
    assert.same({}, deletions())
  end)

  it("checks its arguments before anything is sent", function()
    local sandbox = assert(client:connect("sb", { wait = false }))
    for _, case in ipairs {
      { "run_code: the code must be a string", client.run_code, client, execd },
      { "run_code: the language \"command\" has no kernel: use run_command", client.run_code, client, execd, "ls",
        { language = "command" } },
      { "run_code: unknown option 'on_results'", client.run_code, client, execd, "1", { on_results = print } },
      { "sandbox:code: the language must be a string", sandbox.code, sandbox, 5 },
      { "sandbox:code: options 'cwd' and 'timeout' are for a new context", sandbox.code, sandbox, "go", { id = "x", cwd = "/" } },
      { "delete_code_contexts: the language must be a string", client.delete_code_contexts, client, execd },
    } do
      local ok, problem = pcall(case[2], case[3], case[4], case[5], case[6])
      assert.is_false(ok)
      assert.matches("code_spec.lua:%d+: " .. case[1], problem)
    end
  end)

  it("needs a kernel: where none starts, the error says what to look at", function()
    local sandbox = assert(client:connect("sb", { wait = false }))
    local code, err = sandbox:code("cobol", { timeout = 0.2 })
    assert.is_nil(code)
    assert.same({ "timeout", "timeout", "sandbox:code" }, { err.kind, err.timeout_option, err.op })
    assert.matches("no kernel for \"cobol\"", err.hint)
  end)

  it("leaves nothing behind: a context that nobody closed is deleted when it is collected", function()
    local sandbox = assert(client:connect("sb", { wait = false }))
    assert(sandbox:code("java"))
    collectgarbage()
    collectgarbage()
    wait_until(function() return #deletions() == 1 end)
    assert.equal("/at/code/contexts/ctx", deletions()[1])
  end)
end)

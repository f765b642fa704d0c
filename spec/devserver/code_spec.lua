--- Code in contexts of the development server: as recorded, and as a kernel does it.

local json = require "opensandbox.base.json"
local execd_client = require "spec.support.execd_client"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"

local server, sandbox
setup(function()
  server = process.devserver { grace = 0.05 }
  sandbox = execd_client.sandbox(server)
end)
teardown(function() server:stop() end)

local function create(language, cwd)
  local answer = sandbox:send("POST", "/code/context", { language = language, cwd = cwd })
  assert.equal(200, answer.status, answer.body)
  return json.decode(answer.body).id
end

local function run(id, code, options)
  return sandbox:stream("/code", { code = code, context = { id = id, language = "python" } }, options)
end

-- Events of one kind that follow each other as one: a kernel's output comes in pieces of any size.
local function joined(list)
  local result = {}
  for _, event in ipairs(list) do
    local last = result[#result]
    if last and event.type == "stdout" and last.type == "stdout" then
      last.text = last.text .. event.text
    else
      result[#result + 1] = event
    end
  end
  return result
end

-- Events without the one that says that the code is complete, which may come at any time before an error or the end; there
-- must be one.
local function without_complete(list)
  local result, count = {}, 0
  for _, event in ipairs(list) do
    if event.type == "execution_complete" then count = count + 1 else result[#result + 1] = event end
  end
  assert.equal(1, count)
  return result
end

local function result(list)
  for _, event in ipairs(list) do
    if event.type == "result" then return event.results end
  end
end

local function shown(code)
  return result(run(create("python"), code))
end

describe("a context", function()
  before_each(function()
    for _, language in ipairs { "python", "bash" } do sandbox:send("DELETE", "/code/contexts?language=" .. language) end
  end)

  it("answers like the recordings, from its creation to its end", function()
    local wanted, actual, answer = execd_client.replay(sandbox, "code-context-create")
    assert.same(wanted, actual)
    local id = json.decode(answer.body).id
    local function body(code) return { code = code, context = { id = id, language = "python" } } end
    local function compare(name, code)
      wanted, actual = execd_client.replay(sandbox, name, nil, body(code))
      wanted.body, actual.body = without_complete(wanted.body), joined(without_complete(actual.body))
      assert.same(wanted, actual)
    end
    compare("code-print", "print('hi'); print('there', end='')")
    compare("code-result", "x = 41\nx + 1")
    wanted, actual = execd_client.replay(sandbox, "code-error", nil, body "1/0")
    for _, one in ipairs { wanted, actual } do
      -- IPython colours the line of code; this server shows it.
      local trace = one.body[#one.body].error.traceback
      trace[2], trace[3] = trace[2]:gsub("%s+", " "), trace[3]:match("^Cell[^\n]*\n")
    end
    assert.same(wanted, actual)
    compare("code-html", "class H:\n    def _repr_html_(self): return '<b>hi</b>'\nH()")
    wanted, actual = execd_client.replay(sandbox, "code-slow", nil,
      body "import time\nfor i in range(3):\n    print(i, flush=True); time.sleep(0.5)")
    assert.equal(execd_client.text(wanted.body, "stdout"), execd_client.text(actual.body, "stdout"))
    assert.truthy(execd_client.kinds(actual.body):find("execution_complete stdout stdout$"))
    wanted, actual = execd_client.replay(sandbox, "code-context-get", "/code/contexts/" .. id)
    assert.same(wanted, actual)
    wanted, actual = execd_client.replay(sandbox, "code-contexts")
    assert.same(wanted, actual)
    wanted, actual = execd_client.replay(sandbox, "code-context-delete", "/code/contexts/" .. id)
    assert.same(wanted, actual)
    for _, name in ipairs { "code-context-get-unknown", "code-unknown-context" } do
      wanted, actual = execd_client.replay(sandbox, name)
      assert.same(wanted, actual, name)
    end
  end)

  it("is one of a language, listed and deleted by it", function()
    local id, other = create("bash"), create("bash", "/work/made")
    local function ids(language)
      local found = {}
      for _, context in ipairs(json.decode(sandbox:send("GET", "/code/contexts?language=" .. language).body)) do
        found[context.id] = context.language
      end
      return found
    end
    assert.same({ [id] = "bash", [other] = "bash" }, ids("bash"))
    assert.equal("bash", ids("")[id])
    assert.equal(500, sandbox:send("GET", "/code/contexts?language=sql").status)
    assert.equal(400, sandbox:send("DELETE", "/code/contexts").status)
    assert.equal(200, sandbox:send("DELETE", "/code/contexts?language=bash").status)
    assert.same({}, ids("bash"))
    assert.equal(404, sandbox:send("DELETE", "/code/contexts/" .. id).status)
  end)

  it("begins in its own directory, which is made", function()
    local list = run(create("python", "/work/deep/er"), "import os; print(os.getcwd())")
    assert.truthy(execd_client.text(list, "stdout"):find("/work/deep/er\n$"))
  end)

  it("is refused at once for a language without a kernel", function()
    for _, body in ipairs { { language = "java" }, {}, { language = "klingon" } } do
      local answer = sandbox:send("POST", "/code/context", body)
      assert.equal(500, answer.status)
      assert.truthy(answer.body:find("error creating code context. no kernel", 1, true))
    end
    assert.equal(400, sandbox:send("POST", "/code/context").status)
    local other = execd_client.sandbox(server, { env = { PATH = "/nowhere" }, entrypoint = { "/usr/bin/tail", "-f", "/dev/null" } })
    local answer = other:send("POST", "/code/context", { language = "python" })
    assert.equal(500, answer.status)
    assert.truthy(answer.body:find("python3 is not installed", 1, true))
    other:delete()
  end)
end)

describe("python code", function()
  it("keeps what it has defined, apart from other contexts", function()
    local one, other = create("python"), create("python")
    run(one, "x = 1")
    assert.equal("1\n", execd_client.text(run(one, "print(x)"), "stdout"))
    local list = run(other, "x")
    assert.equal("init execution_complete status error", execd_client.kinds(list))
    assert.equal("NameError", list[4].error.ename)
  end)

  it("runs in the default context of its language when only that is named", function()
    local list = sandbox:stream("/code", { code = "x = 7", context = { language = "python" } })
    local again = sandbox:stream("/code", { code = "x", context = { language = "python" } })
    assert.equal(list[1].text, again[1].text)
    assert.equal("7", result(again).text)
    local count = 0
    for _, context in ipairs(json.decode(sandbox:send("GET", "/code/contexts?language=python").body)) do
      if context.id == list[1].text then count = count + 1 end
    end
    assert.equal(2, count)   -- execd lists a default context twice
    assert.equal(200, sandbox:send("DELETE", "/code/contexts/" .. list[1].text).status)
  end)

  it("shows results in every form that they have", function()
    assert.same({ text = "[1, 'a']" }, shown("[1, 'a']"))
    assert.is_nil(shown("None"))
    assert.is_nil(shown("41;"))
    assert.same({ text = "p", ["image/png"] = "iVA=", ["application/json"] = { a = { 1 } } }, shown(table.concat({
      "class P:", "  def __repr__(self): return 'p'", "  def _repr_png_(self): return b'\\x89P'",
      "  def _repr_json_(self): return {'a': [1]}", "  def _repr_html_(self): return None",
      "  def _repr_svg_(self): raise ValueError()", "P()",
    }, "\n")))
    assert.same({ text = "plain", ["text/latex"] = "$x$" }, shown(
      "class B:\n  def _repr_mimebundle_(self, **k): return {'text/plain': 'plain', 'text/latex': '$x$'}\nB()"))
    assert.same({ text = "\195\169<&>\226\128\168" },
      shown("class T:\n  def __repr__(self): return '\195\169<&>' + chr(0x2028)\nT()"))
    assert.same({ text = "3" }, shown("import asyncio\nawait asyncio.sleep(0, 3)"))
  end)

  it("sends both kinds of output as it is written, characters whole", function()
    local list = run(create("python"), table.concat({
      "import sys, os",
      "sys.stderr.write('e\\n')", "print('\195\169' * 50001, flush=True)",
      "os.system('echo child; echo oops >&2')",
    }, "\n"))
    assert.equal("e\noops\n", execd_client.text(list, "stderr"))
    assert.equal(("\195\169"):rep(50001) .. "\nchild\n", execd_client.text(list, "stdout"))
    local seen
    run(create("python"), "import time\nprint('early')\ntime.sleep(2)", { on_chunk = function(text, ms)
      if text:find("early", 1, true) then seen = ms end
    end })
    assert.truthy(seen and seen < 1800)
  end)

  it("tells what went wrong", function()
    local id = create("python")
    local function failure(code)
      local list = run(id, code)
      return list[#list].error
    end
    assert.same({ "SystemExit", "3" }, { failure("import sys; sys.exit(3)").ename, failure("import sys; sys.exit(3)").evalue })
    assert.equal("StdinNotImplementedError", failure("input('?')").ename)
    assert.equal("SyntaxError", failure("1 +").ename)
    local trace = failure("def f():\n  return 1 / 0\nf()").traceback
    assert.truthy(table.concat(trace, "\n"):find("return 1 / 0", 1, true))
  end)

  it("is interrupted by the id of its context, which can be used again", function()
    for _, route in ipairs { "/code", "/command" } do
      local id = create("python")
      local child = sandbox:begin("POST", "/code", {
        code = "import time\nprint('here', flush=True)\nwhile True: time.sleep(1)", context = { id = id, language = "python" },
      })
      while not (child:read_line(5) or "here"):find("here", 1, true) do end -- luacheck: ignore 542
      assert.equal(200, sandbox:send("DELETE", route .. "?id=" .. id).status)
      assert.equal(0, (child:wait(5)))
      local list = execd_client.events(child:output())
      assert.equal("KeyboardInterrupt", list[#list].error.ename)
      child:stop()
      assert.equal("2", result(run(id, "1 + 1")).text)
      assert.equal(200, sandbox:send("DELETE", "/code?id=" .. id).status) -- nothing runs
      assert.equal("3", result(run(id, "1 + 2")).text)
    end
    assert.equal(500, sandbox:send("DELETE", "/code?id=nope").status)
  end)

  it("goes on when its client has gone, and its context is busy meanwhile", function()
    local id = create("python")
    run(id, "import time\ntime.sleep(1)\nx = 5", { on_chunk = function() return false end })
    local list, answer = run(id, "x")
    assert.equal("init -", execd_client.kinds(list))
    assert.truthy(answer.body:find('{"code":"RUNTIME_ERROR","message":"error running codes session is busy"}', 1, true))
    assert.equal("}", answer.body:sub(-1))
    local before = uv_loop.now()
    repeat list = run(id, "x") until execd_client.kinds(list) ~= "init -" or uv_loop.now() - before > 10000
    assert.equal("5", result(list).text)
  end)

  it("loses its state but not its context when its process ends", function()
    local id = create("python")
    local list = run(id, "import os\nx = 1\nprint('last', flush=True)\nos._exit(1)")
    assert.equal("last\n", execd_client.text(list, "stdout"))
    assert.truthy(list[#list].message:find("kernel died", 1, true))
    list = run(id, "x")
    assert.equal("NameError", list[#list].error.ename)
  end)

  it("leaves no descriptor open in the server when its context is deleted", function()
    local function use()
      local id = create("python")
      run(id, "print(1)")
      run(id, "import os; os._exit(1)")
      run(id, "1")
      assert.equal(200, sandbox:send("DELETE", "/code/contexts/" .. id).status)
    end
    use()
    local before = process.descriptors(server.pid)
    for _ = 1, 3 do use() end
    assert.truthy(uv_loop.wait(function() return process.descriptors(server.pid) <= before end, 5))
  end)

  it("has results of any size", function()
    assert.equal(5000002, #shown("'x' * 5000000").text)
  end)

  it("waits while a client is slow, and sends all", function()
    local list = run(create("python"), "for i in range(300000): print(i)")
    assert.equal(1988890, #execd_client.text(list, "stdout"))
  end)

  it("stops with a sandbox that is paused, and ends with it", function()
    local other = execd_client.sandbox(server)
    local id = json.decode(other:send("POST", "/code/context", { language = "python" }).body).id
    local mark = "71" .. tostring(math.floor(uv_loop.now() * 1000)):sub(-7)
    other:stream("/code", { code = ("import os\nos.system('sleep %s')"):format(mark), context = { id = id, language = "python" } },
      { on_chunk = function() return false end })
    assert.truthy(uv_loop.wait(function() return #process.running("sleep " .. mark) > 0 end, 3))
    assert.equal(202, other:api("POST", "/" .. other.id .. "/pause").status)
    assert.equal(202, other:api("POST", "/" .. other.id .. "/resume").status)
    assert.equal(204, other:delete())
    -- A process that was killed may exist for a moment longer.
    assert.truthy(uv_loop.wait(function() return #process.running("sleep " .. mark) == 0 end, 3))
  end)
end)

describe("bash code", function()
  local function bash(id, code)
    return sandbox:stream("/code", { code = code, context = { id = id, language = "bash" } })
  end

  it("keeps variables, functions and the directory", function()
    local id = create("bash")
    bash(id, "A=1; f() { echo \"f $A\"; }; cd /usr")
    local list = bash(id, "f; pwd; echo err >&2")
    assert.equal("f 1\n/usr\nerr\n", execd_client.text(list, "stdout"))
    assert.equal("execution_complete", list[#list].type)
  end)

  it("tells how it ended", function()
    local list = bash(create("bash"), "echo x; (exit 3)")
    assert.equal("error", list[#list].type)
    assert.equal("3", list[#list].error.evalue)
  end)

  it("is interrupted, and goes on", function()
    local id = create("bash")
    local child = sandbox:begin("POST", "/code", {
      code = "echo here; sleep 60; echo never", context = { id = id, language = "bash" },
    })
    while not (child:read_line(5) or "here"):find("here", 1, true) do end -- luacheck: ignore 542
    assert.equal(200, sandbox:send("DELETE", "/code?id=" .. id).status)
    assert.equal(0, (child:wait(5)))
    assert.falsy(child:output():find("never", 1, true))
    child:stop()
    assert.equal("again\n", execd_client.text(bash(id, "echo again"), "stdout"))
  end)
end)

describe("code without a language", function()
  it("runs as a shell command, even with the id of a context", function()
    for _, context in ipairs { {}, { id = create("python") }, { language = "command" } } do
      local list = sandbox:stream("/code", { code = "echo $0; exit 3", context = context })
      assert.equal("init stdout error", execd_client.kinds(list))
      assert.equal("CommandExecError", list[3].error.ename)
      assert.truthy(list[1].text:find("^" .. ("%x"):rep(32) .. "$"))
    end
  end)

  it("is refused when there is none, and when its language is unknown", function()
    assert.equal(400, sandbox:send("POST", "/code", {}).status)
    local answer = sandbox:send("POST", "/code", { code = "1", context = { language = "klingon" } })
    assert.equal(500, answer.status)
    assert.truthy(answer.body:find("unknown language", 1, true))
    assert.equal(500, sandbox:send("POST", "/code", { code = "1", context = { language = "java" } }).status)
  end)
end)

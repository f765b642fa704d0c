--- The code interpreter, as the official end-to-end suites try it: tests/go code_interpreter_e2e; tests/python
--- test_code_interpreter_e2e 01, 03, and 06 to 09; tests/javascript test_code_interpreter_e2e 01, 01b, 03, and 05 to 07. The C# suite's
--- RunStreamAsync.
--
-- What of all suites is not played here, nor in the files beside this one, and why:
--
--   java, go, typescript (02, 04, 05, and their part of 06)    the development server has kernels for Python and Bash only
--   complete events of java's and python's errors               they prove nothing of code, and our results do not have them
--   volumes: host, PVC, subPath (01b-01f, Go volume)            real mounts; the development server refuses volumes
--   pools over Redis: several nodes, failover, expiry           our pool is of one process, and the server's are Kubernetes'
--   pools: resize, idempotent start and shutdown by name        our pool has neither names nor a state of its own to resize
--   policies and credentials that take effect on requests       the development server keeps them, and enforces none
--   signed endpoints, secure access (01, Java)                  Kubernetes; a server on Docker refuses them, and so does ours
--   renewal by access (01ac)                                    the extension is taken, and nothing is renewed by it
--   host networking, endpoints that end with 44772 on Docker    the shape is in lifecycle_spec, the forwarding is the server's
--   health checks of one's own                                  wait = false, and a loop of one's own
--   replace without counts (03)                                 our client always asks for them
--   agents (Go scenario_agent)                                  need a language model
--   twins (_sync)                                               every call of ours is both

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local Fixture = require "spec.support.fixture"

local fixture, client, sandbox, execd

setup(function()
  fixture = Fixture.new()
  client, sandbox = fixture.client, fixture.sandbox
  execd = fixture:execd()
end)
teardown(function() fixture:close() end)

-- Plays `fn` with a code context that ends with it.
local function with_context(language, fn)
  local code = assert(sandbox:code(language))
  fn(code)
  assert(code:close())
end

describe("a sandbox with a code interpreter", function()
  it("is well, has an endpoint, tells its load and can be renewed", function()
    assert.equal("Running", assert(sandbox:info()).state)
    assert.truthy(assert(sandbox:endpoint(44772)).url:find("44772$"))
    assert(client:ping(execd))
    assert.is_true(assert(sandbox:metrics()).cpu_count > 0)
    assert.is_true(assert(sandbox:renew(900)) > core.wall_clock())
  end)
end)

describe("code in Python", function()
  it("needs nothing but its language", function()
    local result = assert(client:run_code(execd, "result = 2 + 2\nresult", { language = "python" }))
    assert.equal("4", result.text)
    assert.equal("4", result.results[1]["text/plain"])
    assert.is_nil(result.error)
  end)

  it("tells what it prints, what it is worth and what goes wrong, as it happens", function()
    with_context("python", function(code)
      local init, out, err, results = 0, {}, {}, {}
      local handlers = {
        on_event = function(event) if event.type == "init" then init = init + 1 end end,
        on_stdout = function(text) out[#out + 1] = text end, on_stderr = function(text) err[#err + 1] = text end,
        on_result = function(result) results[#results + 1] = result["text/plain"] end,
      }
      local result = assert(code:run("import sys\nprint('Hello from Python!')\nsys.stderr.write('trouble\\n')\n2 + 2", handlers))
      assert.same({ 1, "Hello from Python!\n", "trouble\n", { "4" } }, { init, table.concat(out), table.concat(err), results })
      assert.same({ "Hello from Python!\n", "trouble\n", "4" }, { result.stdout, result.stderr, result.text })
    end)
  end)

  it("finds the variables of before in its context", function()
    with_context("python", function(code)
      assert.is_nil(assert(code:run("x = 42")).error)
      assert.equal("42\n", assert(code:run("print(x)")).stdout)
      assert.equal("84", assert(code:run("x * 2")).text)
    end)
  end)

  it("that fails has the error's name, and no result", function()
    with_context("python", function(code)
      local result = assert(code:run("undefined_variable"))
      assert.equal("NameError", result.error.name)
      assert.truthy(result.error.value:find("undefined_variable", 1, true))
      assert.is_true(#result.error.traceback > 0)
      assert.is_nil(result.text)
      assert.equal("1\n", assert(code:run("print(1)")).stdout)
    end)
  end)
end)

describe("contexts", function()
  it("do not see each other's variables", function()
    with_context("python", function(one)
      with_context("python", function(two)
        assert.is_nil(assert(one:run("secret = 'mine'")).error)
        assert.equal("NameError", assert(two:run("print(secret)")).error.name)
        assert.equal("mine\n", assert(one:run("print(secret)")).stdout)
      end)
    end)
  end)

  it("of two languages live side by side", function()
    with_context("python", function(python)
      with_context("bash", function(bash)
        assert.equal("from python\n", assert(python:run("print('from python')")).stdout)
        assert.equal("from bash\n", assert(bash:run("echo from bash")).stdout)
      end)
    end)
  end)

  it("run at the same time, three of them", function()
    local contexts = {}
    for number = 1, 3 do contexts[number] = assert(sandbox:code("python")) end
    local began = core.now()
    local results, errors = opensandbox.map(contexts, function(code, number)
      return assert(code:run(("import time\ntime.sleep(0.5)\nprint('context', %d)\n%d * 10"):format(number, number)))
    end)
    assert.is_nil(errors)
    assert.is_true(core.now() - began < 15)
    for number = 1, 3 do
      assert.equal(("context %d\n"):format(number), results[number].stdout)
      assert.equal(tostring(number * 10), results[number].text)
      assert(contexts[number]:close())
    end
  end)

  it("are made, got, listed and deleted one by one", function()
    local context = assert(client:create_code_context(execd, "bash"))
    assert.truthy(context.id ~= "")
    assert.equal("bash", context.language)
    assert.same(context, assert(client:get_code_context(execd, context.id)))
    local function listed(language)
      for _, one in ipairs(assert(client:list_code_contexts(execd, language))) do
        if one.id == context.id then return true end
      end
      return false
    end
    assert.same({ true, true, false }, { listed(), listed("bash"), listed("python") })
    assert(client:delete_code_context(execd, context.id))
    local gone, err = client:get_code_context(execd, context.id)
    assert.is_nil(gone)
    assert.equal(404, err.status)
    assert.is_false(listed())
  end)

  it("are deleted all together, those of one language", function()
    local python = assert(client:create_code_context(execd, "python"))
    assert(client:create_code_context(execd, "bash"))
    assert(client:create_code_context(execd, "bash"))
    assert(client:delete_code_contexts(execd, "bash"))
    assert.same({}, assert(client:list_code_contexts(execd, "bash")))
    assert.equal(python.id, assert(client:get_code_context(execd, python.id)).id)
    assert(client:delete_code_context(execd, python.id))
  end)
end)

describe("code that is interrupted", function()
  it("ends soon with an error, and its context is good for more", function()
    with_context("python", function(code)
      local printed = ""
      local began = core.now()
      local running = opensandbox.spawn(function()
        return assert(code:run("import time\nfor i in range(300):\n  print('tick', i, flush=True)\n  time.sleep(0.1)", {
          on_stdout = function(text) printed = printed .. text end,
        }))
      end)
      local deadline = core.now() + 10
      while printed == "" do
        assert.is_true(core.now() < deadline, "nothing was printed")
        opensandbox.sleep(0.02)
      end
      assert(code:interrupt())
      local result = assert(running:wait { timeout = 20 })
      assert.is_true(core.now() - began < 20)
      assert.equal("KeyboardInterrupt", result.error.name)
      assert.truthy(result.stdout:find("tick 0", 1, true))
      assert.equal("4", assert(code:run("2 + 2")).text)
    end)
  end)

  it("because its time is over is an error, and its context is good for more", function()
    with_context("python", function(code)
      local result, err = code:run("import time\ntime.sleep(30)", { timeout = 0.5 })
      assert.is_nil(result)
      assert.equal("timeout", err.kind)
      assert.equal("4", assert(code:run("2 + 2")).text)
    end)
  end)

  it("although nobody has such a context, is an error", function()
    local ok, err = client:interrupt_code(execd, "no-such-context")
    assert.is_nil(ok)
    assert.equal("http", err.kind)
  end)
end)

--- Tasks in a script without an event loop: they run beside each other, nothing they say is lost, and nobody waits for ever.

local errors = require "opensandbox.base.errors"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local Fixture = require "spec.support.fixture"
local temporary = require "spec.support.temporary"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local spawn, sleep, map, now = opensandbox.spawn, opensandbox.sleep, opensandbox.map, opensandbox.now

local PUC51 = _VERSION == "Lua 5.1" and rawget(_G, "jit") == nil

local function pack(...) return { n = select("#", ...), ... } end

local function collect()
  collectgarbage()
  collectgarbage()
end

-- Runs a script that has `opensandbox` in a Lua of its own; gives its exit code, what it printed and what it complained about.
local function script(text)
  local child = process.start {
    argv = { process.lua(), "-e", 'local opensandbox = require "opensandbox"\n' .. text }, env = process.module_paths(),
  }
  local code = child:wait(20)
  local output = child:output()
  child:stop()
  return code, output, child:stderr_text()
end

local function count(text, what)
  return select(2, text:gsub(what:gsub("%p", "%%%0"), ""))
end

local UNHEARD = "opensandbox: a task failed, and nobody waited for it: "

describe("a task", function()
  it("begins later, when somebody waits", function()
    local log = {}
    local task = spawn(function() log[#log + 1] = "task" end)
    log[#log + 1] = "spawned"
    assert.is_false(task:done())
    task:wait()
    assert.is_true(task:done())
    assert.same({ "spawned", "task" }, log)
  end)

  it("gets its arguments and gives its results, nils among them", function()
    local task = spawn(function(...) return select("#", ...), ... end, nil, "b", nil)
    assert.same({ n = 4, 3, nil, "b", nil }, pack(task:wait()))
    assert.equal(0, pack(spawn(function() end):wait()).n)
  end)

  it("can be waited for again, and by several", function()
    local task = spawn(function()
      sleep(0.01)
      return "result", 2
    end)
    local others = {}
    for i = 1, 5 do others[i] = spawn(function() return task:wait() end) end
    for i = 1, 5 do assert.same({ n = 2, "result", 2 }, pack(others[i]:wait())) end
    assert.same({ n = 2, "result", 2 }, pack(task:wait()))
    assert.same({ n = 2, "result", 2 }, pack(task:wait { timeout = 1 }))
  end)

  it("goes on when who waits for it has had enough", function()
    local released = false
    local task = spawn(function()
      while not released do sleep(0.01) end
      return "late"
    end)
    local began = now()
    local value, err = task:wait { timeout = 0.02 }
    assert.is_nil(value)
    assert.equal("timeout", err.kind)
    assert.equal("task:wait", err.op)
    assert.truthy(tostring(err):find("0.02 s", 1, true))
    assert.is_true(now() - began >= 0.02)
    assert.is_false(task:done())
    released = true
    assert.equal("late", task:wait())
    local other = spawn(function()
      local inner = spawn(function() sleep(0.05) return "inner" end)
      local nothing, problem = inner:wait { timeout = 0.01 }
      return nothing, problem.kind, inner:wait { timeout = 5 }
    end)
    assert.same({ n = 3, nil, "timeout", "inner" }, pack(other:wait()))
  end)

  it("that raises has its error raised to all who wait, unchanged", function()
    for _, value in ipairs { "text", { a = 1 }, false, 7 } do
      local task = spawn(function()
        sleep(0)
        error(value, 0)
      end)
      local other = spawn(function() return opensandbox.pcall(task.wait, task) end)
      for _ = 1, 2 do
        local ok, got = pcall(task.wait, task)
        assert.is_false(ok)
        assert.equal(value, got)
      end
      assert.same({ n = 2, false, value }, pack(other:wait()))
    end
    local ok, got = pcall(function() spawn(error):wait() end)
    assert.is_false(ok)
    assert.is_nil(got)
  end)

  it("gives nil and an error as it would have from a function", function()
    local err = errors.new { kind = "state", message = "no" }
    local task = spawn(function() return nil, err end)
    local value, got = task:wait()
    assert.is_nil(value)
    assert.equal(err, got)
  end)

  it("is not collected while it runs, though nobody refers to it", function()
    local finished = 0
    for _ = 1, 20 do
      spawn(function()
        sleep(0.02)
        collect()
        sleep(0.02)
        finished = finished + 1
      end)
    end
    local deadline = now() + 30 -- a collection of all that other tests hold takes its time
    while finished < 20 and now() < deadline do
      collect()
      sleep(0.005)
    end
    assert.equal(20, finished)
  end)

  it("is collected when it has ended, with all it held", function()
    local held = setmetatable({}, { __mode = "k" })
    for _ = 1, 10 do
      local thing = {}
      held[thing] = true
      spawn(function()
        sleep(0.001)
        return thing
      end):wait()
    end
    collect()
    assert.is_nil(next(held))
  end)

  it("can be spawned in a task, to any depth", function()
    local function nest(depth)
      if depth == 0 then return "bottom" end
      return spawn(nest, depth - 1):wait()
    end
    assert.equal("bottom", spawn(nest, 50):wait())
  end)

  it("is one of thousands", function()
    local tasks, sum = {}, 0
    for i = 1, 5000 do
      tasks[i] = spawn(function()
        sleep(0.001 * (i % 10))
        sum = sum + 1
        return i
      end)
    end
    for i = 1, 5000 do assert.equal(i, tasks[i]:wait()) end
    assert.equal(5000, sum)
  end)

  it("may end with a value that looks like an error of its own and is not reported as one", function()
    assert.same({ n = 2, nil, "plain text" }, pack(spawn(function() return nil, "plain text" end):wait()))
  end)

  it("takes a function only, and says so at the caller's line", function()
    local ok, problem = pcall(spawn, "print")
    assert.is_false(ok)
    assert.truthy(problem:find("spawn", 1, true))
    assert.has_error(function() spawn(print):wait { timeout = 0 } end)
    assert.has_error(function() sleep(-1) end)
  end)
end)

describe("a task and other coroutines", function()
  it("may yield by itself, and be resumed by whom it likes", function()
    local thread
    local task = spawn(function()
      thread = coroutine.running()
      local value = coroutine.yield()
      sleep(0.01)
      return value, "after"
    end)
    while not thread do sleep(0) end
    for _ = 1, 5 do sleep(0) end
    assert.is_false(task:done())
    assert.is_true((coroutine.resume(thread, "a value")))
    assert.same({ n = 2, "a value", "after" }, pack(task:wait()))
  end)

  it("has ended when the code that resumed it ran it to its end", function()
    local thread
    local task = spawn(function()
      thread = coroutine.running()
      return coroutine.yield(), nil
    end)
    while not thread do sleep(0) end
    local waiting = spawn(function() return task:wait() end)
    sleep(0)
    assert.is_true((coroutine.resume(thread, "a value")))
    assert.same({ n = 2, "a value", nil }, pack(task:wait { timeout = 5 }))
    assert.same({ n = 2, "a value", nil }, pack(waiting:wait { timeout = 5 }))
  end)

  it("is not taken for ready when others resume it while it waits for us", function()
    local thread
    local task = spawn(function()
      thread = coroutine.running()
      local began = now()
      sleep(0.05)
      return now() - began
    end)
    while not thread do sleep(0) end
    for _ = 1, 3 do coroutine.resume(thread, "not meant for the library") end
    assert.is_true(task:wait() >= 0.05)
  end)

  it("lets a call in a coroutine of the user's block, and the other tasks go on meanwhile", function()
    local ticks = 0
    local ticking = true
    local ticker = spawn(function()
      while ticking do
        ticks = ticks + 1
        sleep(0.002)
      end
    end)
    local task = spawn(function()
      local values = {}
      local generate = coroutine.wrap(function()
        for i = 1, 3 do
          local before, deadline = ticks, now() + 10
          while ticks < before + 2 and now() < deadline do sleep(0.02) end
          coroutine.yield(i)
        end
      end)
      for _ = 1, 3 do values[#values + 1] = generate() end -- a yield of ours would come out here
      return values
    end)
    assert.same({ 1, 2, 3 }, task:wait())
    assert.is_true(ticks >= 5, "the others stood still")
    ticking = false
    ticker:wait()
  end)

  it("lets such a call block outside of tasks too", function()
    local generate = coroutine.wrap(function()
      local value = spawn(function()
        sleep(0.01)
        return "value"
      end):wait()
      coroutine.yield(value)
    end)
    assert.equal("value", generate())
  end)
end)

describe("waiting", function()
  it("is an error, and not for ever, when tasks wait for each other", function()
    local a, b
    a = spawn(function() return b:wait() end)
    b = spawn(function() return a:wait() end)
    local ok, problem = pcall(a.wait, a)
    assert.is_false(ok)
    assert.truthy(tostring(problem):find("wait for ever", 1, true))
    assert.truthy(tostring(problem):find("task_spec", 1, true), "not at the caller's line: " .. tostring(problem))
    a:cancel()
    assert.equal("cancelled", select(2, a:wait()).kind)
    assert.equal("cancelled", select(2, b:wait()).kind)
  end)

  it("is an error when a task waits for itself", function()
    local task
    task = spawn(function() return task:wait() end)
    assert.is_false((pcall(task.wait, task)))
    task:cancel()
    assert.equal("cancelled", select(2, task:wait()).kind)
  end)

  it("has an end by the clock, even then", function()
    local task
    task = spawn(function() return task:wait { timeout = 0.02 } end)
    local _, err = task:wait()
    assert.equal("timeout", err.kind)
  end)
end)

describe("sleep", function()
  it("lasts as long as it is told, in the order of the times", function()
    local log, tasks = {}, {}
    local began = now()
    for i, seconds in ipairs { 0.06, 0.02, 0.04, 0 } do
      tasks[i] = spawn(function()
        assert.is_true(sleep(seconds))
        log[#log + 1] = seconds
        return now() - began
      end)
    end
    local most = { 0.06, 0.02, 0.04, 0 }
    for i, task in ipairs(tasks) do
      local took = task:wait()
      assert.is_true(took >= most[i], "woken early")
      assert.is_true(took < most[i] + 0.25, "woken late")
    end
    assert.same({ 0, 0.02, 0.04, 0.06 }, log)
  end)

  it("of no time lets the others have their turn", function()
    local log = {}
    local function speak(name)
      for i = 1, 3 do
        log[#log + 1] = name .. i
        sleep(0)
      end
    end
    local a, b = spawn(speak, "a"), spawn(speak, "b")
    a:wait()
    b:wait()
    assert.equal("a1 b1 a2 b2 a3 b3", table.concat(log, " "))
  end)

  it("outside of a task blocks, while the tasks go on", function()
    local ticks = 0
    local task = spawn(function()
      for _ = 1, 5 do
        sleep(0.005)
        ticks = ticks + 1
      end
    end)
    local began = now()
    sleep(0.2)
    assert.is_true(now() - began >= 0.2)
    assert.equal(5, ticks)
    assert.is_true(task:done())
  end)
end)

describe("map", function()
  it("gives the results in the order of the items, whichever ended first", function()
    local results, failures = map({ 0.03, 0.01, 0.02 }, function(seconds, i)
      sleep(seconds)
      return i .. ":" .. seconds
    end)
    assert.same({ "1:0.03", "2:0.01", "3:0.02" }, results)
    assert.is_nil(failures)
  end)

  it("never runs more at once than it may, and as many as it may", function()
    local items = {}
    for i = 1, 50 do items[i] = i end
    for _, bound in ipairs { 1, 3, 7, 100 } do
      local running, most = 0, 0
      local results = map(items, function(i)
        running = running + 1
        most = math.max(most, running)
        sleep(0.001 * (i % 3))
        running = running - 1
        return i
      end, { concurrency = bound })
      assert.equal(math.min(bound, 50), most)
      assert.same(items, results)
    end
    local running, most = 0, 0
    map(items, function()
      running = running + 1
      most = math.max(most, running)
      sleep(0.001)
      running = running - 1
    end)
    assert.equal(16, most)
  end)

  it("keeps the errors apart, and goes on after them", function()
    local results, failures = map({ 1, 2, 3, 4 }, function(i)
      if i % 2 == 0 then return nil, "even " .. i end
      return i
    end, { concurrency = 2 })
    assert.same({ [1] = 1, [3] = 3 }, results)
    assert.same({ [2] = "even 2", [4] = "even 4" }, failures)
    results = map({ 1, 2 }, function(i) return i == 2 end)
    assert.same({ false, true }, results)
  end)

  it("of nothing is nothing", function()
    local results, failures = map({}, error)
    assert.same({}, results)
    assert.is_nil(failures)
  end)

  it("that raises has ended all it began, and begins nothing more", function()
    local begun, ended, cancelled = 0, 0, 0
    local value = {}
    local items = {}
    for i = 1, 20 do items[i] = i end
    local ok, problem = pcall(map, items, function(i)
      begun = begun + 1
      if i == 3 then
        sleep(0.01)
        error(value)
      end
      local _, err = sleep(10)
      if err and err.kind == "cancelled" then cancelled = cancelled + 1 end
      ended = ended + 1
      return nil, err
    end, { concurrency = 5 })
    assert.is_false(ok)
    assert.equal(value, problem)
    assert.same({ 5, 4, 4 }, { begun, ended, cancelled })
  end)

  it("raises the first of several errors", function()
    local ok, problem = pcall(map, { 1, 2, 3 }, function(i)
      sleep(0.02 * i)
      error("error " .. i, 0)
    end)
    assert.is_false(ok)
    assert.equal("error 1", problem)
  end)

  it("can be used inside itself, and in a task", function()
    local results = spawn(function()
      return map({ 1, 2, 3 }, function(i)
        return map({ 10, 20 }, function(j)
          sleep(0.001)
          return i * j
        end)
      end, { concurrency = 2 })
    end):wait()
    assert.same({ { 10, 20 }, { 20, 40 }, { 30, 60 } }, results)
  end)

  it("that is cancelled cancels what it began, and returns when that has ended", function()
    local begun, ended = 0, 0
    local task = spawn(function()
      local results, err = map({ 1, 2, 3, 4, 5, 6 }, function()
        begun = begun + 1
        local ok, problem = sleep(20)
        assert(not ok and problem.kind == "cancelled")
        ended = ended + 1
        return nil, problem
      end, { concurrency = 3 })
      return results, err, ended
    end)
    while begun < 3 do sleep(0) end
    local began = now()
    assert.is_true(task:cancel())
    local results, err, ended_by_then = task:wait()
    assert.is_nil(results)
    assert.equal("cancelled", err.kind)
    assert.same({ 3, 3 }, { begun, ended_by_then })
    assert.is_true(now() - began < 2)
  end)

  it("checks what it is given", function()
    assert.has_error(function() map({}, print, { concurrency = 0 }) end)
    assert.has_error(function() map({}, print, { concurrent = 3 }) end)
    assert.has_error(function() map(nil, print) end)
    local callable = setmetatable({}, { __call = function(_, item) return item + 1 end })
    assert.same({ 2, 3 }, (map({ 1, 2 }, callable)))
  end)
end)

describe("an error that nobody waits for", function()
  it("is reported once, with the place it came from", function()
    local code, output, complaint = script [[
      local function culprit() error("a mistake") end
      opensandbox.spawn(function() opensandbox.sleep(0) culprit() end)
      opensandbox.sleep(0.01)
      collectgarbage() collectgarbage()
      io.stderr:write("-- still running\n")
    ]]
    assert.equal(0, code, complaint)
    assert.equal("", output)
    assert.equal(1, count(complaint, UNHEARD), complaint)
    assert.truthy(complaint:find("a mistake", 1, true))
    assert.truthy(complaint:find("traceback", 1, true), complaint)
    assert.truthy(complaint:find("culprit", 1, true) or complaint:find("%-e.+%-e"), complaint)
    assert.truthy(complaint:find("a mistake.*still running"), "it was reported late: " .. complaint)
  end)

  it("is reported at the end of the script at the latest, errors of every type", function()
    local code, _, complaint = script [[
      kept = {}
      for i, value in ipairs { "text", { table = true }, 5, false } do
        kept[i] = opensandbox.spawn(function() error(value, 0) end)
      end
      kept[5] = opensandbox.spawn(error)
      opensandbox.sleep(0)
    ]]
    assert.equal(0, code, complaint)
    assert.equal(5, count(complaint, UNHEARD), complaint)
    for _, text in ipairs { "text", "table: ", "5", "false", "nil" } do
      assert.truthy(complaint:find(UNHEARD .. text, 1, true), text .. " is missing: " .. complaint)
    end
  end)

  it("is reported when it was returned and is one of ours", function()
    local code, _, complaint = script [[
      local client = opensandbox.new("http://127.0.0.1:1", "key", { retry = false })
      opensandbox.spawn(function() return client:get_sandbox("x") end)
      opensandbox.spawn(function() return nil, "just a value" end)
      opensandbox.sleep(0.2)
      client:close()
    ]]
    assert.equal(0, code, complaint)
    assert.equal(1, count(complaint, UNHEARD), complaint)
    assert.truthy(complaint:find("connection refused", 1, true), complaint)
  end)

  it("is not reported when somebody has heard it, nor when the task was cancelled", function()
    local code, _, complaint = script [[
      local client = opensandbox.new("http://127.0.0.1:1", "key", { retry = false })
      local a = opensandbox.spawn(error, "heard")
      assert(not pcall(a.wait, a))
      local b = opensandbox.spawn(function() return client:get_sandbox("x") end)
      assert(select(2, b:wait()).kind == "transport")
      local c = opensandbox.spawn(function() return opensandbox.sleep(10) end)
      local d = opensandbox.spawn(function() opensandbox.assert(opensandbox.sleep(10)) end)
      local e = opensandbox.spawn(function() while true do opensandbox.sleep(10) end end)
      opensandbox.sleep(0)
      local f = opensandbox.spawn(function() return opensandbox.sleep(10) end)
      for _, task in ipairs { c, d, e, f } do task:cancel() end
      opensandbox.sleep(0.01)
      assert(c:done() and d:done() and e:done() and f:done())
      a, b, c, d, e, f = nil
      client:close()
    ]]
    assert.equal(0, code, complaint)
    assert.equal("", complaint)
  end)

  it("is reported when who waited had gone before", function()
    local code, _, complaint = script [[
      local a = opensandbox.spawn(function() opensandbox.sleep(0.05) error("too late", 0) end)
      assert(select(2, a:wait { timeout = 0.01 }).kind == "timeout")
      opensandbox.sleep(0.1)
      a = nil
    ]]
    assert.equal(0, code, complaint)
    assert.equal(1, count(complaint, UNHEARD .. "too late"), complaint)
  end)
end)

describe("tasks and the network", function()
  local server, url, opened

  setup(function()
    -- Answers after 50 ms, except for "silent". It answers "held" when "release" is requested, and those of a "meeting" when all thirty
    -- have arrived.
    server = fault_server.start [[
      local held
      local meeting = {}
      return function(request, connection)
        local id = request.path:match("[^/]+$")
        local function respond(to, name)
          to:respond(200, { ["Content-Type"] = "application/json" }, json.encode {
            id = name, status = { state = "Running" }, createdAt = "2026-01-01T00:00:00Z",
          })
        end
        if id:find("silent", 1, true) then return connection:silence() end
        if id == "held" then
          held = connection
          return connection:silence()
        elseif id == "release" then
          respond(held, "held")
        elseif id:find("meeting", 1, true) then
          meeting[#meeting + 1] = { connection, id }
          if #meeting < 30 then return connection:silence() end
          for _, one in ipairs(meeting) do respond(one[1], one[2]) end
          return
        end
        connection:after(50, function() respond(connection, id) end)
      end
    ]]
    url = server.url
  end)
  teardown(function() server:stop() end)
  before_each(function() opened = {} end)
  after_each(function()
    for _, client in ipairs(opened) do
      client:close()
      assert.equal(0, client:step(0))
    end
  end)

  local function new()
    local client = opensandbox.new(url, "key")
    opened[#opened + 1] = client
    return client
  end

  it("wait beside each other, over one client and over several", function()
    local clients = { new(), new(), new() }
    local items = {}
    for i = 1, 30 do items[i] = i end
    local function get(i) return assert(clients[i % 3 + 1]:get_sandbox("meeting" .. i)).id end
    local results = map(items, get, { concurrency = 30 })
    for i = 1, 30 do assert.equal("meeting" .. i, results[i]) end
  end)

  it("go on while the main program waits for an answer", function()
    local client, other = new(), new()
    local task = spawn(function()
      for _ = 1, 5 do sleep(0.002) end
      return assert(other:get_sandbox("release")).id -- without it the main program waits in vain
    end)
    assert.equal("held", assert(client:get_sandbox("held")).id)
    assert.equal("release", task:wait(5))
  end)

  it("are told when their client is closed, and those of another client are not", function()
    local client, other = new(), new()
    local tasks = {}
    for i = 1, 5 do tasks[i] = spawn(function() return client:get_sandbox("silent" .. i) end) end
    local unharmed = spawn(function() return other:get_sandbox("fine") end)
    sleep(0.02)
    client:close()
    for i = 1, 5 do
      local value, err = tasks[i]:wait(5)
      assert.is_nil(value)
      assert.equal("closed", err.kind, tostring(err))
    end
    assert.equal("fine", assert(unharmed:wait(5)).id)
  end)

  it("can close their client while others wait on it", function()
    local client = new()
    local waiting = spawn(function() return client:get_sandbox("silent") end)
    local closing = spawn(function()
      sleep(0.01)
      client:close()
      local _, err = client:get_sandbox("too-late")
      return err.kind
    end)
    assert.equal("closed", closing:wait(5))
    assert.equal("closed", select(2, waiting:wait { timeout = 5 }).kind)
  end)

  it("let a call in a coroutine of the user's block for an answer", function()
    local client = new()
    local ids = spawn(function()
      local list = {}
      local generate = coroutine.wrap(function()
        for i = 1, 3 do coroutine.yield(assert(client:get_sandbox("g" .. i)).id) end
      end)
      for i = 1, 3 do list[i] = generate() end
      return list
    end)
    local beside = spawn(function() return assert(client:get_sandbox("beside")).id end)
    assert.same({ "g1", "g2", "g3" }, ids:wait(5))
    assert.equal("beside", beside:wait(5))
  end)

  it("may use opensandbox.pcall around what waits, on every Lua", function()
    local client = new()
    local ok, info = spawn(function()
      return opensandbox.pcall(client.get_sandbox, client, "protected")
    end):wait(5)
    assert.is_true(ok)
    assert.equal("protected", info.id)
  end)

  it("survive a wait inside Lua's own pcall: an error in 5.1, an answer elsewhere", function()
    local client = new()
    local ok, info = spawn(function() return pcall(client.get_sandbox, client, "protected") end):wait(5)
    if PUC51 then
      assert.is_false(ok)
      assert.truthy(tostring(info):find("yield across", 1, true), tostring(info))
    else
      assert.is_true(ok)
      assert.equal("protected", info.id)
    end
    local again = spawn(function()
      pcall(sleep, 0.001)
      local first = client:get_sandbox("again")
      sleep(0.001)
      return first
    end)
    assert.equal("again", assert(again:wait(5)).id)
    assert.equal("main", assert(client:get_sandbox("main")).id)
    local deadline = now() + 2
    while client:step(0.01) > 0 and now() < deadline do sleep(0) end
    assert.equal(0, client:step(0), "the request of the failed wait goes on")
  end)
end)

describe("callbacks in a task may call the library", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  local function in_task(fn, ...) return spawn(fn, ...):wait(20) end

  it("when output comes", function()
    local result = assert(in_task(function()
      return sandbox:run("echo a; echo b >&2", {
        on_stdout = function(text) assert(sandbox.files:write("/tmp/stdout", text)) end,
        on_stderr = function(text) assert(sandbox.files:write("/tmp/stderr", text)) end,
      })
    end))
    assert.equal(0, result.exit_code)
    assert.equal("a\n", sandbox.files:read("/tmp/stdout"))
    assert.equal("b\n", sandbox.files:read("/tmp/stderr"))
  end)

  it("when an upload wants bytes, and when it tells how far it is", function()
    local pieces, seen = 0, 0
    assert(in_task(function()
      return sandbox.files:write("/tmp/up", function()
        pieces = pieces + 1
        sleep(0.001)
        assert(sandbox.files:exists("/"))
        return pieces <= 3 and "piece " .. pieces .. "\n" or nil
      end)
    end))
    assert.equal("piece 1\npiece 2\npiece 3\n", sandbox.files:read("/tmp/up"))
    local path = temporary.path()
    assert(in_task(function()
      return sandbox.files:download("/tmp/up", path, { on_progress = function()
        seen = seen + 1
        assert(sandbox:info())
      end })
    end))
    os.remove(path)
    assert.is_true(seen > 0)
  end)

  it("when a state changes, and when a callback fails after a wait", function()
    local states = {}
    local other = assert(in_task(function()
      return client:create { image = "any", on_state = function(info)
        sleep(0.001)
        states[#states + 1] = assert(client:get_sandbox(info.id)).state
      end }
    end))
    assert.is_true(#states > 0)
    assert(other:kill())
    local value = {}
    local ok, problem = pcall(in_task, sandbox.run, sandbox, "echo x; sleep 20", { on_stdout = function()
      sleep(0.001)
      error(value)
    end })
    assert.is_false(ok)
    assert.equal(value, problem)
  end)
end)

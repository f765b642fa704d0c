--- What happens between a task's check and its wait. A finalizer can run there: it can run a step of the scheduler, which resumes other tasks,
--- and it can close and cancel. What it reports, it reports to nobody, because the task does not wait yet.

local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local exchange = require "opensandbox.http.exchange"
local fault_server = require "spec.support.fault_server"
local fixtures = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local scheduler = require "opensandbox.loop.scheduler"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local LONGEST = 5 -- seconds: no wait of these tests may last so long
local park = scheduler.park

-- Calls a function at the first wait that matches, as the collector can when the code has checked and does not wait yet.
local function before_wait(matches, fn)
  function scheduler.park(waiter, wait)
    if matches(wait) then
      scheduler.park = park
      fn()
    end
    return park(waiter, wait)
  end
end

local function any() return true end

-- Steps until a condition holds.
local function step_until(condition)
  local last = core.now() + LONGEST
  while not condition() do
    assert(core.now() < last, "it does not happen")
    scheduler:step(0.05)
  end
end

-- Calls a function, which must return in time. Returns its results.
local function in_time(fn)
  local began = core.now()
  local first, second = fn()
  assert.is_true(core.now() - began < LONGEST, "it was woken by its time limit")
  assert.equal(park, scheduler.park, "nothing happened before the wait")
  return first, second
end

after_each(function() scheduler.park = park end)

describe("before the wait of an exchange", function()
  local server, client

  setup(function()
    server = fault_server.start [[
      local metadata
      return function(request, connection)
        if request.path:find("websocket", 1, true) then return websocket.accept(request, connection, { manual = true }) end
        if not request.path:find("/lost/", 1, true) then return connection:silence() end
        if request.method == "POST" then
          metadata = json.decode(request.body).metadata
          return connection:close()
        end
        connection:respond(200, { ["Content-Type"] = "application/json" }, request.method == "GET"
          and json.encode { items = { { id = "found", status = { state = "Running" }, metadata = metadata } } } or "")
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "k", { timeout = 60 }) end)
  after_each(function() client:close() end)

  local function head()
    local ex
    return opensandbox.spawn(function()
      ex = exchange.start(client.http, client.http:lifecycle_request { op = "test", method = "GET", path = "/sandboxes" })
      return ex:head()
    end), function() return ex end
  end

  it("a step does not hide the end of the transfer", function()
    local task, started = head()
    before_wait(function(wait) return wait.owner and wait.owner == started() end, function()
      started():close()
      scheduler:step(0)
    end)
    local _, err = in_time(function() return task:wait(LONGEST) end)
    assert.equal("closed", err.kind)
  end)

  it("the client can be closed", function()
    local task, started = head()
    before_wait(function(wait) return wait.owner and wait.owner == started() end, function() client.http:close(0) end)
    local _, err = in_time(function() return task:wait(LONGEST) end)
    assert.equal("closed", err.kind)
  end)

  it("a step does not end a later wait of the task early", function()
    local began
    before_wait(function(wait) return wait.registry == client.http.transport.waiters end, function()
      began = core.now()
      scheduler:step(0)
    end)
    local task = opensandbox.spawn(function()
      client:list_sandboxes { timeout = 0.1 }
      local slept = core.now()
      opensandbox.sleep(0.2)
      return core.now() - slept
    end)
    assert.is_true(in_time(function() return task:wait(LONGEST) end) >= 0.19)
    assert.truthy(began)
  end)

  it("a step does not hide the end of a WebSocket", function()
    local connection = assert(client.http:open_websocket(server.url, { op = "test", path = "/websocket" }))
    before_wait(function(wait) return wait.owner == connection.news end, function()
      connection:abort()
      scheduler:step(0)
    end)
    local _, err = in_time(function() return connection:receive(LONGEST) end)
    assert.equal("closed", err.kind)
  end)

  it("the sandbox of a lost create can be found", function()
    local lost = opensandbox.new(server.url .. "/lost", "k", { create_timeout = LONGEST })
    local resource
    before_wait(function(wait)
      resource = wait.key == "waiter" and wait.registry
      return resource
    end, function()
      step_until(function() return resource.task:done() end)
    end)
    assert.equal("found", assert(in_time(function() return lost:create_sandbox { image = "x" } end)).id)
    lost:close()
  end)

  it("the closing of the client ends the pause of a background task", function()
    before_wait(function(wait) return wait.registry == client.resources.sleepers end, function() client.resources:close() end)
    in_time(function() return opensandbox.spawn(function() client.resources:sleep(LONGEST) end):wait(LONGEST) end)
  end)
end)

describe("before the wait of a task", function()
  it("another task can end", function()
    local task = opensandbox.spawn(function() return "done" end)
    before_wait(function(wait) return wait.registry == task.waiters end, function() scheduler:step(0) end)
    assert.equal("done", in_time(function() return task:wait(LONGEST) end))
  end)

  it("it can be cancelled", function()
    local task
    task = opensandbox.spawn(function()
      before_wait(any, function() task:cancel() end)
      return opensandbox.sleep(LONGEST)
    end)
    local _, err = in_time(function() return task:wait(LONGEST) end)
    assert.equal("cancelled", err.kind)
  end)
end)

describe("a task whose coroutine cannot run its function for want of memory", function()
  it("has failed, and its waiters continue", function()
    local xpcall_of_tasks = coxpcall.xpcall
    local task = opensandbox.spawn(function() end)
    function coxpcall.xpcall() error("not enough memory", 0) end
    local ok, problem = pcall(task.wait, task, LONGEST)
    coxpcall.xpcall = xpcall_of_tasks
    assert.same({ false, "not enough memory" }, { ok, problem })
    assert.is_true(task:done())
  end)
end)

describe("before the wait of an object", function()
  local fixture, client, sandbox

  setup(function()
    fixture = fixtures.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("the event of a stream can arrive", function()
    local stream = sandbox:stream "echo text; sleep 60"
    local run = stream._run
    before_wait(function(wait) return wait.registry == run.readers end, function()
      step_until(function() return run.events[run.first] end)
    end)
    assert.equal("text\n", in_time(function() return stream:next() end).text)
    stream:close()
  end)

  it("the queue of a stream can become empty", function()
    local stream = sandbox:stream "head -c 800000 /dev/zero | tr '\\0' y | fold -w 1000; echo; echo end"
    local run = stream._run
    before_wait(function(wait) return wait.registry == run.writers end, function()
      while run:take() do end
    end)
    local last = in_time(function()
      return opensandbox.spawn(function()
        local last, event = nil, stream:next()
        repeat opensandbox.sleep(0.01) until scheduler.park == park -- the queue is full, and was made empty
        while event do
          last = event.text or last
          event = stream:next()
        end
        return last
      end):wait(LONGEST)
    end)
    assert.equal("end\n", last)
  end)

  it("a terminal can be closed", function()
    local terminal = assert(sandbox:terminal { command = "sleep 60" })
    before_wait(function(wait) return wait.owner == terminal._stream.news end, function() terminal._stream:close() end)
    local _, err = in_time(function() return terminal:read(LONGEST) end)
    assert.equal("closed", err.kind)
    terminal:close()
  end)

  it("a pool can have the sandbox for acquire", function()
    local pool = client:pool { image = "any", min_idle = 0 }
    before_wait(function(wait) return wait.key == "waiter" end, function()
      step_until(function() return pool:stats().creating == 0 end)
    end)
    local acquired = assert(in_time(function() return pool:acquire { timeout = LONGEST } end))
    acquired:kill()
    pool:close()
  end)

  it("a pool can be filled", function()
    local pool = client:pool { image = "any", min_idle = 1 }
    before_wait(function(wait) return wait.registry == pool._dispatcher.watchers end, function()
      step_until(function() return pool:stats().idle == 1 end)
    end)
    assert(in_time(function() return pool:fill { timeout = LONGEST } end))
    pool:close()
  end)
end)

--- The library in event loops: luv, cqueues, copas, luasocket's select(), one that nobody knows, and none. Each host is a process of its
--- own (spec/hosts/), for this one has luv loaded; it runs a scenario, prints what it saw, and ends because its loop has nothing left.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local uv = require "luv"
local websocket = require "spec.hosts.websocket"

local SANITIZED = os.getenv("OPENSANDBOX_TEST_PRELOAD") ~= nil
local LATEST = SANITIZED and 0.1 or 0.02 -- seconds: how late a host's heartbeat may come; sanitizers are slow
local ECHO = 0.01   -- seconds: how long the quickest echo of a WebSocket may take
local TRIES = 3     -- of what is timed, on a machine that others use too

local server, echo

local function start_server()
  server = process.devserver { grace = 0.2 }
  echo = fault_server.start(websocket.server)
end

local function stop_server()
  server:stop()
  echo:stop()
end

-- Checks in another process whether a module can be loaded: it could change what this process takes for its host. A module that Debian
-- has may need others that Debian does not have for this Lua.
local function is_installed(name)
  local status = os.execute(("%s -e 'require %q' >/dev/null 2>&1"):format(process.lua(), name))
  return status == true or status == 0
end

-- Waits for the end of a child. Gives its code, and by how many seconds the machine let a heartbeat in this process be late meanwhile.
local function wait_beating(child)
  local timer, last, latest = uv.new_timer(), nil, 0
  timer:start(0, 10, function()
    local now = uv_loop.now() / 1000
    if last then latest = math.max(latest, now - last - 0.01) end
    last = now
  end)
  local code = child:wait(30)
  uv_loop.close(timer)
  return code, latest
end

-- Runs a scenario in a host that must end by itself, well and quietly. Gives what it saw.
local function run_host(host, scenario, name, env)
  local environment = process.module_paths()
  environment.OPENSANDBOX_TEST_WEBSOCKET = echo.url
  for variable, value in pairs(env or {}) do environment[variable] = value end
  local child = process.start {
    argv = { process.lua(), "spec/hosts/" .. host .. ".lua", scenario, server.url, server.key, name }, env = environment,
  }
  local code, machine_late = wait_beating(child)
  local output = child:output()
  child:stop()
  assert.equal("", child:stderr_text())
  assert.equal(0, code, "it does not end: " .. output)
  local seen = {}
  for key, value in output:gmatch("([^=\n]+)=([^\n]*)") do seen[key] = tonumber(value) or value end
  assert.is_nil(seen.error)
  seen.machine_late = machine_late
  assert.equal("true", seen.over, "the loop ended before the scenario")
  return seen
end

local function numbers(last)
  local list = {}
  for i = 1, last do list[i] = i end
  return table.concat(list, " ")
end

-- Runs a scenario until its timing is right, a few times at most.
local function run_in_time(is_in_time, ...)
  local seen
  for _ = 1, TRIES do
    seen = run_host(...)
    if is_in_time(seen) then return seen end
  end
  error(("not in time: heartbeat %g s late (here %g s), %s s in all, slowest command %s s"):format(seen.late, seen.machine_late,
    tostring(seen.seconds), tostring(seen.slowest)))
end

-- A heartbeat that came late has been held up by us, or by a machine that held up the one here too.
local function has_beaten(seen)
  return seen.late <= LATEST + seen.machine_late
end

-- Returns whether all took hardly longer than the slowest of them.
local function ran_at_once(seen)
  return seen.seconds <= 1.3 * seen.slowest + 0.1
end

local function runs_the_workflow(...)
  local seen = run_in_time(function(seen) return has_beaten(seen) and ran_at_once(seen) end, ...)
  assert.equal("some bytes|", seen.text)
  assert.equal(numbers(50), seen.outputs)
  assert.equal("cancelled", seen.cancelled)
  assert.equal("true", seen.stopped)
  assert.equal("ready got it 5", seen.terminal)
  assert.equal("a b ", seen.sorted)
end

-- The scenarios that every host runs in the same way.
local function runs_all(host, name)
  it("runs the whole workflow, fifty commands at once, and its heartbeat is not held up #alone", function()
    runs_the_workflow(host, "workflow", name)
  end)

  it("has several clients at work at once", function()
    local seen = run_in_time(ran_at_once, host, "clients", name)
    assert.equal("aA bB cC", seen.outputs)
  end)

  it("blocks in a generator of the user's, whose values stay its own", function()
    assert.equal("1 2 3 4", run_host(host, "generator", name).outputs)
  end)

  it("waits inside opensandbox.pcall while others go on, and lets errors through", function()
    local seen = run_host(host, "pcall", name)
    assert.equal("inner", seen.inner)
    assert.equal("raised", seen.problem)
    assert.equal("true", seen.ok)
    assert.equal("outer", seen.output)
    assert.equal("true", seen.others_went_on)
  end)

  it("cancels tasks before they begin, while they wait, and in the moment in which they end", function()
    local seen = run_in_time(function(seen) return seen.seconds < 0.5 + seen.machine_late end, host, "cancel", name)
    assert.equal("cancelled", seen.unborn)
    assert.equal("false", seen.unborn_ran)
    assert.equal("cancelled", seen.sleeping)
    assert.equal("cancelled", seen.running)
    assert.equal(10, seen.raced)
    assert.equal("fine", seen.afterwards)
  end)

  it("receives from a WebSocket while it sends, at once, and its pings are answered meanwhile #alone", function()
    local seen = run_in_time(function(seen) return has_beaten(seen) and seen.echo <= ECHO end, host, "websocket", name)
    assert.equal(numbers(50), seen.outputs)
    assert.is_true(seen.pongs >= 10, seen.pongs .. " pongs")
    assert.equal("cancelled", seen.cancelled)
    assert.equal(1000, seen.closed)
  end)
end

local function lets_others_go_on(host, name, goes_on_meanwhile)
  it("lets code outside of any coroutine block while its coroutines wait", function()
    local seen = run_host(host, "blocking", name)
    assert.equal("outside", seen.outside)
    assert.equal("inside", seen.inside)
    assert.equal("again", seen.again)
    assert.equal(tostring(goes_on_meanwhile), seen.went_on_meanwhile)
  end)

  it("ends though a client is open and the rest of a response is under way", function()
    run_in_time(function(seen) return seen.ended_after < 0.5 + seen.machine_late end, host, "unclosed", name)
  end)
end

-- Tests of a host, or one that says what to install for them.
local function host(title, module, package_name, tests)
  describe(title, function()
    if is_installed(module) then
      setup(start_server)
      teardown(stop_server)
      tests()
    else
      pending(("needs the module %s for %s (Debian: %s)"):format(module, rawget(_G, "jit") and "LuaJIT" or _VERSION, package_name))
    end
  end)
end

describe("plain Lua", function()
  setup(start_server)
  teardown(stop_server)
  runs_all("plain")
  lets_others_go_on("plain", nil, true)
end)

host("luv", "luv", "lua-luv", function()
  runs_all("luv")
  lets_others_go_on("luv", "uv", true)

  it("ends a wait in main at once when a timer of its loop ended what was waited for, and nothing else happens", function()
    local child = process.start { env = process.module_paths(), argv = { process.lua(), "-e", [[
      local uv, opensandbox = require "luv", require "opensandbox"
      local inner
      local other = opensandbox.spawn(function() opensandbox.sleep(30) end)
      local task = opensandbox.spawn(function()
        inner = coroutine.running()
        coroutine.yield()
        return "done"
      end)
      local timer = uv.new_timer()
      opensandbox.sleep(0.05)
      timer:start(0, 0, function() coroutine.resume(inner) end)
      local began = opensandbox.now()
      local value = task:wait()
      print(value, opensandbox.now() - began < 5)
      other:cancel()
      timer:close()
      uv.run() -- luv for Lua 5.1 cannot end with a handle that is being closed
    ]] } }
    local code = child:wait(20)
    local output = child:output()
    child:stop()
    assert.same({ 0, "done\ttrue\n" }, { code, output })
  end)
end)

host("cqueues", "_cqueues", "lua-cqueues", function()
  runs_all("cqueues")
  lets_others_go_on("cqueues", "cqueues", false)

  it("runs calls in coroutines that we have not made, at once and without holding up the others #alone", function()
    local seen = run_in_time(function(seen) return has_beaten(seen) and ran_at_once(seen) end, "cqueues", "wrapped")
    assert.equal(numbers(10), seen.outputs)
  end)

  it("gives an error of a callback to the controller's loop, which can go on", function()
    local seen = run_host("cqueues", "failing")
    assert.equal("raised in a callback", seen.problem)
    assert.equal("other", seen.outputs)
  end)

  it("waits in a controller inside another", function()
    assert.equal("1 2 3", run_host("cqueues", "nested").outputs)
  end)

  it("runs the loop a second time", function()
    assert.equal("1 2", run_host("cqueues", "twice").outputs)
  end)

  it("waits in two controllers at once, and neither keeps the other busy", function()
    local seen = run_host("cqueues", "two")
    assert.equal("1 2", seen.outputs)
    assert.is_true(seen.turns < 500, seen.turns .. " turns")
  end)

  it("can drop a controller whose coroutines wait", function()
    local seen = run_host("cqueues", "dropped")
    assert.equal("true", seen.collected)
    assert.equal("after", seen.outputs)
  end)
end)

host("copas", "copas", "lua-copas, for Lua 5.1 and 5.2", function()
  if not core.poller():pollfd() then
    pending("needs epoll: copas can wait for nothing but descriptors")
    return
  end
  runs_all("copas")
  lets_others_go_on("copas", "copas", true)

  it("is called in the handlers of a server, when it is the chosen loop, and serves others meanwhile #alone", function()
    local seen = run_in_time(function(seen) return has_beaten(seen) and seen.seconds < 0.9 end, "copas", "server", "copas")
    assert.equal("answer 1 answer 2", seen.answers)
  end)

  it("is stepped by who blocks, in a script that does not run it", function()
    assert.equal("1 2 3", run_host("copas", "unused").outputs)
  end)

  it("blocks in a generator when it is the chosen loop, too", function()
    assert.equal("1 2 3 4", run_host("copas", "generator", "copas").outputs)
  end)
end)

host("luasocket's select", "socket.core", "lua-socket", function()
  runs_all("select", "socket")
  lets_others_go_on("select", "socket", true)
end)

describe("a host of the user's own, with an adapter given as the option loop,", function()
  setup(start_server)
  teardown(stop_server)
  runs_all("custom")
end)

-- The poll() set has no descriptor that a loop could watch.
describe("without epoll", function()
  local paths
  local abi = rawget(_G, "jit") and "jit" or _VERSION:match("%d+%.%d+")

  setup(function()
    start_server()
    local make = process.start {
      argv = { "make", "-s", "LUA=" .. process.lua(), "POLLER=poll", "core" },
      env = { MAKEFLAGS = false, MFLAGS = false, MAKELEVEL = false, SANITIZE = false, LD_PRELOAD = false },
    }
    local code = make:wait(120)
    make:stop()
    assert.equal(0, code, make:stderr_text())
    paths = { LUA_CPATH = "build/" .. abi .. "-poll/?.so;" .. package.cpath }
  end)
  teardown(stop_server)

  for name, module in pairs { luv = "luv", cqueues = "_cqueues" } do
    if is_installed(module) then
      it("runs the whole workflow in " .. name .. " #alone", function()
        runs_the_workflow(name, "workflow", nil, paths)
      end)
    end
  end
end)

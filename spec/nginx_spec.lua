--- The library in nginx: light threads wait, the worker does not; what nobody waits for any more is stopped. nginx's Lua is LuaJIT, so
--- all but the thread that tells nginx of our descriptor is tested with that one only.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local uv_loop = require "spec.support.uv_loop"
local names = require "opensandbox.devserver.base.list_directory"
local nginx = require "spec.hosts.nginx"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local uv = require "luv"
local websocket = require "spec.hosts.websocket"

describe("The core's notifier", function()
  local notifier, connection, readable, writable, bytes, ended

  -- Returns whether exactly so many bytes have arrived.
  local function have_come(count)
    uv_loop.wait(function() return bytes >= count end, 5)
    uv_loop.sleep(0.02)
    return bytes == count
  end

  before_each(function()
    notifier = core.notifier()
    if not notifier then return end
    connection, bytes, ended = uv.new_pipe(false), 0, false
    local ends = uv.pipe({ nonblock = true }, { nonblock = true })
    readable, writable = ends.read, ends.write
  end)
  after_each(function()
    if not notifier then return end
    notifier:close()
    uv_loop.close(connection)
    uv.fs_close(readable)
    uv.fs_close(writable)
  end)

  local function connect()
    local connected
    connection:connect(notifier:path(), function(problem) connected = problem or true end)
    uv_loop.wait(function() return connected end, 5)
    assert.is_true(connected)
    assert.is_true(notifier:accept())
    connection:read_start(function(_, data)
      if data then bytes = bytes + #data else ended = true end
    end)
  end

  it("writes one byte for each time it was armed, once the descriptor is readable", function()
    if not notifier then return pending("there is none on this platform") end
    connect()
    assert.is_true(notifier:arm(readable))
    assert.is_true(have_come(0))
    uv.fs_write(writable, "x")
    assert.is_true(have_come(1))
    assert.is_true(notifier:arm(readable)) -- which still is
    assert.is_true(have_come(2))
  end)

  it("leaves no name, thread or descriptor behind", function()
    if not notifier then return pending("there is none on this platform") end
    local before = process.descriptors()
    local directory = notifier:path():match("^(.*)/")
    assert.equal(448, uv.fs_stat(directory).mode % 512) -- 0700
    connect()
    assert.is_nil(uv.fs_stat(directory))
    notifier:close()
    notifier:close()
    assert.is_true(uv_loop.wait(function() return ended end, 5))
    assert.is_false(pcall(notifier.arm, notifier, readable))
    assert.is_true(process.descriptors() <= before)
  end)

  it("can be given up before anybody connects", function()
    if not notifier then return pending("there is none on this platform") end
    local directory = notifier:path():match("^(.*)/")
    assert.is_nil(notifier:accept())
    notifier:close()
    assert.is_nil(uv.fs_stat(directory))
  end)
end)

if not rawget(_G, "jit") then return end

if not nginx.installed() then
  pending("nginx with its Lua module is not installed: " .. nginx.PACKAGES)
  return
elseif not nginx.core() then
  pending("the core for LuaJIT cannot be built: see `make LUA=luajit core`")
  return
end

local CONFIGURATION = "spec/hosts/nginx.conf"
local TRIES = 3 -- of what is measured: the machine is shared

local devserver, client, sandbox, server

local function escape(text)
  return (text:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function path(name, command, more)
  return ("/%s?sandbox=%s&command=%s%s"):format(name, sandbox.id, escape(command), more or "")
end

local function start(changes, values)
  local env = { OPEN_SANDBOX_DOMAIN = devserver.url, OPEN_SANDBOX_API_KEY = devserver.key }
  for name, value in pairs(changes or {}) do env[name] = value end
  server = nginx.start(CONFIGURATION, { env = env, values = values })
end

local function state()
  return json.decode(server:ask("/do/state"))
end

local function threads(pid)
  return #names("/proc/" .. pid .. "/task")
end

local function runs(pid)
  return assert(sandbox:run("kill -0 " .. pid)).exit_code == 0
end

-- The worker has nothing under way, but perhaps a connection that is being read to its end.
local function rests()
  uv_loop.wait_until(function()
    local now = state()
    return now.inflight == 0 and not now.waiting
  end, "everything ended", 5)
end

-- Fetches a path with curl, many times at once, and /plain meanwhile. Gives curl's output, the longest wait for a plain answer and the
-- wall time, in milliseconds.
local function crowd(from, times)
  local urls = ("%s%s&n=[1-%d]"):format(server.url, from, times)
  local child = process.start { argv = { "curl", "-sS", "-Z", "--parallel-immediate", "--parallel-max", tostring(times), urls } }
  local began, worst = uv_loop.now(), 0
  while child:running() do
    local asked = uv_loop.now()
    server:ask("/plain")
    worst = math.max(worst, uv_loop.now() - asked)
    uv_loop.sleep(0.01)
  end
  local wall = uv_loop.now() - began
  local output = child:output()
  child:stop()
  return output, worst, wall
end

-- The same, and the longest wait without what the machine did: others use it too.
local function measured_crowd(from, times)
  local child = process.start { argv = { "curl", "-sS", server.url .. "/do/beat" } }
  local output, worst, wall = crowd(from, times)
  server:ask("/do/still")
  local own = tonumber(child:read_line())
  child:stop()
  return output, math.min(worst, own), wall
end

-- The smallest of some measurements; no more are made once one is good enough.
local function best_of(bound, measure)
  local best = math.huge
  for _ = 1, TRIES do
    best = math.min(best, measure())
    if best <= bound then break end
  end
  return best
end

local function begin(changes, values)
  return function()
    devserver = process.devserver { grace = 0.2 }
    client = opensandbox.new(devserver.url, devserver.key)
    sandbox = assert(client:create { image = "any" })
    start(changes, values)
  end
end

local function stop()
  server:stop()
  client:close()
  devserver:stop()
end

local function finish()
  local ok, problem = pcall(rests)
  local log = server:log()
  stop()
  if not ok then error(problem, 0) end
  assert.is_nil(log:match("[^\n]*%[error%][^\n]*"))
end

-- `bound`: milliseconds after which a plain answer is late.
local function works_in_requests(bound)
  it("runs a whole workflow in a request, fifty commands at once, while the worker answers others #alone", function()
    local wall, slowest
    local worst = best_of(bound, function()
      local output, longest = measured_crowd("/do/workflow?", 1)
      local seen = json.decode(output)
      assert.is_table(seen, output)
      assert.equal("some bytes\n", seen.text)
      assert.equal(50, #seen.outputs)
      for i = 1, 50 do assert.equal(tostring(i), seen.outputs[i]) end
      assert.equal("cancelled", seen.cancelled)
      assert.is_true(seen.stopped)
      assert.same({ "ready got it 5", "a b " }, { seen.terminal, seen.sorted })
      wall, slowest = seen.seconds, seen.slowest
      return longest
    end)
    assert.is_true(wall <= 1.3 * slowest + 0.1, ("%g s for all, %g s for the slowest"):format(wall, slowest))
    assert.is_true(worst <= bound, ("a plain answer took %g ms"):format(worst))
  end)

  for _, phase in ipairs { "rewrite", "access", "do/phase", "do/timer" } do
    it("waits in " .. phase:gsub("do/phase", "content"):gsub("do/", "a "), function()
      assert.equal((phase:gsub("do/phase", "content"):gsub("do/", "")) .. " here\n\n", server:ask(path(phase, "echo here")))
    end)
  end

  it("has tasks that begin when their spawner waits, map, sleep, and cancelling", function()
    local seen = json.decode(server:ask(path("do/tasks", "")))
    assert.same({ "spawned", "task", "slept" }, seen.order)
    assert.same({ "1\n", "4\n", "9\n" }, seen.squares)
    assert.equal("task\n", seen.task)
    assert.equal("timeout", seen.late)
    assert.equal("cancelled", seen.slept)
  end)

  it("keeps a pool that outlives the requests, and holds none of them up to fill it again", function()
    local function idle() return json.decode(server:ask("/do/pool_stats")).idle == 1 end
    for _ = 1, 2 do
      assert.equal("pooled\n\n", server:ask("/do/pool"))
      uv_loop.wait_until(idle, "the pool was filled", 5)
    end
    local began = core.now()
    assert.equal("pooled\n\n", server:ask("/do/pool"))
    assert.is_true(core.now() - began < 0.9, "the request waited for the new sandbox")
    uv_loop.wait_until(idle, "the pool was filled", 5)
    assert.equal("closed\n", server:ask("/do/close_pool"))
    rests()
  end)

  it("sends output on as it comes", function()
    local gaps = {}
    local response = assert(server:get(path("do/stream", "echo 1; sleep 0.3; echo 2"), {
      on_chunk = function(text, ms) gaps[#gaps + 1] = { text, ms } end,
    }))
    assert.equal("1\n2\n", response.body)
    assert.equal("1\n", gaps[1][1])
    assert.is_true(gaps[2][2] - gaps[1][2] > 200, "the lines came together")
  end)

  it("receives from a WebSocket while it sends, and its pings are answered meanwhile #alone", function()
    local echo = fault_server.start(websocket.server)
    local quickest = best_of(0.05, function()
      local seen = json.decode(server:ask("/do/websocket?url=" .. escape(echo.url)))
      local numbers = {}
      for index = 1, 50 do numbers[index] = tostring(index) end
      assert.equal(table.concat(numbers, " "), seen.outputs)
      assert.is_true(seen.pongs >= 5, seen.pongs .. " pongs")
      assert.same({ "cancelled", 1000 }, { seen.cancelled, seen.closed })
      return seen.echo
    end)
    echo:stop()
    assert.is_true(quickest <= 0.05, quickest)
  end)

  it("answers others within " .. bound .. " ms while a hundred requests run commands of a second #alone", function()
    local wall
    local worst = best_of(bound, function()
      local output, longest, took = measured_crowd(path("do/run", "sleep 1"), 100)
      assert.equal(100, select(2, output:gsub('"exit_code":0', "")), output)
      wall = took
      return longest
    end)
    assert.is_true(worst <= bound, ("a plain answer took %g ms"):format(worst))
    assert.is_true(wall < 10000, "they did not run at once")
  end)
end

local function stops_what_nobody_waits_for()
  it("stops the command of a request whose client hangs up", function()
    local pid
    server:get(path("do/stream", "echo $$; exec sleep 100"), { on_chunk = function(text)
      pid = text:match("%d+")
      assert.is_true(runs(pid))
      return false
    end })
    uv_loop.wait_until(function() return not runs(pid) end, "the command ended", 3)
    rests()
  end)

  for name, what in pairs { kill = "a light thread that is killed", exit = "a request that another light thread ends" } do
    it("stops the command of " .. what, function()
      local mark = "/tmp/" .. name
      local command = ("echo $$ > .%s.new; mv .%s.new .%s; exec sleep 100"):format(mark, mark, mark) -- a command starts in "/"
      server:ask(path("do/" .. name, command, "&wait=" .. escape(mark)))
      local pid = assert(sandbox.files:read(mark)):match("%d+")
      uv_loop.wait_until(function() return not runs(pid) end, "the command ended", 3)
      rests()
      assert.equal(0, json.decode(server:ask(path("do/run", "true"))).exit_code) -- in a coroutine that nginx may use again
    end)
  end
end

describe("In nginx", function()
  setup(begin())
  teardown(finish)

  works_in_requests(20)
  stops_what_nobody_waits_for()

  it("refuses where nothing can wait, naming the phase, at the caller's line", function()
    server:ask("/refused")
    local told
    uv_loop.wait_until(function() -- the log phase comes after the answer
      told = json.decode(server:ask("/do/refusals"))
      return told.log
    end, "all phases were seen", 3)
    for _, phase in ipairs { "init", "init_worker", "set", "header_filter", "body_filter", "log" } do
      assert.truthy(tostring(told[phase]):find("nginxhandlers.lua:%d+: list_sandboxes: .* phase \"" .. phase .. '"'), told[phase])
    end
    assert.truthy(told.spawn:find('nginxhandlers.lua:%d+: spawn: .* phase "init"'), told.spawn)
  end)
end)

describe("The worker of an nginx that has done its work", function()
  setup(begin())
  teardown(finish)

  it("has one thread again, and no more descriptors than before", function()
    local pid = state().pid
    local function use()
      local output = crowd(path("do/run", "true"), 8)
      assert.equal(8, select(2, output:gsub('"exit_code":0', "")), output)
      rests()
    end
    use()
    uv_loop.wait_until(function() return threads(pid) == 1 end, "the thread ended", 3)
    local before = process.descriptors(pid)
    use()
    uv_loop.wait_until(function()
      return threads(pid) == 1 and process.descriptors(pid) <= before
    end, "thread and descriptors were given back", 3)
  end)
end)

describe("In nginx without the core's thread", function()
  setup(begin { SPEC_LOOKS = "1" })
  teardown(finish)

  works_in_requests(40)
  stops_what_nobody_waits_for()
end)

describe("nginx with several workers", function()
  setup(begin({}, { workers = 3 }))
  teardown(finish)

  it("uses a client in all of them that was made before they were forked", function()
    local pids, count = {}, 0
    uv_loop.wait_until(function()
      local output = crowd(path("do/run", "sleep 0.2; echo here"), 24)
      assert.equal(24, select(2, output:gsub('"stdout":"here\\n"', "")), output)
      for pid in output:gmatch('"pid":(%d+)') do
        if not pids[pid] then count = count + 1 end
        pids[pid] = true
      end
      return count >= 2
    end, "two workers took part", 20)
  end)
end)

describe("An nginx that is told to quit", function()
  before_each(begin())
  after_each(stop)

  it("does so at once when nothing was used", function()
    local seconds = server:quit()
    assert.is_true(seconds and seconds < 2, tostring(seconds))
  end)

  it("does so at once after use", function()
    server:ask(path("do/run", "true"))
    local seconds = server:quit()
    assert.is_true(seconds and seconds < 2, tostring(seconds))
    assert.is_nil(server:log():find("exited on signal", 1, true))
  end)

  it("lets the commands end that it runs", function()
    local output
    local child = process.start { argv = { "curl", "-sS", server.url .. path("do/run", "touch tmp/begun; sleep 1; echo done") } }
    uv_loop.wait_until(function() return sandbox.files:exists("/tmp/begun") end, "the command began", 5)
    local seconds = server:quit()
    output = child:read_line()
    child:stop()
    assert.truthy(output and output:find('"stdout":"done\\n"', 1, true), output)
    assert.is_true(seconds and seconds < 3, tostring(seconds))
  end)
end)

describe("The example for OpenResty", function()
  setup(function()
    devserver = process.devserver { grace = 0.2 }
    client = opensandbox.new(devserver.url, devserver.key)
    local env = { OPEN_SANDBOX_DOMAIN = devserver.url, OPEN_SANDBOX_API_KEY = devserver.key, TIME_LIMIT = "3" }
    server = nginx.start("examples/openresty/nginx.conf", { env = env, edit = nginx.example_here })
  end)
  teardown(stop)

  local function execute(language, code, on_chunk)
    return assert(server:get("/execute?language=" .. language, { method = "POST", body = code, on_chunk = on_chunk, timeout = 20 }))
  end

  local function sandboxes()
    return #assert(client:list_sandboxes())
  end

  it("streams the output of the posted code as it comes, then how it ended, and leaves no sandbox", function()
    local at = {}
    local response = execute("sh", "echo out; sleep 0.4; echo err >&2; exit 3", function(text, ms)
      local event = text:match("event: (%w+)")
      if event then at[event] = ms end
    end)
    assert.equal(200, response.status)
    assert.equal("text/event-stream", response.headers["content-type"])
    assert.truthy(response.body:find('event: stdout\ndata: "out\\n"\n\n', 1, true), response.body)
    assert.truthy(response.body:find('event: stderr\ndata: "err\\n"\n\n', 1, true), response.body)
    assert.equal("3", response.body:match('event: exit\ndata: {[^\n]*"code":(%d+)'))
    assert.is_true(at.exit - at.stdout > 300, "the output came at the end")
    assert.equal(0, sandboxes())
  end)

  it("runs Python", function()
    local body = execute("python3", "print(6 * 7)").body
    if body:find("not found", 1, true) then return pending("python3 is not installed") end
    assert.truthy(body:find('event: stdout\ndata: "42\\n"', 1, true), body)
  end)

  it("stops what exceeds the time limit", function()
    local body = execute("sh", "echo begun; sleep 60").body
    assert.truthy(body:find('"begun\\n"', 1, true), body)
    assert.truthy(body:match('event: exit\ndata: {[^\n]*"timed_out":true'), body)
    assert.equal(0, sandboxes())
  end)

  it("ends the sandbox of a client that hangs up", function()
    execute("sh", "echo begun; sleep 60", function() return false end)
    uv_loop.wait_until(function() return sandboxes() == 0 end, "the sandbox was gone", 3)
  end)

  it("refuses what it cannot run", function()
    assert.equal(400, execute("cobol", "x").status)
    assert.equal(405, assert(server:get("/execute")).status)
    assert.equal(0, sandboxes())
  end)
end)

--- Cancelling: whatever a task waits in, it is told at once, its connection is closed, and what it began on the server is ended.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local execution = require "opensandbox.execution.execution"
local wait_until = require "spec.support.wait_until"
local temporary = require "spec.support.temporary"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local spawn, sleep, map, now = opensandbox.spawn, opensandbox.sleep, opensandbox.map, opensandbox.now

-- Each test has its own first part of the path, <test>.<behaviour>, so that it finds its requests in the log.
local SERVER = [[
  local made = {}
  local function info(id, state, metadata)
    return json.encode { id = id, status = { state = state }, createdAt = "2026-01-01T00:00:00Z",
      metadata = metadata or { kind = "test" } }
  end
  local JSON = { ["Content-Type"] = "application/json" }
  local function stream(connection)
    connection:start(200, { ["Content-Type"] = "text/event-stream" })
  end
  local INIT = { type = "init", text = "c1", timestamp = 1 }
  return {
    on_headers = function(request, connection)
      if request.path:find("upload", 1, true) then
        connection:silence()
        connection:pause_reading() -- for a while: it must notice that the client is gone
        connection:after(200, connection.resume_reading)
      end
    end,
    on_request = function(request, connection)
      local behaviour, path = request.path:gsub("/v1/sandboxes", "/sandboxes"):match("^/%w+%.(%w+)(/[^?]*)")
      if request.method == "DELETE" then
        connection:respond(204, {})
      elseif path == "/sandboxes" and request.method == "POST" then
        if behaviour == "busy" then return connection:respond(503, { ["Retry-After"] = "20" }, "") end
        made[request.path] = json.decode(request.body).metadata
        if behaviour == "pending" then return connection:respond(202, JSON, info("pending-1", "Pending")) end
        if behaviour == "lost" then return connection:close() end
        connection:silence()
      elseif path == "/sandboxes" then
        if behaviour == "lost" then -- found at the second look only
          state.looks = (state.looks or 0) + 1
          if state.looks < 2 then return connection:respond(200, JSON, '{"items":[]}') end
        end
        local name = request.path:match("^[^?]*")
        connection:respond(200, JSON, made[name] and '{"items":[' .. info("made-1", "Running", made[name]) .. ']}'
          or '{"items":[]}')
      elseif path:find("^/sandboxes/") then
        if behaviour == "silent" then return connection:silence() end
        connection:respond(200, JSON, info("pending-1", "Pending"))
      elseif path == "/command" and behaviour == "late" then
        connection:after(150, function()
          stream(connection)
          connection:event(INIT)
        end)
      elseif path == "/command" and behaviour == "headonly" then
        stream(connection)
        connection:after(150, function() connection:event(INIT) end)
      elseif path == "/command" and behaviour == "mute" then
        connection:silence()
      elseif path == "/command" then
        stream(connection)
        connection:event(INIT)
        connection:event { type = "stdout", text = "some output", timestamp = 2 }
      elseif path == "/session" or path == "/code/context" or path == "/v1/isolated/session" then
        connection:after(150, function()
          connection:respond(200, JSON, json.encode { session_id = "made", id = "made", language = "python" })
        end)
      elseif path == "/files/download" then
        connection:start(200, { ["Content-Length"] = "1000000" })
        connection:chunk(("x"):rep(5000))
      else
        connection:respond(404, {}, "no")
      end
    end,
  }
]]

local server, client, before

-- The requests of one test, as "METHOD path".
local function requests(place, pattern)
  local found = {}
  for _, request in ipairs(server:requests()) do
    local line = request.method .. " " .. request.path
    if line:find("/" .. place .. "/", 1, true) and line:find(pattern or "") then found[#found + 1] = line end
  end
  return found
end

local function arrived(place, pattern)
  wait_until(function() return #requests(place, pattern) > 0 end, "the request did not arrive: " .. (pattern or place))
end

local function open_connections()
  return server:connections().open
end

-- Whether something is there that is no longer once nothing runs: gives the client a moment to end what is in the background.
local function settle()
  wait_until(function() return client:step(0) == 0 end, "requests stay under way")
end

local function execd(place) return server.url .. "/" .. place end

local function lifecycle(place, options)
  client:close()
  client = opensandbox.new(server.url .. "/" .. place, "key", options)
  return client
end

-- Cancels a task that waits, and checks that it ends at once with the right error. Gives that error.
local function cancel(task)
  local began = now()
  assert.is_true(task:cancel())
  local value, err = task:wait(5)
  assert.is_nil(value)
  assert.equal("cancelled", err and err.kind, tostring(err))
  assert.equal("cancelled", err.code)
  assert.is_true(now() - began < 1, "it took its time")
  assert.is_false(task:cancel())
  return err
end

local function begin()
  client = opensandbox.new(server.url .. "/none.none", "key")
end

local function finish()
  settle()
  client:close()
  wait_until(function() return open_connections() == 0 end, "connections stay open")
end

describe("cancelling a task", function()
  setup(function()
    server = fault_server.start(SERVER)
    server:requests() -- what the helpers and the scheduler open once stays open
    sleep(0.001)
    for _ = 1, 2 do collectgarbage() end -- so that nothing of what came before is closed later
    before = process.descriptors()
  end)
  teardown(function()
    assert.equal(before, process.descriptors())
    server:stop()
  end)
  before_each(begin)
  after_each(finish)

  it("that sleeps ends the sleep", function()
    local task = spawn(function() return sleep(100) end)
    sleep(0)
    assert.equal("sleep", cancel(task).op)
  end)

  it("that waits for another leaves the other alone", function()
    local other = spawn(function()
      sleep(0.05)
      return "went on"
    end)
    local task = spawn(function() return other:wait() end)
    sleep(0)
    assert.equal("task:wait", cancel(task).op)
    assert.equal("went on", other:wait())
  end)

  it("that has not begun keeps it from beginning", function()
    local ran = false
    local task = spawn(function() ran = true end)
    cancel(task)
    assert.is_false(ran)
  end)

  it("that has ended does nothing", function()
    local task = spawn(function() return "result" end)
    task:wait()
    assert.is_false(task:cancel())
    assert.equal("result", task:wait())
  end)

  it("twice is as once", function()
    local told = 0
    local task = spawn(function()
      local ok, err = sleep(100)
      if not ok then told = told + 1 end
      return nil, err
    end)
    sleep(0)
    assert.is_true(task:cancel())
    assert.is_true(task:cancel())
    assert.equal("cancelled", select(2, task:wait()).kind)
    assert.equal(1, told)
  end)

  it("from inside itself is told by its next wait", function()
    local task, first, second
    task = spawn(function()
      assert.is_true(task:cancel())
      first = select(2, sleep(100))
      second = select(2, opensandbox.pcall(sleep, 100))
      return "ended in its own way"
    end)
    assert.equal("ended in its own way", task:wait(5))
    assert.equal("cancelled", first.kind)
    assert.equal("cancelled", second.kind)
  end)

  it("lets it end in its own way: what it returns and raises is its result", function()
    local a = spawn(function()
      sleep(100)
      return 1, nil, 3
    end)
    local b = spawn(function()
      sleep(100)
      error("own error", 0)
    end)
    local c = spawn(function()
      local _, err = sleep(100)
      return nil, err, "more"
    end)
    sleep(0)
    for _, task in ipairs { a, b, c } do task:cancel() end
    assert.same({ 1, nil, 3 }, { a:wait() })
    assert.same({ false, "own error" }, { pcall(b.wait, b) })
    assert.equal("more", select(3, c:wait()))
  end)

  it("raises in every further wait, so that a loop that passes over errors ends", function()
    local rounds = 0
    local task = spawn(function()
      while true do
        rounds = rounds + 1
        sleep(0.001)
      end
    end)
    wait_until(function() return rounds > 3 end)
    cancel(task)
    local at_end = rounds
    sleep(0.02)
    assert.equal(at_end, rounds)
  end)

  it("raises the error of every further call, and sends nothing", function()
    local second
    lifecycle "twice.silent"
    local task = spawn(function()
      local _, err = client:get_sandbox("a")
      second = { opensandbox.pcall(client.get_sandbox, client, "b") }
      return nil, err
    end)
    arrived("twice.silent", "/a$")
    local err = cancel(task)
    assert.equal("get_sandbox", err.op)
    assert.is_false(second[1])
    assert.equal("cancelled", second[2].kind)
    assert.equal(0, #requests("twice.silent", "/b$"))
  end)

  it("lets it end things all the same: kill, close and delete", function()
    lifecycle "ends.silent"
    local task = spawn(function()
      local _, err = client:get_sandbox("a")
      local sandbox = opensandbox.assert(client:connect("to-kill", { wait = false }))
      assert(sandbox:kill())
      assert(client:delete_sandbox("to-delete"))
      assert(client:interrupt_command(execd "ends.silent", "to-stop"))
      return nil, err
    end)
    arrived("ends.silent", "/a$")
    cancel(task)
    assert.equal(3, #requests("ends.silent", "^DELETE"))
  end)

  it("that waits for the pause before another try ends the pause", function()
    lifecycle "pause.busy"
    local task = spawn(function() return client:create { image = "any" } end)
    arrived "pause.busy"
    sleep(0.02)
    cancel(task)
    assert.equal(1, #requests("pause.busy"))
  end)

  it("that maps ends what it mapped", function()
    local task = spawn(function()
      return map({ 1, 2, 3 }, function() return client:run_command(execd "map.run", "sleep 100") end)
    end)
    wait_until(function() return #requests("map.run", "^POST") == 3 end)
    cancel(task)
    settle()
    assert.equal(3, #requests("map.run", "^DELETE"))
  end)

  describe("that creates a sandbox", function()
    it("deletes, in the background, what the server makes of the request all the same", function()
      lifecycle "create.slow"
      local task = spawn(function() return client:create { image = "any" } end)
      arrived("create.slow", "^POST")
      cancel(task)
      wait_until(function() return #requests("create.slow", "^DELETE") > 0 end, "the sandbox stays")
      settle()
      assert.same({ "DELETE /create.slow/v1/sandboxes/made-1" }, requests("create.slow", "^DELETE"))
      assert.equal(1, #requests("create.slow", "^POST"))
      assert.equal(0, open_connections() - 1, "only the connection that can be used again is open")
    end)

    it("does so when the client is closed right away", function()
      lifecycle "close.slow"
      local task = spawn(function() return client:create { image = "any" } end)
      arrived("close.slow", "^POST")
      cancel(task)
      client:close()
      assert.same({ "DELETE /close.slow/v1/sandboxes/made-1" }, requests("close.slow", "^DELETE"))
    end)

    it("deletes the one that it waits for", function()
      lifecycle "ready.pending"
      local task = spawn(function() return client:create { image = "any" } end)
      arrived("ready.pending", "^GET")
      assert.equal("create", cancel(task).op)
      assert.same({ "DELETE /ready.pending/v1/sandboxes/pending-1" }, requests("ready.pending", "^DELETE"))
    end)

    it("deletes one whose answer was lost, and which it is looking for", function()
      lifecycle "search.lost"
      local task = spawn(function() return client:create { image = "any" } end)
      arrived("search.lost", "^GET")
      cancel(task)
      wait_until(function() return #requests("search.lost", "^DELETE") > 0 end, "the sandbox stays")
      assert.same({ "DELETE /search.lost/v1/sandboxes/made-1" }, requests("search.lost", "^DELETE"))
    end)

    it("sends nothing when it is cancelled before", function()
      lifecycle "never.slow"
      local task
      task = spawn(function()
        task:cancel()
        return client:create { image = "any" }
      end)
      assert.equal("cancelled", select(2, task:wait(5)).kind)
      settle()
      assert.equal(0, #requests("never.slow", "^POST"))
    end)
  end)

  describe("that runs a command", function()
    -- Cancels once `ready` gives true. The command is stopped once, and its connection closed.
    local function check(place, ready, while_running)
      local task = spawn(function() return client:run_command(execd(place), "sleep 100", { on_stdout = while_running }) end)
      arrived(place, "^POST")
      if ready then wait_until(ready) end
      local err = cancel(task)
      assert.equal("run_command", err.op)
      wait_until(function() return #requests(place, "^DELETE") > 0 end, "the command goes on")
      settle()
      assert.same({ "DELETE /" .. place .. "/command?id=c1" }, requests(place, "^DELETE"))
      local list = server:connections().list
      for _, request in ipairs(server:requests()) do
        if request.path == "/" .. place .. "/command" then assert.equal("client", list[request.connection].closed_by) end
      end
    end

    it("stops it on the server", function()
      local text
      check("command.run", function() return text end, function(piece) text = piece end)
      assert.equal("some output\n", text)
    end)

    it("closes its connection at once", function()
      local seen = false
      local task = spawn(function()
        return client:run_command(execd "close.run", "sleep 100", { on_stdout = function() seen = true end })
      end)
      wait_until(function() return seen end)
      assert.equal(1, open_connections())
      task:cancel()
      task:wait()
      assert.equal(1, client.http.transport.multi:inflight()) -- the DELETE
      settle()
      wait_until(function() return open_connections() == 1 end) -- its connection
    end)

    it("stops it when its id comes only then", function() check "command.late" end)

    it("stops it when its id comes after the head of the response", function() check "command.headonly" end)

    it("stops it when the client is closed before its id has come", function()
      local task = spawn(function() return client:run_command(execd "closed.late", "sleep 100") end)
      arrived("closed.late", "^POST")
      cancel(task)
      client:close()
      assert.same({ "DELETE /closed.late/command?id=c1" }, requests("closed.late", "^DELETE"))
    end)

    it("gives up a stream that never says its id when the client is closed, after 2 seconds", function()
      local task = spawn(function() return client:run_command(execd "gone.mute", "sleep 100") end)
      arrived("gone.mute", "^POST")
      cancel(task)
      local began = now()
      client:close()
      assert.is_true(now() - began < 4.5)
      assert.equal(0, #requests("gone.mute", "^DELETE"))
    end)
  end)

  it("that uploads closes the connection", function()
    local pieces = 0
    local task = spawn(function()
      return client:upload_files(execd "up.upload", { { path = "/a", content = function()
        pieces = pieces + 1
        return ("x"):rep(100000)
      end } })
    end)
    wait_until(function() return pieces > 0 and open_connections() == 1 end)
    assert.equal("upload_files", cancel(task).op)
    assert.equal(0, client:step(0))
    wait_until(function() return open_connections() == 0 end)
  end)

  describe("that downloads to a file", function()
    local path
    before_each(function() path = temporary.path() end)
    after_each(function() os.remove(path) end)

    it("removes the part that is there", function()
      local received
      local task = spawn(function()
        return client:save_file(execd "down.files", "/big", path, { on_progress = function(done) received = done end })
      end)
      wait_until(function() return received == 5000 end)
      assert.equal("file", (core.stat(path)))
      cancel(task)
      assert.equal(0, client:step(0))
      assert.is_nil((core.stat(path)))
    end)

    it("leaves a file alone that was there before", function()
      local file = assert(io.open(path, "w"))
      file:write("mine")
      file:close()
      local task = spawn(function() return client:save_file(execd "keep.silent", "/sandboxes/x", path) end)
      sleep(0)
      task:cancel()
      task:wait(5)
      assert.equal("file", (core.stat(path)))
    end)
  end)

  it("that reads a download ends the reading", function()
    local got = 0
    local task = spawn(function()
      local reader = assert(client:download_file(execd "read.files", "/big"))
      while true do
        local bytes, err = reader:read(1000)
        if not bytes then return nil, err end
        got = got + #bytes
      end
    end)
    wait_until(function() return got == 5000 end)
    cancel(task)
    assert.equal(0, client:step(0))
  end)
end)

describe("a session that nobody waits for any more", function()
  setup(function() server = fault_server.start(SERVER) end)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  for name, route in pairs {
    create_session = "/session/made", create_code_context = "/code/contexts/made",
    create_isolated_session = "/v1/isolated/session/made",
  } do
    it("is deleted when it is made all the same: " .. name, function()
      local place = name:gsub("_", "") .. ".late"
      local task = spawn(function()
        return client[name](client, execd(place), name:find("isolated") and { workspace = "/w" } or nil)
      end)
      arrived(place, "^POST")
      assert.equal(name, cancel(task).op)
      arrived(place, "^DELETE")
      settle()
      assert.same({ ("DELETE /%s%s"):format(place, route) }, requests(place, "^DELETE"))
    end)
  end
end)

describe("a command that nobody waits for any more", function()
  setup(function() server = fault_server.start(SERVER) end)
  teardown(function() server:stop() end)
  before_each(begin)
  after_each(finish)

  local function stopped_once(place)
    wait_until(function() return #requests(place, "^DELETE") > 0 end, "the command goes on")
    settle()
    assert.same({ "DELETE /" .. place .. "/command?id=c1" }, requests(place, "^DELETE"))
  end

  it("because a callback raised is stopped, in a task and outside of one", function()
    local value = {}
    local function fail() error(value) end
    for i, name in ipairs { "on_stdout", "on_event" } do
      local place = "raise" .. i .. ".run"
      local ok, problem = pcall(client.run_command, client, execd(place), "sleep 100", { [name] = fail })
      assert.is_false(ok)
      assert.equal(value, problem)
      stopped_once(place)
      place = "raisetask" .. i .. ".run"
      local task = spawn(function() return client:run_command(execd(place), "sleep 100", { [name] = fail }) end)
      ok, problem = pcall(task.wait, task)
      assert.is_false(ok)
      assert.equal(value, problem)
      stopped_once(place)
    end
  end)

  it("because the stream went silent is stopped", function()
    local result, err = client:run_command(execd "quiet.run", "sleep 100", { idle_timeout = 0.1 })
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.equal("idle_timeout", err.timeout_option)
    stopped_once "quiet.run"
  end)

  it("because its time and the grace are over is stopped", function()
    local grace = execution.SERVER_TIMEOUT_GRACE -- 10 seconds: too long for a test
    execution.SERVER_TIMEOUT_GRACE = 0.1
    local result, err = client:run_command(execd "deadline.run", "sleep 100", { timeout = 0.1 })
    execution.SERVER_TIMEOUT_GRACE = grace
    assert.is_nil(result)
    assert.equal("timeout", err.kind)
    assert.truthy(err.message:find("timeout of 0.1 s ran out", 1, true), err.message) -- without the grace
    assert.equal("some output\n", err.result.stdout)
    stopped_once "deadline.run"
  end)
end)

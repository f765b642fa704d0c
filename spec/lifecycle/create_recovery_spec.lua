--- No create leaves a sandbox behind: neither one that is interrupted, however that happens, nor one whose response is lost.
--
-- An interrupted create has 2 seconds. A script in which they pass because the machine is busy is run again.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local scheduler = require "opensandbox.loop.scheduler"
local tasks = require "opensandbox.loop.task"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local CREATE_DELAY = 0.3 -- seconds
local WAIT_TIME = 1.4    -- seconds after which the library soon stops waiting for the response
local TRIES = 10

-- Runs in a process of its own. Each mode interrupts a create after some time. The script prints the time of the interruption.
local SCRIPT = [[
  local opensandbox = require "opensandbox"
  local client = opensandbox.new()
  local mode, seconds = os.getenv "MODE", tonumber(os.getenv "SECONDS")
  local metadata = { run = os.getenv "RUN" }
  local function create() return client:create { image = "any", metadata = metadata } end
  local modes = {}

  local function wait()
    opensandbox.sleep(seconds)
    io.write(("%.3f\n"):format(opensandbox.now()))
  end

  local function interrupted(task, kind)
    local sandbox, err = task:wait(10)
    assert(not sandbox and err.kind == kind, tostring(err))
  end

  function modes.closed()
    local task = opensandbox.spawn(create)
    wait()
    client:close()
    interrupted(task, "closed")
  end

  function modes.cancelled()
    local task = opensandbox.spawn(create)
    wait()
    task:cancel()
    interrupted(task, "cancelled")
  end

  function modes.failed()
    opensandbox.spawn(create)
    wait()
    error("failed on purpose")
  end

  function modes.ended()
    opensandbox.spawn(create)
    wait()
  end

  function modes.map()
    opensandbox.map({ 1, 2, 3 }, function(i)
      if i > 1 then return create() end
      wait()
      error("failed on purpose")
    end)
  end

  function modes.pool()
    local pool = client:pool { image = "any", metadata = metadata, min_idle = 3 }
    wait()
    assert(pool:close())
    assert(#assert(client:list_sandboxes { metadata = metadata }) == 0)
  end

  modes[mode]()
]]

local MODES = {
  closed = "when its client is closed", cancelled = "when its task is cancelled", failed = "when its script fails",
  ended = "when its script ends", map = "when another task of its map raises", pool = "when its pool is closed",
}

describe("a create under way", function()
  local server, watcher
  local outcomes = {} -- by mode: the last run of each script
  local runs = 0

  local function start(mode, seconds)
    runs = runs + 1
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url, server.key, false
    env.MODE, env.SECONDS, env.RUN = mode, tostring(seconds), tostring(runs)
    local child = process.start { argv = { process.lua(), "-e", SCRIPT }, env = env }
    return { mode = mode, child = child, metadata = { run = env.RUN } }
  end

  local function finish(run)
    local child = run.child
    local interrupted = tonumber(child:read_line(30))
    run.code = child:wait(30)
    run.seconds = interrupted and core.now() - interrupted or 0
    run.complaint = child:stderr_text()
    child:stop()
  end

  -- Runs a script for each mode at once. Those that stopped waiting for the server are run again, one by one.
  local function interrupt(seconds)
    local started = {}
    for mode in pairs(MODES) do started[#started + 1] = start(mode, seconds) end
    for _, run in ipairs(started) do finish(run) end
    for _, first in ipairs(started) do
      local run = first
      for _ = 2, TRIES do
        if run.seconds < WAIT_TIME then break end
        run = start(run.mode, seconds)
        finish(run)
      end
      outcomes[run.mode] = outcomes[run.mode] or {}
      table.insert(outcomes[run.mode], run)
    end
  end

  setup(function()
    server = process.devserver { grace = 0.1, args = { "--create-delay", tostring(CREATE_DELAY) } }
    watcher = opensandbox.new(server.url, server.key)
    for _, seconds in ipairs { 0.05, 0.15, 0.25 } do interrupt(seconds) end
    -- A create that begins now is answered after all those that began before.
    assert(assert(watcher:create { image = "any" }):kill())
  end)
  teardown(function()
    watcher:close()
    server:stop()
  end)

  for mode, how in pairs(MODES) do
    it("leaves no sandbox behind " .. how, function()
      assert.equal(3, #outcomes[mode])
      local fails = mode == "failed" or mode == "map"
      for _, outcome in ipairs(outcomes[mode]) do
        assert.equal(fails and 1 or 0, outcome.code, outcome.complaint)
        if fails then assert.truthy(outcome.complaint:find("failed on purpose", 1, true), outcome.complaint) end
        assert.same({}, assert(watcher:list_sandboxes { metadata = outcome.metadata }))
        assert.is_true(outcome.seconds < 3, "it took too long")
      end
    end)
  end
end)

describe("a create whose response is lost", function()
  local server, client

  setup(function()
    -- The first segment of the path says what happens. POST makes a sandbox, and its response is lost; the list shows it.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local created, known, metadata = {}, {}, {}
      local function elapsed(name) return (uv.hrtime() - created[name]) / 1e9 end
      local function is_down(name) return (name == "outage" or name == "cancelled") and elapsed(name) < 1.2 end
      return function(request, connection)
        local name, path = request.path:match("^/(%w+)/v1(/[^?]*)")
        if request.method == "POST" then
          created[name], known[name] = uv.hrtime(), name ~= "unlisted"
          state["created " .. name] = true
          metadata[name] = name ~= "foreign" and json.decode(request.body).metadata or nil
          if name == "outage" or name == "garbled" or name == "starved" or name == "lost" or name == "foreign" then
            return connection:close()
          end
          return connection:silence()
        elseif is_down(name) then
          state.refused = (state.refused or 0) + 1
          return connection:reset()
        elseif request.method == "DELETE" then
          state["deleted " .. name] = path
          known[name] = nil
          return connection:respond(204, {}, "")
        elseif name == "mute" then
          return connection:silence()
        elseif name == "garbled" and elapsed(name) < 0.5 then
          state.garbled = (state.garbled or 0) + 1
          return connection:respond(200, { ["Content-Type"] = "text/html" }, "<html>please wait</html>")
        end
        local items = json.array {}
        if known[name] and not ((name == "late" or name == "ended") and elapsed(name) < 1.2) then
          items[1] = { id = "found-" .. name, status = { state = "Running" }, metadata = metadata[name] }
        end
        connection:respond(200, JSON, json.encode { items = items })
      end
    ]]
  end)
  teardown(function() server:stop() end)
  after_each(function() client:close() end)

  local function create(name, opts)
    client = opensandbox.new(server.url .. "/" .. name, "", opts)
    return client:create_sandbox { image = "x" }
  end

  it("is searched until an outage is over", function()
    local info, err = create "outage"
    assert.equal("found-outage", info and info.id, tostring(err))
    assert.is_true(server:state().refused > 3)
  end)

  it("is the caller's once it is found, and stays when the server answers other requests", function()
    client = opensandbox.new(server.url .. "/lost", "")
    local sandbox = assert(client:create { image = "x", wait = false })
    assert.equal("found-lost", sandbox.id)
    opensandbox.sleep(0.3) -- after which a DELETE that has failed would be repeated
    for _ = 1, 3 do
      client:list_sandboxes()
      opensandbox.sleep(0.05)
    end
    assert.is_nil(server:state()["deleted lost"])
    assert.is_true(sandbox:kill())
    assert.equal("/sandboxes/found-lost", server:state()["deleted lost"])
  end)

  it("is not taken for another sandbox, which a server lists that does not filter", function()
    local info, err = create "foreign"
    assert.is_nil(info)
    assert.same({ "transport", "receive_failed" }, { err.kind, err.code })
    client:close()
    assert.is_nil(server:state()["deleted foreign"])
  end)

  it("is searched until the lists are understood again", function()
    local info, err = create "garbled"
    assert.equal("found-garbled", info and info.id, tostring(err))
    assert.is_true(server:state().garbled > 0)
  end)

  it("is searched while the client closes, when memory did not suffice to start the search", function()
    local spawn_detached = tasks.spawn_detached
    function tasks.spawn_detached() error("not enough memory", 0) end
    local ok, problem = pcall(create, "starved")
    tasks.spawn_detached = spawn_detached
    assert.same({ false, "not enough memory" }, { ok, problem })
    client:close()
    assert.equal("/sandboxes/found-starved", server:state()["deleted starved"])
  end)

  it("is not even sent when memory runs out before the client is responsible for the sandbox", function()
    local expect = scheduler.expect
    function scheduler.expect() error("not enough memory", 0) end
    local ok, problem = pcall(create, "starting")
    scheduler.expect = expect
    assert.same({ false, "not enough memory" }, { ok, problem })
    assert(client:list_sandboxes())
    assert.is_nil(server:state()["created starting"])
  end)

  it("is not sent when the client is closed while the request is started, as a finalizer can do", function()
    client = opensandbox.new(server.url .. "/closing", "")
    local transport = client.http.transport
    local start = transport.start
    function transport.start(...)
      transport.start = nil
      local transfer = start(...)
      client:close()
      return transfer
    end
    local info, err = client:create_sandbox { image = "x" }
    assert.is_nil(info)
    assert.equal("closed", err.kind)
    assert.is_nil(server:state()["created closing"])
  end)

  it("is searched when the script ends", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url .. "/ended", "k", false
    local child = process.start { env = env, argv = { process.lua(), "-e", [[
      local client = require("opensandbox").new(nil, nil, { create_timeout = 0.4 })
      local info, err = client:create_sandbox { image = "x" }
      assert(not info and err.kind == "timeout", tostring(err))
    ]] } }
    local code = child:wait(15)
    local complaint = child:stderr_text()
    child:stop()
    assert.equal(0, code, complaint)
    assert.equal("/sandboxes/found-ended", server:state()["deleted ended"])
  end)

  it("is searched in the background, through an outage too, when its task is cancelled", function()
    client = opensandbox.new(server.url .. "/cancelled", "")
    local task = opensandbox.spawn(function() return client:create_sandbox { image = "x" } end)
    wait_until(function()
      local requests = server:requests()
      return #requests > 0 and requests[#requests].path:find("^/cancelled/")
    end)
    task:cancel()
    assert.equal("cancelled", select(2, task:wait(5)).kind)
    wait_until(function() return server:state()["deleted cancelled"] end, "the sandbox stays")
  end)

  it("ends when create_timeout has passed, the search included, and names that option", function()
    local began = core.now()
    local info, err = create("mute", { create_timeout = 1 })
    local taken = core.now() - began
    assert.is_nil(info)
    assert.is_true(taken > 0.7 and taken < 2, ("it took %.2f s"):format(taken))
    assert.same({ "timeout", "create_timeout" }, { err.kind, err.timeout_option })
    assert.truthy(tostring(err):find("create_timeout of 1 s", 1, true), tostring(err))
  end)

  it("is not searched after its client was closed", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url .. "/unlisted", "", false
    local code, output, complaint = process.run({ env = env, argv = { process.lua(), "-e", [[
      local opensandbox = require "opensandbox"
      local client = opensandbox.new()
      local task = opensandbox.spawn(function() return client:create_sandbox { image = "x" } end)
      while client.http.transport.multi:inflight() == 0 do opensandbox.sleep(0.01) end
      opensandbox.sleep(0.2) -- the request is sent
      client:close()
      io.write(select(2, task:wait(5)).kind)
      opensandbox.sleep(0.5) -- in which the search would go on
    ]] } }, 20)
    assert.same({ 0, "closed", "" }, { code, output, complaint })
  end)

  it("is deleted when it appears after the call has returned", function()
    local info, err = create("late", { create_timeout = 0.4 })
    assert.is_nil(info)
    assert.same({ "timeout", "create_timeout" }, { err.kind, err.timeout_option })
    assert.truthy(err.hint:find("opensandbox-lua-create=", 1, true), err.hint)
    wait_until(function() return server:state()["deleted late"] end, "the sandbox stays")
    assert.equal("/sandboxes/found-late", server:state()["deleted late"])
  end)
end)

--- What a client created is deleted until the server has answered, however long the network fails, and closing the client is bounded.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local tasks = require "opensandbox.loop.task"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local server, client

-- The first segment of the path names the test: NAME-N resets the first N DELETEs.
local SERVER = [[
  local JSON = { ["Content-Type"] = "application/json" }
  local deletes = {}
  return function(request, connection)
    local name, path = request.path:match("^/([%w-]+)/v1(/[^?]*)")
    if not name then name, path = request.path:match("^/([%w-]+)(/[^?]*)") end
    if request.method == "POST" and path == "/sandboxes" then
      return connection:respond(202, JSON, json.encode { id = "s1", status = { state = "Running" } })
    elseif request.method == "POST" and path == "/session" then
      return connection:respond(200, JSON, '{"session_id":"h1"}')
    elseif request.method == "DELETE" then
      deletes[name] = (deletes[name] or 0) + 1
      if name == "mute" then return connection:silence() end
      if name == "mute-first" and deletes[name] == 1 then return connection:silence() end
      if name == "busy" then return connection:respond(503, { ["Retry-After"] = "25" }, "") end
      if name == "refused" then return connection:respond(403, JSON, '{"code":"NO","message":"no"}') end
      if deletes[name] <= tonumber(name:match("%-(%d+)") or 0) then return connection:reset() end
      state[name .. path] = deletes[name]
      return connection:respond(204, {}, "")
    end
    connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/" .. name, id = "s1",
      status = { state = "Running" } })
  end
]]

setup(function() server = fault_server.start(SERVER) end)
teardown(function() server:stop() end)
after_each(function()
  if client then client:close() end
  client = nil
end)

local function new(name, opts)
  client = opensandbox.new(server.url .. "/" .. name, "", opts)
  return client
end

local function create(name, opts)
  return assert(new(name, opts):create { image = "x", wait = false })
end

local function deletes(name)
  local count = 0
  for _, request in ipairs(server:requests()) do
    if request.method == "DELETE" and request.path:find("/" .. name .. "/", 1, true) then count = count + 1 end
  end
  return count
end

local function collect()
  for _ = 1, 2 do collectgarbage() end
end

describe("a sandbox whose DELETE fails", function()
  it("is deleted again when the server answers other requests, after it was collected", function()
    local function drop() create("collected-5", { retry = false }) end
    drop()
    collect()
    wait_until(function()
      client:get_sandbox("another")
      return server:state()["collected-5/sandboxes/s1"]
    end, "it stays")
    assert.equal(6, deletes "collected-5")
  end)

  it("is looked for after a failed DELETE only, because a client may own ten thousand", function()
    local seen = 0
    local resource = new("owner").resources:add(function() return nil end)
    function resource.parent_is_owned()
      seen = seen + 1
      return true
    end
    for _ = 1, 20 do assert(client:get_sandbox("another")) end
    assert.equal(0, seen)
    resource:release()
  end)

  it("keeps no task waiting meanwhile", function()
    local function drop() create("waiting-9", { retry = false }) end
    drop()
    collect()
    wait_until(function() return deletes "waiting-9" > 0 and next(client.cleanup.tasks) == nil end, "a task waits")
    assert.is_truthy(next(client.resources.members))
  end)

  it("is deleted again after its scope, when kill has failed", function()
    local sandbox = create("scope-4", { retry = false })
    local ok, err = sandbox:kill()
    assert.is_nil(ok)
    assert.equal("transport", err.kind)
    getmetatable(sandbox).__close(sandbox) -- as at the end of a scope
    wait_until(function()
      client:get_sandbox("another")
      return server:state()["scope-4/sandboxes/s1"]
    end, "it stays")
    assert.equal("closed", select(2, sandbox:info()).kind)
  end)

  it("is deleted again while the client closes", function()
    create("close-4", { retry = false })
    local began = core.now()
    client:close()
    assert.is_true(core.now() - began < 3)
    assert.equal(5, server:state()["close-4/sandboxes/s1"])
  end)

  it("keeps no task waiting after the client was closed, although the server asks to wait longer", function()
    local sandbox = create "busy"
    local killing = opensandbox.spawn(function() return sandbox:kill { timeout = 60 } end)
    wait_until(function() return deletes "busy" > 0 end, "nothing is deleted")
    client:close()
    wait_until(function() return killing:done() and next(client.cleanup.tasks) == nil end, "a task waits")
    assert.equal("closed", select(2, killing:wait()).kind)
  end)

  it("is deleted while the client closes, when memory did not suffice to start that before", function()
    create "starved-0"
    local spawn_detached = tasks.spawn_detached
    function tasks.spawn_detached() error("not enough memory", 0) end
    collect()
    tasks.spawn_detached = spawn_detached
    assert.equal(0, deletes "starved-0")
    client:close()
    assert.equal(1, server:state()["starved-0/sandboxes/s1"])
  end)

  it("is deleted again when the script ends", function()
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url .. "/ended-2", "k", false
    local child = process.start { env = env, argv = { process.lua(), "-e", [[
      KEPT = assert(require("opensandbox").new():create { image = "x", wait = false })
    ]] } }
    local code = child:wait(15)
    local complaint = child:stderr_text()
    child:stop()
    assert.equal(0, code, complaint)
    assert.equal(3, server:state()["ended-2/sandboxes/s1"])
  end)

  it("is given up when the server refuses it", function()
    local function drop() create "refused" end
    drop()
    collect()
    wait_until(function() return next(client.resources.members) == nil end, "it is not given up")
    assert.equal(1, deletes "refused")
  end)
end)

describe("a session whose DELETE fails", function()
  it("is given up after the retries of one call, because it ends with its sandbox", function()
    local sandbox = assert(new("session-99", { retry = { base_delay = 0.001 } }):connect("s1", { wait = false }))
    local function drop() assert(sandbox:session()) end
    drop()
    collect()
    wait_until(function() return next(client.resources.members) == nil end, "it is not given up")
    local sent = deletes "session-99"
    -- libcurl sends a request again whose connection was used before and breaks.
    assert.is_true(sent >= 3 and sent <= 6, sent .. " requests")
  end)
end)

describe("closing a client", function()
  it("takes 2 seconds in all when the server does not answer", function()
    new "mute"
    local sandboxes = {}
    for i = 1, 3 do sandboxes[i] = assert(client:create { image = "x", wait = false }) end
    client.http:send_to_endpoint(server.url .. "/mute", { op = "spec", method = "DELETE", path = "/command" }, true)
    local began = core.now()
    client:close()
    local taken = core.now() - began
    assert.is_true(taken > 1.8 and taken < 3, ("it took %.2f s"):format(taken))
    for _, sandbox in ipairs(sandboxes) do assert.equal("closed", select(2, sandbox:info()).kind) end
    began = core.now()
    client:close() -- once more does nothing
    assert.is_true(core.now() - began < 1)
  end)

  it("takes no longer beside others, and does not hold up the loop, when the server does not answer", function()
    local clients, closes = {}, {}
    for i = 1, 10 do
      clients[i] = opensandbox.new(server.url .. "/mute", "")
      assert(clients[i]:create { image = "x", wait = false })
    end
    local began, longest = core.now(), 0
    for i, one in ipairs(clients) do closes[i] = opensandbox.spawn(function() one:close() end) end
    local last = core.now()
    wait_until(function()
      longest, last = math.max(longest, core.now() - last), core.now()
      for _, closing in ipairs(closes) do
        if not closing:done() then return false end
      end
      return true
    end, "the clients are not closed")
    local taken = core.now() - began
    assert.is_true(taken > 1.8 and taken < 3, ("it took %.2f s"):format(taken))
    assert.is_true(longest < 0.15, ("nothing else ran for %.2f s"):format(longest))
  end)

  it("sends its last requests on other connections than those that do not answer", function()
    create("mute-first", { retry = false })
    client:close()
    assert.equal(2, server:state()["mute-first/sandboxes/s1"])
  end)

  it("refuses the creates that begin meanwhile", function()
    new "mute"
    local kept = assert(client:create { image = "x", wait = false })
    local late
    local task = opensandbox.spawn(function()
      wait_until(function() return client.resources.closing end)
      late = { client:create { image = "x", wait = false } }
    end)
    opensandbox.sleep(0)
    client:close()
    task:wait(5)
    assert.is_nil(late[1])
    assert.equal("closed", late[2].kind)
    assert.equal("closed", select(2, kept:info()).kind)
  end)
end)

--- A sandbox that is kept alive lives as long as it is in use, costs a request now and then, and expires when it is left alone.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local time = require "opensandbox.base.time"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local server, client

-- The requests whose path ends with a text.
local function sent(method, ending)
  local list = {}
  for _, request in ipairs(server:requests()) do
    if request.method == method and request.path:sub(-#ending) == ending then list[#list + 1] = request end
  end
  return list
end

local function renewals(id)
  return sent("POST", "/sandboxes/" .. id .. "/renew-expiration")
end

local function expiry(request)
  return time.parse(request.body:match('"expiresAt":"([^"]+)"'))
end

-- Each test has sandboxes of its own: KIND-MS-n, where MS is the life they have when they are asked for first.
local count = 0
local function name(kind, ms)
  count = count + 1
  return ("%s-%d-%d"):format(kind, ms, count)
end

local function connect(id, opts)
  return assert(client:connect(id, opts))
end

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("keeping a sandbox alive", function()
  setup(function()
    -- A command is its length in milliseconds: a stream of pings, one every 50 ms, and the end.
    server = fault_server.start [[
      local JSON = { ["Content-Type"] = "application/json" }
      local expires = {}
      local function in_ms(ms)
        local seconds, micro = uv.gettimeofday()
        local at = seconds + micro / 1e6 + ms / 1000
        return os.date("!%Y-%m-%dT%H:%M:%S", math.floor(at)) .. ("%.6f"):format(at % 1):sub(2) .. "Z"
      end
      local routes = {}
      routes["GET"] = function(connection, id)
        local ms = tonumber(id:match("%-(%d+)"))
        if not id:find("^never") then expires[id] = expires[id] or in_ms(ms) end
        connection:respond(200, JSON, json.encode { id = id, status = { state = "Running" }, expiresAt = expires[id] })
      end
      routes["GET /endpoints/44772"] = function(connection, id, request)
        connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd/" .. id })
      end
      routes["POST /renew-expiration"] = function(connection, id, request)
        if id:find("^mute") then return connection:silence() end
        if id:find("^refused") then return connection:respond(500, {}, "no") end
        expires[id] = json.decode(request.body).expiresAt
        connection:respond(200, JSON, json.encode { expiresAt = expires[id] })
      end
      routes["DELETE"] = function(connection)
        connection:after(100, function() connection:respond(204, {}, "") end)
      end
      return function(request, connection)
        local id, rest = request.path:match("^/v1/sandboxes/([^/]+)(.*)$")
        if id then return routes[request.method .. (rest ~= "" and " " .. rest or "")](connection, id, request) end
        if request.path:find("/ping$") or request.method == "DELETE" then return connection:respond(200, {}, "") end
        local left = tonumber(json.decode(request.body).command)
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1" }
        local function ping()
          if connection.gone then return end
          left = left - 50
          if left > 0 then
            connection:event { type = "ping", text = "pong" }
            return connection:after(50, ping)
          end
          connection:event { type = "execution_complete", execution_time = 1 }
          connection:done()
        end
        ping()
      end
    ]]
  end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "") end)
  after_each(function() client:close() end)

  it("renews it now and then while a silent command runs", function()
    local id = name("in", 1200)
    local sandbox = connect(id, { keep_alive = 1.2 })
    assert(sandbox:run("2400"))
    local found = renewals(id)
    assert.is_true(#found >= 3 and #found <= 7, #found .. " renewals")
    local to_wall = core.wall_clock() - core.now()
    local last
    for _, request in ipairs(found) do
      local life = expiry(request) - to_wall - request.time
      assert.is_true(life > 0.9 and life < 1.3, "made to live for " .. life)
      if last then assert.is_true(request.time - last > 0.3, "renewed again after " .. request.time - last) end
      last = request.time
    end
    assert.equal(1, #sent("GET", "/sandboxes/" .. id)) -- what connect was told is enough
  end)

  it("never makes a longer life shorter, and leaves one alone that never expires", function()
    for _, id in ipairs { name("in", 3600000), name("never", 0) } do
      local sandbox = connect(id, { keep_alive = 0.5 })
      assert(sandbox:run("700"))
      assert.same({}, renewals(id))
    end
  end)

  it("asks once how long it lives when that is not known", function()
    local id = name("in", 100)
    local sandbox = connect(id, { wait = false })
    assert.same({}, sent("GET", "/sandboxes/" .. id))
    assert.is_true(sandbox:keep_alive(2))
    assert.equal(1, #sent("GET", "/sandboxes/" .. id))
    assert(sandbox:run("100"))
    assert.equal(1, #renewals(id))
    local other = name("in", 100)
    connect(other, { wait = false, keep_alive = 2 })
    assert.equal(1, #sent("GET", "/sandboxes/" .. other))
  end)

  it("counts what the server says meanwhile", function()
    local id = name("in", 100)
    local sandbox = connect(id, { keep_alive = 0.5 })
    assert(sandbox:renew(3600))
    assert(sandbox:run("600"))
    assert.equal(1, #renewals(id))
  end)

  it("does nothing while nothing moves for it, whatever else does", function()
    local id, other = name("in", 100), name("in", 3600000)
    local sandbox = connect(id, { keep_alive = 0.3 })
    assert(connect(other):run("500"))
    assert.same({}, renewals(id))
    assert(sandbox:run("100"))
    assert.equal(1, #renewals(id))
  end)

  it("ends with keep_alive(false), and when the object is closed, detached, killed or dropped", function()
    local ways = {
      off = function(sandbox) assert.is_true(sandbox:keep_alive(false)) end,
      close = function(sandbox) sandbox:close() end,
      detach = function(sandbox) sandbox:detach() end,
      kill = function(sandbox) assert.is_true(sandbox:kill()) end, -- its own request must not renew, either
      drop = function() end,
    }
    for way, act in pairs(ways) do
      local id = name("in", 0)
      local function begin()
        local sandbox = connect(id, { keep_alive = 0.2 })
        local execd = assert(sandbox:execd_endpoint("spec"))
        act(sandbox)
        return execd
      end
      local execd = begin()
      collect()
      assert(client:run_command(execd, "300"))
      assert.same({}, renewals(id), way)
    end
    local sandbox = connect(name("in", 0))
    sandbox:close()
    assert.is_true(sandbox:keep_alive(false))
    local ok, err = sandbox:keep_alive(5)
    assert.is_nil(ok)
    assert.equal("closed", err.kind)
  end)

  it("leaves another object for the same sandbox with a keeper of its own", function()
    local id = name("in", 0)
    local first = connect(id, { keep_alive = 0.4 })
    local second = connect(id, { keep_alive = 0.4 })
    first:close()
    local before = #renewals(id)
    assert(second:run("500"))
    assert.is_true(#renewals(id) > before)
  end)

  it("waits for no answer, and does not mind a bad one", function()
    for _, kind in ipairs { "mute", "refused" } do
      local id = name(kind, 0)
      local sandbox = connect(id, { keep_alive = 0.3 })
      local began = core.now()
      assert.equal(0, assert(sandbox:run("500")).exit_code)
      assert.is_true(core.now() - began < 3)
      local tries = #renewals(id)
      assert.is_true(tries >= 2 and tries <= 6, tries .. " renewals")
    end
  end)

  it("lets the error of a hook through, and works on", function()
    local id = name("in", 0)
    local one = opensandbox.new(server.url, "", { on_request = function(request)
      if request.op == "renew_sandbox" then error("the hook") end
    end })
    local sandbox = assert(one:connect(id))
    assert.is_true(sandbox:keep_alive(10))
    local ok, problem = pcall(sandbox.run, sandbox, "200")
    assert.is_false(ok)
    assert.truthy(tostring(problem):find("the hook", 1, true))
    assert(sandbox:run("100"))
    one:close()
  end)

  it("raises for what is not a time", function()
    local sandbox = connect(name("in", 0))
    for _, value in ipairs { 0, -1, "10", true, {} } do
      assert.has_error(function() sandbox:keep_alive(value) end)
      assert.has_error(function() client:connect("x", { keep_alive = value }) end)
      assert.has_error(function() client:create { image = "x", keep_alive = value } end)
    end
    assert.has_error(function() sandbox:keep_alive() end)
  end)
end)

describe("a sandbox with a short life", function()
  setup(function() server = process.devserver { grace = 0.2 } end)
  teardown(function() server:stop() end)

  it("outlives it by a command, and expires afterwards", function()
    local one = opensandbox.new(server.url, server.key)
    local sandbox = assert(one:create { image = "any", keep_alive = 2 })
    assert(sandbox:renew(2)) -- the create gives no less than a minute
    local result = assert(sandbox:run("i=0; while [ $i -lt 25 ]; do echo $i; sleep 0.2; i=$((i + 1)); done"))
    assert.equal(0, result.exit_code)
    assert.truthy(result.stdout:find("24\n", 1, true))
    local deadline, id, other = core.now() + 10, sandbox.id, opensandbox.new(server.url, server.key)
    repeat
      assert.is_true(core.now() < deadline, "it does not expire")
      opensandbox.sleep(0.1)
    until not other:get_sandbox(id)
    other:close()
    one:close()
  end)
end)

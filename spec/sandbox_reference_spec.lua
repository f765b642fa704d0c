--- A sandbox that goes from one process to another as a plain table.

local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local server, client, sandbox, asked

local function new()
  return opensandbox.new(server.url, server.key, { on_request = function(request)
    asked[#asked + 1] = request.url:match("/(endpoints)/") or request.op
  end })
end

local function count(op)
  local found = 0
  for _, one in ipairs(asked) do
    if one == op then found = found + 1 end
  end
  return found
end

local function copy(value)
  return json.decode(assert(json.encode(value)))
end

describe("a handle", function()
  setup(function() server = process.devserver { grace = 0.2 } end)
  teardown(function() server:stop() end)
  before_each(function()
    asked = {}
    client = new()
    sandbox = assert(client:create { image = "any" })
  end)
  after_each(function() client:close() end)

  it("is a plain table with the way to the sandbox, and without the key", function()
    local handle = assert(sandbox:handle())
    assert.equal(sandbox.id, handle.id)
    assert.equal(client.url, handle.url)
    assert.is_nil(getmetatable(handle))
    local text = assert(json.encode(handle))
    assert.is_nil(text:find(server.key, 1, true))
    assert.same(handle, json.decode(text))
    handle.endpoints["44772"].headers = nil -- it is a copy
    assert.equal(0, assert(sandbox:run("true")).exit_code)
  end)

  it("connects another client without asking for the endpoint again", function()
    assert(sandbox.files:write("/work/x", "bytes"))
    local handle = copy(assert(sandbox:handle()))
    local other = new()
    asked = {}
    local connected = assert(other:connect(handle))
    assert.equal("bytes", connected.files:read("/work/x"))
    assert.equal(0, count("endpoints"))
    assert.same(handle, copy(assert(connected:handle())))
    connected:close() -- which does not end it
    assert.equal(0, assert(sandbox:run("true")).exit_code)
    asked = {}
    local unasked = assert(other:connect(handle, { wait = false }))
    assert.same({}, asked)
    assert.equal(0, assert(unasked:run("true")).exit_code)
    other:close()
  end)

  it("connects in another process", function()
    local text = assert(json.encode(assert(sandbox:handle())))
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.OPEN_SANDBOX_PROTOCOL = server.url, server.key, false
    local child = process.start { env = env, argv = { process.lua(), "-e", [[
      local handle = require("opensandbox.base.json").decode(io.read("*l"))
      local connected = assert(require("opensandbox").new():connect(handle))
      io.write(assert(connected:run("echo from there")).stdout)
    ]] } }
    child:write(text .. "\n")
    assert.equal(0, (child:wait(15)), child:stderr_text())
    assert.equal("from there\n", child:output())
    child:stop()
  end)

  it("asks for the endpoint when the one it holds does not answer, or is somebody else's", function()
    local stranger = fault_server.start [[
      return function(_, connection) connection:respond(401, {}, "who are you") end
    ]]
    for _, url in ipairs { "http://127.0.0.1:1/gone", stranger.url } do
      local handle = assert(sandbox:handle())
      handle.endpoints["44772"].url = url
      asked = {}
      local connected = assert(client:connect(handle))
      assert.equal(1, count("endpoints"))
      assert.equal("here\n", assert(connected:run("echo here")).stdout)
    end
    stranger:stop()
    local bare = assert(client:connect { id = sandbox.id, url = client.url })
    assert.equal(0, assert(bare:run("true")).exit_code)
  end)

  it("asks for the endpoint when it is not known yet, and is refused by a closed object", function()
    local connected = assert(client:connect(sandbox.id, { wait = false }))
    assert.same(sandbox:handle(), connected:handle())
    connected:close()
    local handle, err = connected:handle()
    assert.is_nil(handle)
    assert.equal("closed", err.kind)
    assert.equal("sandbox:handle", err.op)
  end)

  it("of a sandbox that was paused and resumed has the endpoint of afterwards", function()
    local moving = fault_server.start [[
      local state, generation = "Running", 1
      return function(request, connection)
        local JSON, path = { ["Content-Type"] = "application/json" }, request.path
        if path:find("/pause$") then state = "Paused" end
        if path:find("/resume$") then state, generation = "Running", generation + 1 end
        if request.method == "POST" then return connection:respond(202, {}, "") end
        if path:find("/ping$") then return connection:respond(path == "/execd" .. generation .. "/ping" and 200 or 502, {}, "") end
        local endpoint = path:find("/endpoints/") and request.headers.host .. "/execd" .. generation or nil
        connection:respond(200, JSON, json.encode { id = "x", status = { state = state }, endpoint = endpoint })
      end
    ]]
    local one = opensandbox.new(moving.url, "")
    local connected = assert(one:connect("x"))
    local before = assert(connected:handle())
    assert.is_true(connected:pause())
    assert.is_true(connected:resume())
    local after = assert(connected:handle())
    assert.truthy(before.endpoints["44772"].url:find("/execd1$"))
    assert.truthy(after.endpoints["44772"].url:find("/execd2$"))
    assert.same(after, assert(one:connect(before)):handle())
    one:close()
    moving:stop()
  end)

  it("of a sandbox that is gone says so", function()
    local handle = assert(sandbox:handle())
    assert(sandbox:kill())
    local connected, err = client:connect(handle)
    assert.is_nil(connected)
    assert.equal("state", err.kind)
    assert.equal(404, err.status)
  end)

  it("of another server is refused, before anything is sent", function()
    local handle = assert(sandbox:handle())
    local other = opensandbox.new("http://127.0.0.1:1", "secret", { on_request = function() error("sent") end })
    local connected, err = other:connect(handle)
    assert.is_nil(connected)
    assert.equal("state", err.kind)
    assert.equal("other_server", err.code)
    assert.truthy(tostring(err):find(client.url, 1, true), tostring(err))
    other:close()
  end)

  it("that is malformed raises, at the caller's line", function()
    local handle = assert(sandbox:handle())
    local function with(changes)
      local changed = copy(handle)
      changes(changed, changed.endpoints["44772"])
      return changed
    end
    for i, bad in ipairs {
      {}, { id = handle.id }, { url = handle.url }, { id = 5, url = handle.url }, { id = "..", url = handle.url },
      with(function(h) h.endpoints = "x" end), with(function(h) h.endpoints["44772"] = 5 end),
      with(function(_, e) e.url = nil end), with(function(_, e) e.url = "ftp://x" end),
      with(function(_, e) e.headers = { ["a b"] = "c" } end), with(function(_, e) e.headers = { A = "x\r\ny: z" } end),
      with(function(_, e) e.headers = { "x" } end),
    } do
      local ok, problem = pcall(function() return client:connect(bad) end)
      assert.is_false(ok, "case " .. i)
      assert.truthy(problem:find("sandbox_reference_spec%.lua:%d+: connect: "), problem)
    end
  end)
end)

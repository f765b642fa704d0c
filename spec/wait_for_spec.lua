--- Waiting for a port or a file in a sandbox: one command that looks, and ends by itself.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local uv = require "luv"
local Fixture = require "spec.support.fixture"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local sandbox, fixture
local work -- a directory of the sandbox, as its commands name it

-- A TCP socket of this machine, whose network the sandbox has too; it does not listen yet.
local function socket(host)
  local tcp = uv.new_tcp()
  assert(tcp:bind(host, 0))
  return tcp, tcp:getsockname().port
end

local function fails(kind, code, ok, err)
  assert.is_nil(ok)
  assert.equal(kind, err.kind, tostring(err))
  assert.equal(code, err.code)
  return err
end

describe("waiting in a sandbox", function()
  setup(function()
    fixture = Fixture.new()
    sandbox, work = fixture.sandbox, fixture.root .. "/work"
  end)
  teardown(function() fixture:close() end)

  it("for a port ends when something listens, on either protocol", function()
    local hosts = { "127.0.0.1", "::1" }
    if not pcall(socket, "::1") then hosts[2] = nil end
    for _, host in ipairs(hosts) do
      local tcp, port = socket(host)
      local waiting = opensandbox.spawn(function() return sandbox:wait_for_port(port) end)
      opensandbox.sleep(0.3)
      assert.is_false(waiting:done())
      assert(tcp:listen(5, function() end))
      local began = core.now()
      assert.is_true(waiting:wait())
      assert.is_true(core.now() - began < 3)
      assert.is_true(sandbox:wait_for_port(port, { timeout = 5, interval = 1 }))
      tcp:close()
    end
  end)

  it("for a port takes no connection for a listener, and no other port", function()
    local tcp, port = socket("127.0.0.1")
    assert(tcp:listen(5, function() end))
    local peer = uv.new_tcp()
    local connected
    peer:connect("127.0.0.1", port, function() connected = true end)
    while not connected do uv.run("once") end
    local own = peer:getsockname().port
    local err = fails("timeout", "not_listening", sandbox:wait_for_port(own, { timeout = 0.5 }))
    assert.equal("sandbox:wait_for_port", err.op)
    assert.equal("timeout", err.timeout_option)
    assert.equal(sandbox.id, err.sandbox_id)
    assert.truthy(tostring(err):find(("port %d: timeout of 0.5 s"):format(own), 1, true), tostring(err))
    assert.is_string(err.hint)
    peer:close()
    tcp:close()
  end)

  it("for a file ends when it is there, whatever it is and whatever its name", function()
    for i, name in ipairs { "a file", "it's $HOME `x` %d \"q\" \\", "\n" } do
      local path = work .. "/" .. name
      local waiting = opensandbox.spawn(function() return sandbox:wait_for_file(path, { timeout = 10 }) end)
      opensandbox.sleep(0.2)
      assert.is_false(waiting:done())
      local make = "mkdir -p work; " .. (i == 2 and "mkdir " or "touch ") .. opensandbox.quote(path)
      assert.equal(0, assert(sandbox:run(make)).exit_code)
      assert.is_true(waiting:wait())
    end
    assert.is_true(sandbox:wait_for_file("/", { timeout = 5 }))
  end)

  it("for a file does not take a symbolic link for what is not behind it", function()
    assert(sandbox:run("mkdir -p work; ln -s behind work/link"))
    local err = fails("timeout", "not_found", sandbox:wait_for_file(work .. "/link", { timeout = 0.5 }))
    assert.equal("sandbox:wait_for_file", err.op)
    assert(sandbox:run("touch work/behind"))
    assert.is_true(sandbox:wait_for_file(work .. "/link", { timeout = 5 }))
  end)

  it("leaves no command behind when its time is over or its task is cancelled", function()
    fails("timeout", "not_found", sandbox:wait_for_file("/never", { timeout = 0.3 }))
    local waiting = opensandbox.spawn(function() return sandbox:wait_for_file("/never") end)
    opensandbox.sleep(0.3)
    waiting:cancel()
    local _, err = waiting:wait()
    assert.equal("cancelled", err.kind)
    local deadline = core.now() + 10
    repeat
      assert.is_true(core.now() < deadline, "it still looks")
      local found = assert(sandbox:run [[cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -a "[-]e /never" >&2; echo]])
    until found.stderr == ""
  end)

  it("says what keeps it from looking", function()
    local faulty = fault_server.start [[
      return function(request, connection)
        if request.path ~= "/execd/command" then
          local JSON = { ["Content-Type"] = "application/json" }
          return connection:respond(200, JSON, json.encode { endpoint = request.headers.host .. "/execd" })
        end
        local code = json.decode(request.body).command:find("tcp6", 1, true) and "4" or "3"
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1" }
        connection:event { type = "error", error = { ename = "CommandExecError", evalue = code, traceback = {} } }
        connection:done()
      end
    ]]
    local one = opensandbox.new(faulty.url, "")
    local connected = assert(one:connect("x", { wait = false }))
    local err = fails("state", "cannot_poll", connected:wait_for_port(80))
    assert.truthy(tostring(err):find("/proc/net/tcp", 1, true), tostring(err))
    err = fails("state", "cannot_poll", connected:wait_for_file("/a"))
    assert.truthy(tostring(err):find("sleep", 1, true), tostring(err))
    connected:close()
    fails("closed", "closed", connected:wait_for_port(80))
    one:close()
    faulty:stop()
  end)

  it("really finds out that there are no tables of sockets", function()
    -- The script itself, where nothing is at the place of the tables.
    local script
    local recorder = setmetatable({ id = "x" }, { __index = { call_execd_within = function(_, _, _, _, given)
      script = given
      return { exit_code = 0 }
    end } })
    assert.is_true(require("opensandbox.wait_for").port(recorder, 8080))
    assert.truthy(script:find("1F90", 1, true))
    local moved = script:gsub("/proc/net/", "/no/such/place/")
    assert.equal(4, assert(sandbox:run({ "/bin/sh", "-c", moved }, { timeout = 10 })).exit_code)
    local without_sleep = "PATH=/nowhere; " .. script
    assert.equal(3, assert(sandbox:run({ "/bin/sh", "-c", (without_sleep:gsub("1F90", "FFFFF")) }, { timeout = 10 })).exit_code)
  end)

  it("raises for what is no port, no path and no option", function()
    for _, port in ipairs { 0, 65536, 1.5, "80", -1 } do
      assert.has_error(function() sandbox:wait_for_port(port) end)
    end
    assert.has_error(function() sandbox:wait_for_port() end)
    assert.has_error(function() sandbox:wait_for_file() end)
    assert.has_error(function() sandbox:wait_for_file("") end)
    local _, problem = pcall(sandbox.wait_for_file, sandbox, "/a", { timout = 1 })
    assert.truthy(problem:find("did you mean 'timeout'", 1, true), problem)
  end)
end)

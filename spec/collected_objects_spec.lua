--- Objects that only a running call holds: `assert(client:create(...)):run(...)`. They are not collected, and what they own is not deleted,
--- before the call has returned.

local fixture = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local wait_until = require "spec.support.wait_until"

local COLLECT_INTERVAL = 0.01 -- seconds

describe("an object that only the running call holds", function()
  local fix, client, collecting

  setup(function()
    fix = fixture.new()
    client = fix.client
  end)
  teardown(function() fix:close() end)

  before_each(function()
    collecting = opensandbox.spawn(function()
      while true do
        opensandbox.sleep(COLLECT_INTERVAL)
        collectgarbage()
      end
    end)
  end)
  after_each(function()
    collecting:cancel()
    collecting:wait()
  end)

  local function sandbox()
    return fix:create()
  end

  -- The sandbox of the call was an owned one, which is deleted now that nobody holds it.
  local function assert_only_first_is_left()
    wait_until(function() return #assert(client:list_sandboxes()) == 1 end, "the sandbox is never deleted")
  end

  local function calls(name, expected, call)
    it("remains for " .. name, function()
      local result, err = call()
      assert.equal(expected, result, tostring(err))
      -- LuaJIT does not promise when it finds garbage: its stacks and its traces can hold old values for long.
      if not rawget(_G, "jit") then assert_only_first_is_left() end
    end)
  end

  calls("sandbox:run", "hi\n", function()
    local function run() return sandbox():run("sleep 0.3; echo hi") end
    local result, err = run()
    return result and result.stdout, err
  end)

  calls("sandbox:run with durable and stdin", "hi\n", function()
    local function run() return sandbox():run("sleep 0.3; cat", { durable = true, stdin = "hi\n" }) end
    local result, err = run()
    return result and result.stdout, err
  end)

  calls("sandbox:metrics", "table", function()
    local function metrics() return sandbox():metrics() end
    local result, err = metrics()
    return type(result), err
  end)

  calls("sandbox:wait_for_file", true, function()
    local function wait()
      local created = sandbox()
      assert(created:start "sleep 0.3; touch ./tmp/there")
      return created:wait_for_file "./tmp/there"
    end
    return wait()
  end)

  calls("command:wait", 0, function()
    local function wait() return assert(sandbox():start "sleep 0.3"):wait() end
    local ended, err = wait()
    return ended and ended.exit_code, err
  end)

  calls("the events of a command", "hi\n0", function()
    local texts = {}
    for event in assert(sandbox():start "sleep 0.3; echo hi"):events() do texts[#texts + 1] = event.text or event.exit_code end
    return table.concat(texts)
  end)

  calls("session:run", "hi\n", function()
    local function run() return assert(sandbox():session()):run("sleep 0.3; echo hi") end
    local result, err = run()
    return result and result.stdout, err
  end)

  calls("code:run", "1\n", function()
    local function run() return assert(sandbox():code "python"):run("import time; time.sleep(0.3); print(1)") end
    local result, err = run()
    return result and result.stdout, err
  end)

  calls("files:write from a reader function", true, function()
    local function write()
      local pieces = 3
      return sandbox().files:write("/tmp/written", function()
        opensandbox.sleep(0.1)
        pieces = pieces - 1
        return pieces > 0 and "piece" or nil
      end)
    end
    return write()
  end)

  -- The development server opens the file when the request arrives; the next request proves that the sandbox is there.
  calls("reading from files:open", true, function()
    local function open()
      local created = sandbox()
      assert(created.files:write("/tmp/read", ("x"):rep(300000)))
      return created.id, assert(created.files:open "/tmp/read")
    end
    local id, reader = open()
    assert.equal(1000, #assert(reader:read(1000)))
    opensandbox.sleep(0.1)
    local there, err = client:get_sandbox(id)
    assert.equal(299000, #assert(reader:read "a"))
    return there ~= nil, err
  end)

  calls("a sandbox of a pool that nobody holds", "hi\n", function()
    local function run()
      return assert(client:pool { image = "python:3.12", min_idle = 0, max_size = 1 }:acquire()):run("sleep 0.3; echo hi")
    end
    local result, err = run()
    return result and result.stdout, err
  end)
end)

--- A set of descriptors to wait for, and its alarm.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local process = require "spec.support.process"
local driving = require "spec.support.transfers"

local get = driving.get

describe("a poller", function()
  local poller

  before_each(function() poller = core.poller() end)
  after_each(function() poller:close() end)

  local function waited(seconds)
    local began = core.now()
    poller:wait(seconds)
    return core.now() - began
  end

  it("waits for one of several multis", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:after(50, function() connection:respond(200, {}, "late") end)
      end
    ]]
    local multis = { core.multi(), core.multi() }
    local transfers = {}
    for i, multi in ipairs(multis) do
      transfers[i] = get(multi, server.url .. "/")
      if multi:pollfd() then poller:watch(multi:pollfd()) end
    end
    local deadline = core.now() + 10
    while not (transfers[1]:outcome() and transfers[2]:outcome()) do
      assert.is_true(core.now() < deadline)
      local due = math.min(multis[1]:timeout() or 1, multis[2]:timeout() or 1)
      poller:wait(poller:pollfd() and due or 0.005)
      for _, multi in ipairs(multis) do multi:step(0) end
    end
    for _, multi in ipairs(multis) do multi:close() end
    server:stop()
  end)

  it("waits no longer than it may", function()
    local seconds = waited(0.05)
    assert.is_true(seconds >= 0.04 and seconds < 0.5)
    assert.is_true(waited(0) < 0.2)
    assert.is_true(waited(-1) < 0.2)
  end)

  it("wakes by its alarm, which can be moved and put off", function()
    if not poller:pollfd() then
      assert.is_nil(poller:alarm(0.01))
      return
    end
    assert.is_true(poller:alarm(nil)) -- there is none yet
    assert.is_true(poller:alarm(0.05))
    local seconds = waited(5)
    assert.is_true(seconds >= 0.04 and seconds < 1, "after 0.05 s: " .. seconds)
    assert.is_true(waited(5) < 1, "it is readable until it is set again")
    assert.is_true(poller:alarm(5))
    assert.is_true(waited(0.05) >= 0.04, "moved away")
    assert.is_true(poller:alarm(0))
    assert.is_true(waited(5) < 1, "at once")
    assert.is_true(poller:alarm(nil))
    assert.is_true(waited(0.05) >= 0.04, "put off")
    assert.is_true(poller:alarm(1e300))
    assert.is_true(waited(0) < 1)
  end)

  it("is of this process, can be closed twice, and is of no use then", function()
    assert.is_false(poller:inherited())
    poller:close()
    poller:close()
    for _, method in ipairs { "watch", "alarm", "wait", "pollfd" } do
      assert.has_error(function() poller[method](poller, 1) end)
    end
  end)

  it("leaves no descriptor open", function()
    local before = process.descriptors()
    for _ = 1, 10 do
      local one = core.poller()
      one:alarm(1)
      one:close()
      one = core.poller()
      one:alarm(1)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, process.descriptors())
  end)

  it("refuses what is not a descriptor", function()
    assert.has_error(function() poller:watch(999999) end)
    assert.has_error(function() poller:watch("one") end)
  end)
end)

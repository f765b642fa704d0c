--- A step that a finalizer runs while a task is about to wait. What it reports, it reports to nobody, because the task does not wait yet.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local scheduler = require "opensandbox.loop.scheduler"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local LONGEST = 5 -- seconds; the response never comes

describe("a step between the check of a task and its wait", function()
  local server, client

  setup(function() server = fault_server.start "return function(_, connection) connection:silence() end" end)
  teardown(function() server:stop() end)
  before_each(function() client = opensandbox.new(server.url, "k", { timeout = 60 }) end)
  after_each(function() client:close() end)

  -- Calls a function when a task has checked its transfer and is about to wait, as the collector can at each allocation.
  local function before_first_wait(fn)
    local waiters = client.http.transport.waiters
    local has_called = false
    setmetatable(waiters, { __newindex = function(_, key, waiter)
      if not has_called then
        has_called = true
        fn(key)
      end
      rawset(waiters, key, waiter)
    end })
  end

  it("does not hide the end of a transfer", function()
    local exchange
    before_first_wait(function()
      exchange:close()
      scheduler:step(0)
    end)
    local began = core.now()
    local value, err = opensandbox.spawn(function()
      exchange = require("opensandbox.http.exchange").start(client.http, client.http:lifecycle_request {
        op = "test", method = "GET", path = "/sandboxes" })
      return exchange:head()
    end):wait(LONGEST)
    assert.is_nil(value)
    assert.equal("closed", err.kind)
    assert.is_true(core.now() - began < LONGEST)
  end)

  it("does not end a later wait of the task early", function()
    local woken
    before_first_wait(function(key)
      woken = key
      scheduler:step(0)
    end)
    local began = core.now()
    local task = opensandbox.spawn(function()
      client:list_sandboxes { timeout = 0.1 }
      local slept = core.now()
      opensandbox.sleep(0.2)
      return core.now() - slept
    end)
    assert.is_true(task:wait(LONGEST) >= 0.19)
    assert.truthy(woken)
    assert.is_true(core.now() - began < LONGEST)
  end)
end)

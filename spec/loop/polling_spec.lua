--- Polling, the delays between attempts, and deadlines.

local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local opensandbox = require "opensandbox"
local polling = require "opensandbox.loop.polling"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a backoff", function()
  it("grows by its factor up to its limit, and starts again", function()
    local backoff = backoffs.new(1, 5, 2)
    assert.same({ 1, 2, 4, 5, 5 }, { backoff:next(), backoff:next(), backoff:next(), backoff:next(), backoff:next() })
    backoff:reset()
    assert.same({ 1, 2 }, { backoff:next(), backoff:next() })
  end)

  it("has delays of its own where none are given", function()
    local backoff, sum = backoffs.new(), 0
    local first = backoff:next()
    for _ = 1, 20 do sum = backoff:next() end
    assert.is_true(first > 0 and first < sum and sum < 1)
  end)
end)

describe("a deadline", function()
  it("counts down, and leaves more than nothing", function()
    local deadline = deadlines.new(0.05)
    assert.is_false(deadline:has_passed())
    assert.is_true(deadline:remaining() > 0 and deadline:remaining() <= 0.05)
    assert.is_true(deadline:clamp(100) <= 0.05)
    assert.equal(0.001, deadline:clamp(0.001))
    opensandbox.sleep(0.06)
    assert.is_true(deadline:has_passed())
    assert.is_true(deadline:remaining() > 0)
    local err = deadline:error("op")
    assert.same({ "timeout", "op", "timeout" }, { err.kind, err.op, err.timeout_option })
    assert.truthy(err.message:find("timeout of 0.05 s", 1, true))
  end)

  it("may have started earlier, or be none at all", function()
    assert.is_true(deadlines.since(core.now() - 1, 0.5):has_passed())
    assert.is_false(deadlines.since(core.now() - 1, 1.5):has_passed())
    local none = deadlines.new()
    assert.is_false(none:has_passed())
    assert.is_nil(none:remaining())
    assert.equal(7, none:clamp(7))
  end)
end)

describe("polling", function()
  it("ends with the first value or error, false included", function()
    for _, outcome in ipairs { { "value" }, { false }, { nil, errors.new { message = "no" } } } do
      local calls = 0
      local value, err = polling.poll("op", { initial_delay = 0.001 }, function()
        calls = calls + 1
        if calls == 3 then return outcome[1], outcome[2] end
      end)
      assert.equal(3, calls)
      assert.equal(outcome[1], value)
      assert.equal(outcome[2], err)
    end
  end)

  it("returns nothing when its time has passed, and does not check again then", function()
    local calls, began = 0, core.now()
    local value, err = polling.poll("op", { initial_delay = 20, deadline = deadlines.new(0.05) }, function() calls = calls + 1 end)
    assert.is_nil(value)
    assert.is_nil(err)
    assert.equal(1, calls)
    assert.is_true(core.now() - began < 10)
  end)

  it("returns the error of a task that is cancelled", function()
    local task = opensandbox.spawn(function() return polling.poll("the op", {}, function() end) end)
    opensandbox.sleep(0.01)
    task:cancel()
    local value, err = task:wait(5)
    assert.is_nil(value)
    assert.same({ "cancelled", "the op" }, { err.kind, err.op })
  end)
end)

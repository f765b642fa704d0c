--- A group of background tasks holds the tasks that run, and no other.

local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local opensandbox = require "opensandbox"
local task_group = require "opensandbox.loop.task_group"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

describe("a task group", function()
  it("forgets a task when it ends, also when it raises", function()
    local group = task_group.new()
    local fine = group:spawn(function() opensandbox.sleep(0.01) end)
    local broken = group:spawn(function() error("the task's own fault", 0) end)
    assert.is_truthy(group.tasks[fine] and group.tasks[broken])
    broken:join(5) -- so that its error counts as noticed
    assert.is_nil(group.tasks[broken])
    fine:join(5)
    assert.is_nil(next(group.tasks))
  end)

  it("waits for its tasks, and for those that start meanwhile, until a deadline", function()
    local group, ended = task_group.new(), 0
    group:spawn(function()
      opensandbox.sleep(0.02)
      group:spawn(function()
        opensandbox.sleep(0.02)
        ended = ended + 1
      end)
      ended = ended + 1
    end)
    assert.is_true(group:join(deadlines.new(5)))
    assert.equal(2, ended)
    local slow = group:spawn(function() opensandbox.sleep(5) end)
    local began = core.now()
    assert.is_false(group:join(deadlines.new(0.05)))
    assert.is_true(core.now() - began < 2)
    slow:cancel()
    assert.is_true(group:join(deadlines.new(5)))
  end)
end)

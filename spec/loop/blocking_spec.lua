--- Code of a task that cannot yield, because C calls it: a function for gsub, a finalizer. It blocks like code outside of tasks. Lua 5.1 and
--- 5.2 cannot say whether code can yield: there it raises an error, and the task goes on.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local leave_garbage = require "spec.support.leave_garbage"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local CAN_SAY = rawget(coroutine, "isyieldable") ~= nil

describe("code of a task that cannot yield", function()
  -- Runs a function as a task, which then waits twice. Returns the result of the task.
  local function in_a_task(fn)
    local others = 0
    local other = opensandbox.spawn(function()
      for _ = 1, 5 do
        opensandbox.sleep(0.01)
        others = others + 1
      end
    end)
    local result, err = opensandbox.spawn(function()
      local value = fn()
      local began = core.now()
      opensandbox.sleep(0.05)
      opensandbox.sleep(0.05)
      return { value = value, waited = core.now() - began }
    end):wait(5)
    assert(result, tostring(err))
    other:wait()
    assert.equal(5, others)
    assert.is_true(result.waited >= 0.09, result.waited)
    return result.value
  end

  it("waits in a function that C calls, and the task goes on", function()
    local slept = in_a_task(function()
      return (pcall(string.gsub, "x", "x", function() opensandbox.sleep(0.02) end))
    end)
    assert.equal(CAN_SAY, slept)
  end)

  it("waits in a finalizer, and the task goes on", function()
    local has_slept = false
    local function finalize()
      opensandbox.sleep(0.02)
      has_slept = true
    end
    in_a_task(function()
      leave_garbage(finalize)
      pcall(collectgarbage) -- Lua 5.1 to 5.3 raise the errors of finalizers
    end)
    assert.equal(CAN_SAY, has_slept)
  end)
end)

--- Timers of the development server.

local uv = require "luv"
local timer = require "opensandbox.devserver.base.timer"
local uv_loop = require "spec.support.uv_loop"

-- Keeps the loop from updating its clock, as a long callback does.
local function block(milliseconds)
  local ending = uv.hrtime() + milliseconds * 1e6
  while uv.hrtime() < ending do end -- luacheck: ignore 542
end

describe("a timer", function()
  after_each(function() uv_loop.sleep(0) end) -- lets the loop finish the closing of handles

  it("never fires early, however long ago the loop last looked at its clock", function()
    for round = 1, 20 do
      uv.update_time()
      block(round)
      local began, fired = uv.hrtime(), nil
      timer.after(10, function() fired = uv.hrtime() end)
      assert.is_true(uv_loop.wait(function() return fired end, 5))
      assert.is_true(fired - began >= 10e6, ("fired after %.2f ms"):format((fired - began) / 1e6))
    end
  end)

  it("of an interval does not fire early either, and fires again until it is closed", function()
    block(15)
    local began, fired = uv.hrtime(), {}
    local one = timer.every(10, function() fired[#fired + 1] = uv.hrtime() end)
    assert.is_true(uv_loop.wait(function() return #fired == 3 end, 5))
    assert.is_true(fired[1] - began >= 10e6)
    one:close()
    one:close()
    uv_loop.sleep(0.03)
    assert.equal(3, #fired)
  end)

  it("replaces what was started before, and takes any delay", function()
    local one, fired = timer.new(), {}
    one:start(1, function() fired[#fired + 1] = "replaced" end)
    one:start(1e300, function() fired[#fired + 1] = "at the end of time" end)
    one:start(2.5, function() fired[#fired + 1] = "right" end)
    assert.is_true(uv_loop.wait(function() return fired[1] end, 5))
    uv_loop.sleep(0.01)
    assert.same({ "right" }, fired)
    one:close()
  end)
end)

--- The set of timed things: whatever is added and removed, the earliest is at hand.

local new_random = require "spec.support.random"
local new_timers = require "opensandbox.loop.timers"

local function earliest(things)
  local at
  for thing in pairs(things) do
    if not at or thing.at < at then at = thing.at end
  end
  return at
end

describe("timers", function()
  it("have the earliest at hand, as a list that is searched has", function()
    for seed = 1, 20 do
      local random = new_random(seed)
      local timers, model, list = new_timers(), {}, {}
      for _ = 1, 500 do
        local action = random(10)
        if action <= 5 or #list == 0 then
          local thing = {}
          timers:add(thing, random(seed % 2 == 0 and 10 or 1000000)) -- with many equal times, and with few
          model[thing] = true
          list[#list + 1] = thing
        else
          local thing = action <= 8 and table.remove(list, random(#list)) or timers[1]
          timers:remove(thing)
          model[thing] = nil
          for i = #list, 1, -1 do
            if list[i] == thing then table.remove(list, i) end
          end
        end
        local first = timers[1]
        assert.equal(earliest(model), first and first.at)
        assert.is_true(first == nil or model[first] == true)
        assert.equal(#list, timers.count)
      end
    end
  end)

  it("come out in order", function()
    local random = new_random(7)
    local timers = new_timers()
    for _ = 1, 1000 do timers:add({}, random(500)) end
    local last, count = 0, 0
    while timers[1] do
      local first = timers[1]
      assert.is_true(first.at >= last)
      last, count = first.at, count + 1
      timers:remove(first)
    end
    assert.equal(1000, count)
  end)

  it("pass over what is not among them, and what was removed already", function()
    local timers = new_timers()
    local a, b = {}, {}
    timers:remove(a)
    timers:add(a, 2)
    timers:add(b, 1)
    timers:remove(b)
    timers:remove(b)
    assert.equal(a, timers[1])
    timers:remove(a)
    assert.is_nil(timers[1])
    timers:remove(a)
    timers:add(a, 5)
    assert.equal(a, timers[1])
  end)

  it("hold on to nothing that was removed", function()
    local timers, held = new_timers(), setmetatable({}, { __mode = "k" })
    for i = 1, 100 do
      local thing = {}
      held[thing] = true
      timers:add(thing, i % 7)
    end
    while timers[1] do timers:remove(timers[1]) end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held))
  end)
end)

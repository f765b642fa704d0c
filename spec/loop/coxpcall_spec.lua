--- Protected calls across which a coroutine can be suspended, on every Lua.

local coxpcall = require "opensandbox.loop.coxpcall"

local NEEDS_COROUTINE = _VERSION == "Lua 5.1" and rawget(_G, "jit") == nil

local function pack(...) return { n = select("#", ...), ... } end

-- Runs a function in a coroutine; gives what it yielded, resumed each time with the number of the resume, and what it returned.
local function run(fn)
  local thread = coroutine.create(fn)
  local yielded = {}
  local got = pack(coroutine.resume(thread))
  while coroutine.status(thread) ~= "dead" do
    yielded[#yielded + 1] = got
    got = pack(coroutine.resume(thread, #yielded))
  end
  assert(got[1], got[2])
  return yielded, got
end

for _, name in ipairs { "pcall", "xpcall" } do
  local call = coxpcall[name]

  describe("coxpcall." .. name, function()
    it("passes on arguments and results, nils among them and at the end", function()
      local function echo(...) return select("#", ...), ... end
      local got = pack(call(echo, nil, 2, nil))
      assert.same({ n = 5, true, 3, nil, 2, nil }, got)
      got = select(2, run(function() return call(echo, nil, 2, nil) end))
      assert.same({ n = 6, true, true, 3, nil, 2, nil }, got)
      assert.equal(1, select("#", call(function() end)))
    end)

    it("gives errors as they are, whatever their type", function()
      for _, value in ipairs { "text", 5, {}, false, print } do
        local function fail() error(value, 0) end
        assert.same({ false, value }, { (call(fail)), (select(2, call(fail))) })
        local _, got = run(function() return call(fail) end)
        assert.is_false(got[2])
        assert.equal(value, got[3])
      end
      local got = pack(call(error))
      assert.is_false(got[1])
      assert.is_nil(got[2])
    end)

    it("can be suspended inside, and passes values both ways", function()
      local yielded, got = run(function()
        return call(function(first)
          local sum = 0
          for i = 1, 3 do sum = sum + coroutine.yield(first, i, nil) end
          return sum, nil
        end, "x")
      end)
      assert.equal(3, #yielded)
      assert.same({ n = 4, true, "x", 2, nil }, yielded[2])
      assert.same({ n = 4, true, true, 6, nil }, got)
    end)

    it("catches an error after a suspension", function()
      local value = {}
      local yielded, got = run(function()
        return call(function()
          coroutine.yield()
          error(value)
        end)
      end)
      assert.equal(1, #yielded)
      assert.is_false(got[2])
      assert.equal(value, got[3])
    end)

    it("can be nested, with suspensions at every depth", function()
      local function nest(depth)
        coroutine.yield(depth)
        if depth == 0 then error("at the bottom", 0) end
        local ok, problem = call(nest, depth - 1)
        coroutine.yield(depth)
        if depth == 5 then return ok, problem end
        error(problem, 0)
      end
      local yielded, got = run(function() return nest(5) end)
      assert.equal(11, #yielded)
      assert.same({ n = 3, true, false, "at the bottom" }, got)
    end)

    it("knows the coroutine that the code inside stands for", function()
      run(function()
        local outer = coxpcall.running()
        assert.equal(coroutine.running(), outer)
        call(function()
          assert.equal(outer, coxpcall.running())
          call(function() assert.equal(outer, coxpcall.running()) end)
          local own = coroutine.create(function() assert.not_equal(outer, coxpcall.running()) end)
          assert(coroutine.resume(own))
        end)
      end)
      assert.is_nil(coxpcall.running())
      call(function() assert.is_nil(coxpcall.running()) end)
    end)

    it("keeps nothing of a call alive that is over", function()
      local held = setmetatable({}, { __mode = "k" })
      run(function()
        for _ = 1, 10 do
          call(function()
            local thing = {}
            held[thing] = true
            coroutine.yield()
            error(thing)
          end)
        end
      end)
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(held))
    end)
  end)
end

describe("a coroutine that is left in a coxpcalled call", function()
  it("is collected", function()
    local held = setmetatable({}, { __mode = "k" })
    for _ = 1, 10 do
      local thread = coroutine.create(function() coxpcall.pcall(coxpcall.xpcall, coroutine.yield) end)
      held[thread] = true
      assert(coroutine.resume(thread))
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(held))
  end)

  it("goes on when others resumed the function inside to its end", function()
    local inner, log = nil, {}
    local thread = coroutine.create(function()
      log[1] = pack(coxpcall.pcall(function()
        return coxpcall.pcall(function()
          inner = coroutine.running()
          return coroutine.yield(), "end"
        end)
      end))
      coroutine.yield()
      log[2] = "after"
    end)
    assert(coroutine.resume(thread))
    assert(coroutine.resume(inner, "value"))
    assert.same({ n = 4, true, true, "value", "end" }, log[1])
    assert.is_nil(log[2])
    assert(coroutine.resume(thread))
    assert.equal("after", log[2])
    assert.equal("dead", coroutine.status(thread))
  end)
end)

describe("coxpcall.xpcall", function()
  local function culprit()
    local nothing = nil
    return nothing.field
  end

  it("gives the place of the error", function()
    local ok, _, trace = coxpcall.xpcall(culprit)
    assert.is_false(ok)
    assert.truthy(trace:find("coxpcall_spec", 1, true))
    assert.truthy(trace:find("culprit", 1, true) or trace:find("in function <", 1, true))
    local _, got = run(function()
      return coxpcall.xpcall(function()
        coroutine.yield()
        culprit()
      end)
    end)
    assert.is_false(got[2])
    assert.truthy(got[4]:find("coxpcall_spec", 1, true))
  end)

  it("gives it for an error that is a table too, and none after a success", function()
    assert.is_string((select(3, coxpcall.xpcall(error, {}))))
    assert.equal(2, select("#", coxpcall.xpcall(function() return 1 end)))
  end)
end)

describe("Lua's own pcall", function()
  it("can be suspended inside, but for Lua 5.1", function()
    local _, got = run(function()
      return pcall(function()
        coroutine.yield()
        return "back"
      end)
    end)
    if NEEDS_COROUTINE then
      assert.is_false(got[2])
      assert.truthy(got[3]:find("yield across", 1, true))
    else
      assert.same({ n = 3, true, true, "back" }, got)
    end
  end)
end)

--- Classes: calls with a dot, misspelt names, methods and fields from other files.

local class = require "opensandbox.base.class"
local lazy = require "opensandbox.base.lazy"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

local function message_of(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "nothing was raised")
  return message
end

describe("a class", function()
  local Thing, thing, loaded

  before_each(function()
    loaded = {}
    package.preload["spec.fake.methods"] = function()
      loaded[#loaded + 1] = "methods"
      return { lift = function(self, weight) return self.name .. " lifts " .. weight end, other = function() return "other" end }
    end
    Thing = { __name = "Thing" }
    function Thing:hello(...) return self.name, ... end
    function Thing:_internal() return "internal" end
    class.define(Thing, {
      name = "thing", methods = { ["spec.fake.methods"] = { "lift", renamed = "other" } },
      fields = { part = function(self)
        loaded[#loaded + 1] = "part"
        return { of = self }
      end },
    })
    thing = setmetatable({ name = "x" }, Thing)
  end)

  after_each(function()
    package.preload["spec.fake.methods"], package.loaded["spec.fake.methods"] = nil, nil
  end)

  it("passes arguments and results of its methods, nil included", function()
    assert.same({ "x", nil, 2, n = 3 }, { n = select("#", thing:hello(nil, 2)), thing:hello(nil, 2) })
  end)

  it("raises at the caller's line when a method is called with a dot, whatever the first argument is", function()
    for _, wrong in ipairs { "text", 5, true, {}, setmetatable({}, { __index = function() end }) } do
      local message = message_of(function() thing.hello(wrong) end)
      assert.truthy(message:find("class_spec.lua:%d+: thing%.hello: call it with a colon: thing:hello"), message)
    end
    assert.truthy(message_of(function() thing.hello() end):find("colon"))
    assert.truthy(message_of(function() thing.lift(5) end):find("colon"))
  end)

  it("takes a view of an object for the object", function()
    local view = setmetatable({ op = "y" }, { __index = thing })
    assert.equal("x", (view:hello()))
    assert.equal("x lifts 3", view:lift(3))
  end)

  it("loads a file when one of its methods is first used, once", function()
    assert.same({}, loaded)
    assert.equal("x lifts 3", thing:lift(3))
    assert.equal("other", thing:renamed())
    assert.equal("x lifts 4", setmetatable({ name = "x" }, Thing):lift(4))
    assert.same({ "methods" }, loaded)
  end)

  it("makes a field when it is first read, once for each object", function()
    assert.equal(thing, thing.part.of)
    assert.equal(thing.part, thing.part)
    assert.same({ "part" }, loaded)
    local another = setmetatable({ name = "y" }, Thing)
    assert.equal(another, another.part.of)
  end)

  it("raises at the caller's line for a name that is near to one of its own", function()
    for wrong, right in pairs { helo = "hello", lifts = "lift", parts = "part", renamd = "renamed" } do
      local message = message_of(function() return thing[wrong] end)
      local expected = ("class_spec.lua:%%d+: thing: there is no '%s' %%(did you mean '%s'%%?%%)"):format(wrong, right)
      assert.truthy(message:find(expected), message)
    end
    assert.same({}, loaded)
  end)

  it("has nil for every other name", function()
    for _, name in ipairs { "absent_altogether", "_helo", "op", "hel" } do
      assert.is_nil(thing[name])
      assert.is_nil(thing[name])
    end
    assert.is_nil(thing[1])
  end)
end)

describe("modules that are loaded when they are needed", function()
  it("are loaded once, when their field is read", function()
    local count = 0
    package.preload["spec.fake.module"] = function()
      count = count + 1
      return { value = count }
    end
    local parts = lazy.modules { thing = "spec.fake.module" }
    assert.equal(0, count)
    assert.equal(1, parts.thing.value)
    assert.equal(1, parts.thing.value)
    assert.equal(1, count)
    package.preload["spec.fake.module"], package.loaded["spec.fake.module"] = nil, nil
  end)

  it("report too many open files when that is why a file cannot be read, and are loaded later", function()
    local script = temporary.file [[
      local lazy = require "opensandbox.base.lazy"
      local parts = lazy.modules { routes = "opensandbox.egress.presets", absent = "spec.fake.absent" }
      local held, file = {}, nil
      repeat
        file = io.open("/dev/null")
        held[#held + 1] = file
      until not file
      print(select(2, pcall(function() return parts.routes end)))
      for _, one in ipairs(held) do one:close() end
      print(type(parts.routes))
      print((select(2, pcall(function() return parts.absent end)):match("[^\n]*")))
    ]]
    local child = process.start { argv = { "sh", "-c", 'ulimit -n 40; exec "$0" "$1"', process.lua(), script },
      env = process.module_paths() }
    local lines = { child:read_line(), child:read_line(), child:read_line() }
    child:stop()
    temporary.remove(script)
    assert.equal(3, #lines, child:stderr_text())
    assert.truthy(lines[1]:find("the module 'opensandbox.egress.presets' cannot be loaded: .*Too many open files"), lines[1])
    assert.equal("table", lines[2])
    assert.truthy(lines[3]:find("module 'spec.fake.absent' not found", 1, true), lines[3])
  end)

  it("give fields, among which those that do not exist are nil", function()
    local count = 0
    local target = lazy.fields({ given = 1 }, { made = function()
      count = count + 1
      return "made"
    end })
    assert.same({ 1, "made", "made", 1 }, { target.given, target.made, target.made, count })
    assert.is_nil(target.absent)
  end)
end)

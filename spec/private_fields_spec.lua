--- No module uses another module's private fields: names that begin with an underscore.
--
-- The rule is lexical. `x._name` and `x:_name()` are allowed if x is `self`, or if the same file sets a field of that name: as `x._name =`,
-- in a table, or as a function. Names with two underscores are Lua's own.

local sources = require "spec.support.sources"

-- The private fields that a file sets.
local function own_fields(code)
  local own = {}
  for name in code:gmatch("%.(_%l[%w_]*)%s*=[^=]") do own[name] = true end      -- x._name = value
  for name in code:gmatch("[{,]%s*(_%l[%w_]*)%s*=[^=]") do own[name] = true end -- { _name = value }
  for name in code:gmatch("function%s+[%w_]+[.:](_%l[%w_]*)") do own[name] = true end
  for targets in ("\n" .. code):gmatch("\n%s*([%w_.%[%], ]+)%s=[^=]") do        -- x._a, x._b = value, value
    for name in targets:gmatch("%.(_%l[%w_]*)") do own[name] = true end
  end
  return own
end

-- The uses of private fields that the rule forbids: a list of "line: receiver._name".
local function foreign_uses(code)
  local own, uses, line_number = own_fields(code), {}, 0
  for line in (code .. "\n"):gmatch("(.-)\n") do
    line_number = line_number + 1
    for receiver, name in line:gmatch("([%w_%)%]]+)[.:](_%l[%w_]*)") do
      if receiver ~= "self" and not own[name] then uses[#uses + 1] = ("%d: %s.%s"):format(line_number, receiver, name) end
    end
  end
  return uses
end

describe("private fields", function()
  it("are used by no other file", function()
    local found = {}
    for path, text in pairs(sources.read "lua") do
      for _, use in ipairs(foreign_uses(sources.code(text))) do found[#found + 1] = path .. ":" .. use end
    end
    table.sort(found)
    assert.equal("", table.concat(found, "\n"))
  end)

  it("are found where another file's object is read, written or called", function()
    for code, expected in pairs {
      ["return client._key"] = "1: client._key", ["local x\nx = a.b._c + 1"] = "2: b._c", ["sandbox:_drop()"] = "1: sandbox._drop",
      ["f(x)._y()"] = "1: x)._y", ["list[1]._z = list[1]._w"] = "1: 1]._w",
    } do
      assert.equal(expected, table.concat(foreign_uses(code), "\n"), code)
    end
  end)

  it("are a file's own where it sets them", function()
    for _, code in ipairs {
      "return self._key", "a._b = 1 return c._b", "local t = { _b = 1 } return c._b",
      "local t = {\n  x = 1,\n  _b = 2,\n}\nreturn c._b", "function A:_b() end return c:_b()",
      "a._b, a._c = 1, 2\nreturn d._b + d._c", "return x.__index", "print(_G, _VERSION)",
    } do
      assert.same({}, foreign_uses(code), code)
    end
  end)
end)

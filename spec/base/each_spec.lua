--- Loops over the keys of tables, which finalizers run, too: each.lua.

local process = require "spec.support.process"
local sources = require "spec.support.sources"

describe("a loop over the keys of a table", function()
  it("is one over 'each' everywhere in the library, because LuaJIT recognizes 'pairs' and 'next' by their names", function()
    local found = {}
    for path, text in pairs(sources.read "lua/opensandbox") do
      local code = sources.code(text)
      if code:find("%f[%w_]in%s+pairs%s*%(") or code:find("%f[%w_]in%s+next%s*,") then found[#found + 1] = path end
    end
    assert.same({}, found)
  end)

  it("ends in a finalizer, when tables of other kinds have compiled it before", function()
    local script = [[
      local each = require "opensandbox.base.each"
      local finalizer = require "opensandbox.base.finalizer"
      local function count(values)
        local total = 0
        for _, value in each(values) do total = total + #tostring(value) end
        return total
      end
      for _ = 1, 400 do count { a = "x", b = "y", c = "z" } end
      local value = finalizer(function()
        for _ = 1, 100 do
          count { 1, 2, 3, a = true, [1.5] = 2 }
          count {}
        end
        print "it has ended"
      end)
      value = nil
      collectgarbage()
      collectgarbage()
    ]]
    local child = process.start { argv = { process.lua(), "-e", script }, env = process.module_paths() }
    local code = child:wait(20)
    local output = child:output()
    child:stop()
    assert.same({ 0, "it has ended\n" }, { code, output })
  end)
end)

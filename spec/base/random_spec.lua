--- Identifiers from the system's random source.

local random = require "opensandbox.base.random"

describe("random digits", function()
  it("are two hexadecimal ones for each byte, and others each time", function()
    local seen = {}
    for _ = 1, 200 do
      local text = random.hex(16)
      assert.truthy(text:find("^[0-9a-f]+$"))
      assert.equal(32, #text)
      assert.is_nil(seen[text])
      seen[text] = true
    end
  end)
end)

describe("a UUID", function()
  it("is of version 4", function()
    for _ = 1, 200 do
      assert.truthy(random.uuid():find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"))
    end
  end)
end)

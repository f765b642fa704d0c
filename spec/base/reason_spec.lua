--- The reason of a failed program.

local core = require "opensandbox.core"
local reason = require "opensandbox.base.reason"

describe("the reason of a failed program", function()
  it("is its output without white space at the end", function()
    assert.equal("rm: cannot remove 'x'", reason "rm: cannot remove 'x'\r\n \n")
    assert.equal(" a\nb", reason " a\nb\n")
    assert.equal("", reason "")
    assert.equal("", reason " \n")
  end)

  it("is short, and takes no time for megabytes of white space", function()
    local before = core.now()
    assert.equal(500, #reason(("x"):rep(10000000)))
    assert.equal("", reason((" "):rep(10000000) .. "x"))
    assert.is_true(core.now() - before < 5)
  end)
end)

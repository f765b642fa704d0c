--- What print() shows of a result.

local with_text = require "opensandbox.execution.result"

describe("a result as text", function()
  it("says how it ended, and how its output begins", function()
    for expected, result in pairs {
      ['exit code 0, stdout "hello "'] = { exit_code = 0, stdout = "hello\n", stderr = "" },
      ['exit code 3, stdout "a b", stderr "c"'] = { exit_code = 3, stdout = "a\nb", stderr = "c" },
      ["exit code 0"] = { exit_code = 0, stdout = "", stderr = "" },
      ["signal killed"] = { exit_code = -1, signal = "killed", stdout = "" },
      ["timed out"] = { exit_code = -1, signal = "killed", timed_out = true, stdout = "" },
      ["error no name"] = { error = { value = "no name" }, stdout = "", stderr = "" },
    } do
      assert.equal("opensandbox.CommandResult: " .. expected, tostring(with_text(result)))
    end
  end)

  it("of code has the text of its value", function()
    assert.equal('opensandbox.CodeResult: text "2", stdout "x"', tostring(with_text { text = "2", results = {}, stdout = "x" }))
  end)

  it("is short, on one line and without control characters", function()
    local text = tostring(with_text { exit_code = 0, stdout = ("x\27[2J\n"):rep(10000), stderr = ("y"):rep(100000) })
    assert.is_true(#text < 600)
    assert.is_nil(text:find("%c"))
  end)
end)

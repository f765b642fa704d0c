--- Results print as one line.

local run_result = require "opensandbox.execution.run_result"

describe("a result", function()
  it("prints its exit code, its output and its duration, without control characters", function()
    local result = run_result { exit_code = 3, stdout = "a\n\27[1m\"", stderr = "", duration = 0.25 }
    assert.equal("opensandbox result: exit code 3, stdout \"a\\n\\027[1m\\034\", 0.25 s", tostring(result))
    result = run_result { exit_code = -1, signal = "killed", timed_out = true, stdout = "", stderr = ("x"):rep(1000), duration = 1 }
    assert.matches("^opensandbox result: exit code %-1, signal killed, timed out, stderr \"x+%.%.%.\", 1 s$", tostring(result))
    assert.is_true(#tostring(result) < 300)
  end)
end)

--- The commands that the library runs in a sandbox: their words, their failures, and what they can do without.

local deadline = require "opensandbox.loop.deadline"
local helper_commands = require "opensandbox.files.helper_commands"

-- A target whose commands have this outcome.
local function target_of(result, err)
  return { id = "s1", client = { http = { timeouts = { timeout = 7 } } }, run = function(op, script, opts)
    return result, err, { op, script, opts }
  end }
end

local function run(result, err, ignores_output, seconds)
  local job = { op = "files:x", deadline = deadline.new(seconds) }
  return helper_commands.run(target_of(result, err), job, "script", "x_failed", "it failed", { ignores_output = ignores_output })
end

describe("a helper command", function()
  it("that fails is an error with what the shell said, briefly", function()
    local result, err = run { exit_code = 3, stdout = "", stderr = "sh: no\n\n" }
    assert.is_nil(result)
    assert.same({ "state", "x_failed", "files:x", "s1", "it failed: sh: no" },
      { err.kind, err.code, err.op, err.sandbox_id, err.message })
    assert.equal(3, err.result.exit_code)
    assert.equal("it failed: exit code 4", select(2, run { exit_code = 4, stdout = "", stderr = " \n" }).message)
    assert.equal("it failed: killed", select(2, run { exit_code = -1, signal = "killed", stdout = "", stderr = "" }).message)
    assert.is_true(#select(2, run { exit_code = 1, stdout = "", stderr = ("x"):rep(100000) }).message < 600)
  end)

  it("whose time is over is that error", function()
    local result, err = run({ exit_code = -1, signal = "killed", timed_out = true, stdout = "", stderr = "" }, nil, nil, 7)
    assert.is_nil(result)
    assert.same({ "timeout", "timeout", "files:x" }, { err.kind, err.timeout_option, err.op })
  end)

  it("that succeeded, but whose output is lost, is a failure only where the output is needed", function()
    local function lost(code)
      return { kind = "stream", code = "output_lost", result = { exit_code = code, stdout = "", stderr = "" } }
    end
    assert.equal(0, run(nil, lost(0), true).exit_code)
    local result, err = run(nil, lost(0), false)
    assert.is_nil(result)
    assert.equal("output_lost", err.code)
    result, err = run(nil, lost(2), true)
    assert.is_nil(result)
    assert.same({ "x_failed", "it failed: exit code 2" }, { err.code, err.message })
  end)

  it("names a path by a word that the shell takes as it is", function()
    for _, path in ipairs {
      "/a", "//a b", "/-rf", "/it's", "/$HOME", "/a\nb\n", "/caf\233", "/\255\n\n", "/%s\\n\255", "/\1\127\255",
    } do
      local pipe = assert(io.popen(("printf '%%s.' %s"):format(helper_commands.quoted_path(path)), "r"))
      local said = pipe:read("*a")
      pipe:close()
      assert.equal("./" .. path:gsub("^/+", "") .. ".", said, ("%q"):format(path))
    end
  end)
end)

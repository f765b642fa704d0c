--- Checks of options: the values to use, durations, numbers for strings, and the entry that is wrong.

local opensandbox = require "opensandbox"
local options = require "opensandbox.base.options"

local function raises(expected, kind, value)
  local ok, message = pcall(options.argument, "op", "the thing", value, kind)
  assert.is_false(ok, "nothing was raised")
  assert.truthy(message:find(expected, 1, true), message)
end

describe("a time", function()
  it("is a number of seconds, or a duration with units", function()
    for given, seconds in pairs {
      ["90s"] = 90, ["10m"] = 600, ["2h"] = 7200, ["1.5h"] = 5400, ["500ms"] = 0.5, ["1d"] = 86400, ["0.25s"] = 0.25,
      ["1h30m"] = 5400, ["1m0.5s"] = 60.5,
      [5] = 5, [0.5] = 0.5,
    } do
      for _, kind in ipairs { "seconds", "seconds or 0", "seconds or false" } do
        local value = options.argument("op", "x", given, kind)
        assert.equal("number", type(value))
        assert.is_true(math.abs(value - seconds) < 1e-9, tostring(given))
      end
    end
    assert.equal(0, options.argument("op", "x", "0s", "seconds or 0"))
    assert.equal(0, options.argument("op", "x", 0, "seconds or 0"))
    assert.is_false(options.argument("op", "x", false, "seconds or false"))
  end)

  it("is nothing else", function()
    for _, wrong in ipairs {
      "10", "10 m", "m", "10M", "ten", "-5s", "0s", "1h30", "1h 30m", "1h-30m", "1..5s", "", 0, -1, 0 / 0, 1 / 0, 1e9, true, {},
    } do
      raises('must be a number of seconds greater than 0, or a duration like "90s", "10m" or "2h", not ', "seconds", wrong)
    end
    raises("or false for no limit, not true", "seconds or false", true)
    raises("not false", "seconds", false)
  end)
end)

describe("a text", function()
  it("with a NUL byte is not said to be empty", function()
    raises('the thing must be a string without NUL bytes, not "a\\000"', "nonempty string", "a\0")
    raises('the thing must be a string without NUL bytes, not "echo \\000"', "command line", "echo \0")
    raises('the thing must be a string that is not empty, not ""', "nonempty string", "")
  end)
end)

describe("strings in a table", function()
  it("may be numbers, which become strings; what was given does not change", function()
    local given = { PORT = 8080, RATIO = 0.5, BIG = 2 ^ 40, NAME = "x" }
    for _, kind in ipairs { "string map", "environment" } do
      assert.same({ PORT = "8080", RATIO = "0.5", BIG = "1099511627776", NAME = "x" }, options.argument("op", "x", given, kind))
    end
    assert.equal(8080, given.PORT)
    local argv = { "sleep", 0, -1.25 }
    assert.same({ "sleep", "0", "-1.25" }, options.argument("op", "x", argv, "string list"))
    assert.equal(0, argv[2])
    local unchanged = { "a", "b" }
    assert.equal(unchanged, options.argument("op", "x", unchanged, "string list"))
  end)

  it("are named when one of them is wrong, with what it is", function()
    raises('the thing: entry "PORT" must be a string, not a table', "string map", { NAME = "x", PORT = {} })
    raises('the thing: entry "A" must be a string, not true', "environment", { A = true })
    raises("the thing: item 2 must be a string, not a function", "string list", { "a", print })
    raises("the thing: item 2 must be a string, not nil", "string list", { "a", nil, "c" })
    raises('the thing must be a list of strings, not one with the key "x"', "string list", { "a", x = "b" })
    raises("the thing must be a table of strings, by name, not one with the key 1", "string map", { "a" })
    raises("not one with the key 0.5", "string list", { [0.5] = "a" })
    raises("the thing must be a list of strings, not nil", "string list", nil)
    raises('not one with the variable "A=B"', "environment", { ["A=B"] = "c" })
    raises('not one with the variable ""', "environment", { [""] = "c" })
  end)

  it("are shown short and without control characters", function()
    raises('"\\027[2Jx"', "environment", { ["\27[2Jx"] = "a\0" })
    raises(('"%s..."'):format(("k"):rep(40)), "string map", { [("k"):rep(500)] = {} })
  end)
end)

describe("an option table", function()
  local known = { timeout = "seconds", env = "string map", name = "nonempty string" }

  it("is returned with the values to use, and the given one does not change", function()
    local given = { timeout = "2m", env = { A = 1 }, name = "x" }
    assert.same({ timeout = 120, env = { A = "1" }, name = "x" }, options.check("op", given, known))
    assert.same({ timeout = "2m", env = { A = 1 }, name = "x" }, given)
    local defaults = setmetatable({ timeout = "1m" }, { __index = { name = "inherited" } })
    assert.same({ 60, "inherited" }, { options.check("op", defaults, known).timeout, options.check("op", defaults, known).name })
    assert.same({}, options.check("op", nil, known))
    local plain = { timeout = 5 }
    assert.equal(plain, options.check("op", plain, known))
  end)

  it("suggests the known name for one with a character too many, too few or wrong, or two in the wrong order", function()
    local names = { image = "string", timeout = "seconds", env = "table", name = "string" }
    for wrong, right in pairs {
      imagee = "image", imge = "image", imabe = "image", imgae = "image", timeuot = "timeout", tiemotu = "timeout",
      evn = "env", anme = "name",
    } do
      local ok, message = pcall(options.check, "op", { [wrong] = 1 }, names)
      assert.is_false(ok)
      assert.truthy(message:find(("unknown option '%s' (did you mean '%s'?)"):format(wrong, right), 1, true), message)
    end
    for _, far in ipairs { "gamie", "eman", "vne", "url" } do
      local ok, message = pcall(options.check, "op", { [far] = 1 }, names)
      assert.is_false(ok)
      assert.truthy(message:find("known are env, image, name, timeout", 1, true), message)
    end
  end)

  it("names the entry of an option that is wrong", function()
    local ok, message = pcall(options.check, "op", { env = { A = {} } }, known)
    assert.is_false(ok)
    assert.truthy(message:find("op: option 'env': entry \"A\" must be a string, not a table", 1, true), message)
  end)
end)

describe("the position of an error about an argument", function()
  local client = opensandbox.new("http://127.0.0.1:9", "k")
  local sandbox = assert(client:connect({ id = "s", url = client.url,
    endpoints = { ["44772"] = { url = "http://127.0.0.1:9", headers = {} } } }, { wait = false }))
  teardown(function() client:close() end)

  local MISTAKES = {
    function() return sandbox:run(42) end,
    function() return sandbox:start("x", { no_such = true }) end,
    function() return sandbox:terminal { cols = 0 } end,
    function() return sandbox.files:read(42) end,
    function() return client:create(42) end,
    function() return opensandbox.new(42) end,
    function() return opensandbox.sleep("x") end,
  }
  local HERE = "options_spec%.lua:%d+: [%w:]+: "

  it("is the caller's line, or after a tail call the line that called the caller", function()
    for _, mistake in ipairs(MISTAKES) do
      local function caller()
        local result = mistake()
        return result
      end
      assert.matches(HERE, select(2, pcall(caller)))
    end
  end)

  it("is none in a task or a coroutine of which a tail call has left no line", function()
    for _, mistake in ipairs(MISTAKES) do
      local task = opensandbox.spawn(mistake)
      assert.matches("^[%w:]+: [^%d]", select(2, pcall(task.wait, task)))
      assert.matches("^[%w:]+: [^%d]", select(2, coroutine.resume(coroutine.create(mistake))))
    end
  end)

  it("is the caller's line in a task", function()
    local task = opensandbox.spawn(function()
      local result = sandbox:run(42)
      return result
    end)
    assert.matches(HERE, select(2, pcall(task.wait, task)))
  end)
end)

--- Commands that the system refuses: the error says what is too long, and what to do.

local fixtures = require "spec.support.fixture"

local fixture, sandbox

setup(function()
  fixture = fixtures.new()
  sandbox = fixture.sandbox
end)
teardown(function() fixture:close() end)

describe("a command whose text is too long for the system", function()
  local long = ("# a comment that is long\n"):rep(6000) .. "print(42)"

  it("is an error with a remedy: as an argument, as a script, as a variable, and in the background", function()
    for name, try in pairs {
      argument = function() return sandbox:run { "python3", "-c", long } end,
      script = function() return sandbox:run(long) end,
      variable = function() return sandbox:run("true", { env = { LONG = long } }) end,
      background = function() return sandbox:start(long) end,
      durable = function() return sandbox:run(long, { durable = true }) end,
      exact = function() return sandbox:run(long, { capture = "exact" }) end,
    } do
      local result, err = try()
      assert.is_nil(result, name)
      assert.equal("state", err.kind, name .. ": " .. tostring(err))
      assert.truthy(err.message:find("argument list too long", 1, true), tostring(err))
      assert.truthy(err.hint:find("files:write", 1, true), name)
    end
  end)

  it("runs in a session, which takes it as a file", function()
    local session = assert(sandbox:session())
    local result = assert(session:run((long:gsub("print%(42%)", "echo 42"))))
    assert.same({ 0, "42\n" }, { result.exit_code, result.stdout })
    session:close()
  end)
end)

--- README's first script and first command do what README says, with a development server as README starts it, also where bubblewrap does not work.

local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"

for _, isolation in ipairs { "auto", "none" } do
  describe("in README, with isolation " .. isolation .. ",", function()
    local server, readme

    setup(function()
      server = process.devserver { grace = 0.05, isolation = isolation }
      readme = assert(read_file("README.md"))
    end)
    teardown(function() server:stop() end)

    -- Runs a program with the two exports of the development server. Returns its exit code, output and errors.
    local function run(argv)
      local env = process.module_paths()
      env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
      return process.run({ argv = argv, env = env }, 30)
    end

    it("the first script prints what its comments say", function()
      local script = readme:match("```lua\n(%-%- first%.lua\n.-)```\n")
      assert.truthy(script, "README has no first.lua")
      local path = temporary.file(script)
      local code, out, err = run { process.lua(), path }
      os.remove(path)
      assert.equal(0, code, err)
      local printed = out:gsub("%s+", " ")
      local position, count = 1, 0
      for text in script:gmatch("%-%->%s*([^\n]+)") do
        local _, last = printed:find(text:gsub("%s+", " "), position, true)
        assert.truthy(last, ("%q is not printed: %s"):format(text, out))
        position, count = last + 1, count + 1
      end
      assert.is_true(count >= 2)
    end)

    it("the first command prints its output and exits with its code", function()
      local line = readme:match("`lua5%.4 (bin/opensandbox run [^`]+)`")
      assert.truthy(line, "README has no `opensandbox run`")
      local code, out, err = run { "sh", "-c", process.lua() .. " " .. line }
      assert.same({ 3, "hello\n", "" }, { code, out, err })
    end)
  end)
end

--- What the program prints at a terminal: colors, and what fits into its width; and how soon it starts.

local process = require "spec.support.process"
local program = require "spec.support.program"

local HELP_LIMIT, LIST_LIMIT = 0.03, 0.06 -- seconds
local TRIES = 5
local SANITIZED = os.getenv("OPENSANDBOX_TEST_PRELOAD") ~= nil

local function shown(server, arguments, options)
  local terminal = program.terminal(server, arguments, options)
  local code, _, text = terminal:wait()
  terminal:close()
  assert.equal(0, code, text)
  return (text:gsub("\r\n", "\n"))
end

local function longest_line(text)
  local longest = 0
  for line in text:gmatch("[^\n]+") do longest = math.max(longest, #line:gsub("\27%[[%d;]*m", "")) end
  return longest
end

describe("the output of opensandbox", function()
  local server, id

  setup(function()
    server = process.devserver { grace = 0.1 }
    local arguments = { "create", "registry.example/a-long-name/python:3.12", "-m", "project=demonstration" }
    id = program.check(server, arguments):gsub("\n", "")
  end)
  teardown(function() server:stop() end)

  it("has colors at a terminal, but not with NO_COLOR, TERM=dumb or in a pipe", function()
    local colored = shown(server, { "info", id })
    assert.truthy(colored:find("state: +\27%[32mRunning\27%[0m"), colored)
    for _, env in ipairs { { NO_COLOR = "1" }, { TERM = "dumb" }, { TERM = false } } do
      local plain = shown(server, { "info", id }, { env = env })
      assert.is_nil(plain:find("\27", 1, true))
    end
    assert.is_nil(program.check(server, { "ls" }):find("\27", 1, true))
  end)

  it("is cut to the width of the terminal, and never the id", function()
    local text = shown(server, { "ls" }, { columns = 90 })
    assert.is_true(longest_line(text) <= 90, text)
    assert.truthy(text:find(id, 1, true) and text:find("..", 1, true), text)
  end)

  it("becomes paragraphs at a terminal that is 40 columns wide", function()
    local text = shown(server, { "ls" }, { columns = 40, env = { NO_COLOR = "1" } })
    assert.truthy(text:find("ID:       " .. id .. "\nSTATE:    Running\n", 1, true), text)
    assert.truthy(text:find("METADATA: project=demonstration\n", 1, true), text)
    local help = shown(server, { "--help" }, { columns = 40 })
    assert.is_true(longest_line(help) <= 40, help)
    for name in help:gmatch("\n   ([a-z]+) +[a-z]") do
      if name ~= "dev" then -- the help of the server
        text = shown(nil, { name, "--help" }, { columns = 40 })
        assert.is_true(longest_line(text) <= 40, text)
      end
    end
  end)

  it("is whole in a pipe", function()
    local text = program.check(server, { "ls" })
    assert.truthy(text:find("registry.example/a-long-name/python:3.12", 1, true), text)
    assert.truthy(text:find("project=demonstration\n", 1, true), text)
  end)

  -- The least processor time of some runs, from the start of the process: other work of the machine does not count.
  local function quickest(argument)
    local env, best = process.module_paths(), math.huge
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
    local script = ('assert(require "opensandbox.cli".main { %q } == 0) io.stderr:write(os.clock())'):format(argument)
    for _ = 1, TRIES do
      local child = process.start { argv = { process.lua(), "-e", script }, env = env }
      assert.equal(0, child:wait(20))
      local seconds = tonumber(child:stderr_text())
      best = math.min(best, seconds)
      child:stop()
    end
    return best
  end

  it("comes soon #alone", function()
    if SANITIZED then return end
    local help, list = quickest "--help", quickest "ls"
    assert.is_true(help <= HELP_LIMIT, ("--help takes %.3f s"):format(help))
    assert.is_true(list <= LIST_LIMIT, ("ls takes %.3f s"):format(list))
  end)
end)

describe("opensandbox", function()
  it("prints its help and its version without a server", function()
    local help = program.check(nil, {})
    assert.equal(help, program.check(nil, { "--help" }))
    local count = 0
    for name in help:gmatch("\n   ([a-z]+) +[a-z]") do
      count = count + 1
      local text = program.check(nil, { name, "--help" })
      if name ~= "dev" then assert.truthy(text:find("\nExample:\n  [^\n]*opensandbox " .. name), text) end
    end
    assert.is_true(count >= 25, help)
    assert.equal("opensandbox " .. require "opensandbox.version" .. "\n", program.check(nil, { "--version" }))
  end)

  it("names the package if argparse is missing", function()
    local paths = {}
    for template in package.path:gmatch("[^;]+") do
      if template:find("lua/?", 1, true) and not template:find("^/usr") then paths[#paths + 1] = template end
    end
    local result = program.run(nil, { "ls" }, { env = { LUA_PATH = table.concat(paths, ";") } })
    assert.equal(1, result.code)
    assert.truthy(result.err:find("apt-get install lua-argparse", 1, true), result.err)
    local remedy = ("luarocks --lua-version %s install argparse"):format(_VERSION:match "%d%.%d")
    assert.truthy(result.err:find(remedy, 1, true), result.err)
  end)
end)

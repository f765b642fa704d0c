--- A forked child ends nothing of its parent's, however it ends.

local Fixture = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

-- Only LuaJIT can fork without another module.
if not rawget(_G, "jit") then return end

local PARENT = [[
  local ffi = require "ffi"
  ffi.cdef "int fork(void); int waitpid(int, int *, int);"
  local opensandbox = require "opensandbox"
  local client = opensandbox.new(os.getenv "URL", os.getenv "KEY")
  local sandbox = assert(client:create { image = "any" })
  local session = assert(sandbox:session())
  local pool = client:pool { image = "any", min_idle = 1 }
  assert(pool:fill())
  local idle = assert(pool:acquire())
  assert(pool:fill())
  local child = ffi.C.fork()
  if child == 0 then
    CHILD
    os.exit(0, true) -- closes the Lua state, as the end of a script does
  end
  local status = ffi.new "int[1]"
  ffi.C.waitpid(child, status, 0)
  assert(status[0] == 0, "the child failed")
  assert(assert(sandbox:run "echo alive").stdout == "alive\n")
  assert(assert(session:run "echo alive").stdout == "alive\n")
  assert(assert(idle:run "echo alive").stdout == "alive\n")
  assert(pool:stats().busy == 1)
  print(#assert(client:list_sandboxes()))
  client:close()
  print(#assert(opensandbox.new(os.getenv "URL", os.getenv "KEY"):list_sandboxes()))
]]

local CHILDREN = {
  ["does nothing"] = "",
  ["closes the objects"] = "session:close() sandbox:close() pool:close()",
  ["closes the client"] = "client:close()",
  ["collects the objects"] = "sandbox, session, idle, pool = nil collectgarbage() collectgarbage()",
  ["creates and closes a sandbox of its own"] = [[
    local own = assert(client:create { image = "any" })
    assert(assert(own:run "echo own").stdout == "own\n")
    assert(own:close())
  ]],
  ["closes the client with a sandbox of its own"] = [[
    assert(client:create { image = "any" })
    client:close()
  ]],
}

describe("a forked child ends nothing of its parent's when it", function()
  local fixture

  setup(function() fixture = Fixture.new() end)
  teardown(function() fixture:close() end)

  for what, script in pairs(CHILDREN) do
    it(what, function()
      local before = #assert(fixture.client:list_sandboxes())
      local env = process.module_paths()
      env.URL, env.KEY = fixture.server.url, fixture.server.key
      local program = PARENT:gsub("CHILD", function() return script end)
      local parent = process.start { argv = { process.lua(), "-e", program }, env = env }
      local during, after = parent:read_line(20), parent:read_line(20)
      assert.equal(0, parent:wait(20), parent:stderr_text())
      parent:stop()
      assert.equal(before + 3, tonumber(during)) -- the sandbox, one in use, and the pool's next one
      assert.equal(before, tonumber(after))
      assert.is_string(opensandbox._VERSION)
    end)
  end
end)

--- Forked children: they neither use nor disturb what belongs to their parent.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local driving = require "spec.support.transfers"

local finish, get, drain = driving.finish, driving.get, driving.drain

describe("a fork", function()
  local ffi = rawget(_G, "jit") and require "ffi"
  if not ffi then return end -- only LuaJIT can fork without another module
  ffi.cdef "int fork(void); int waitpid(int, int *, int); void _exit(int);"

  it("leaves the parent's requests to the parent, and the child starts anew", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:after(200, function() connection:respond(200, {}, request.path) end)
      end
    ]]
    local multi = core.multi()
    finish(multi, get(multi, server.url .. "/warm")) -- a connection to be inherited
    local transfer = get(multi, server.url .. "/parent")
    multi:step(0.05)
    local pid = ffi.C.fork()
    if pid == 0 then
      local ok = pcall(function()
        multi:step(0)
        assert(transfer:outcome() == "forked")
        local own = get(multi, server.url .. "/child")
        local deadline = core.now() + 5
        while not own:outcome() and core.now() < deadline do multi:step(0.5) end
        assert(own:outcome() == "complete" and own:read() == "/child")
        multi:close()
      end)
      ffi.C._exit(ok and 0 or 1)
    end
    assert.equal("complete", (finish(multi, transfer)))
    assert.equal("/parent", drain(transfer))
    local status = ffi.new("int[1]")
    ffi.C.waitpid(pid, status, 0)
    assert.equal(0, status[0])
    finish(multi, get(multi, server.url .. "/after"))
    multi:close()
    server:stop()
  end)

  -- Runs a function in a child, which then exits without closing its Lua state; returns true when the function did not fail.
  local function in_child(fn)
    local pid = ffi.C.fork()
    if pid == 0 then ffi.C._exit(pcall(fn) and 0 or 1) end
    local status = ffi.new("int[1]")
    ffi.C.waitpid(pid, status, 0)
    return status[0] == 0
  end

  it("leaves the parent's requests alone when it closes or collects what it inherited", function()
    local server = fault_server.start [[
      return function(request, connection)
        connection:after(200, function() connection:respond(200, {}, request.path) end)
      end
    ]]
    local ways = {
      function(multi, transfers) for i = 1, 3 do transfers[i]:close() end multi:close() end,
      function(multi) multi:close() end,
      function(_, transfers) transfers[1]:detach(5, true) transfers[2]:detach(5) end,
      function(multi, transfers)
        multi:step(0.01)
        for i = 1, 3 do assert(transfers[i]:outcome() == "forked") end
        assert(multi:inflight() == 0)
      end,
    }
    for _, way in ipairs(ways) do
      local multi, transfers = core.multi(), {}
      for i = 1, 3 do transfers[i] = get(multi, server.url .. "/" .. i) end
      for _ = 1, 5 do multi:step(0.01) end
      assert.is_true(in_child(function()
        way(multi, transfers)
        multi, transfers = nil, nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
      end))
      for i = 1, 3 do
        assert.equal("complete", (finish(multi, transfers[i])))
        assert.equal("/" .. i, drain(transfers[i]))
      end
      multi:close()
    end
    server:stop()
  end)

  it("cannot change a poller or a notifier of its parent", function()
    local multi, poller, notifier = core.multi(), core.poller(), core.notifier()
    local fd = multi:pollfd()
    if not fd or not notifier then return pending("neither is shared here") end
    assert.is_true(in_child(function()
      assert(poller:inherited())
      assert(not pcall(poller.watch, poller, fd))
      assert(not poller:alarm(0))
      assert(not notifier:accept())
      assert(not notifier:arm(fd))
      poller:close()
      notifier:close()
    end))
    assert.is_false(poller:inherited())
    poller:watch(fd)
    assert.is_true(poller:alarm(0.01))
    assert.is_true(#notifier:path() > 0)
    assert.truthy((core.stat(notifier:path()))) -- its socket has stayed
    for _, one in ipairs { multi, poller, notifier } do one:close() end
  end)
end)

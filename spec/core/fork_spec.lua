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
end)

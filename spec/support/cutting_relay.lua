--- A relay before a server, which cuts WebSockets, or all connections, at random moments.

local json = require "opensandbox.base.json"
local process = require "spec.support.process"

local cutting_relay = {}

--- Starts a relay.
-- @param options `port` (of the server), `seed`, `cuts` (number of WebSockets to cut; later ones stay), `bytes` and `ms` (a connection is cut
-- after a random number of bytes, and of milliseconds, of at most these), `all` (cut connections of every kind)
-- @return `port`, and the methods `cuts` (their number so far) and `stop`
function cutting_relay.start(options)
  local child = process.start { argv = { process.lua(), "spec/support/cutting_relay_main.lua" }, env = process.module_paths() }
  assert(child:write(assert(json.encode(options)) .. "\n"))
  local port = assert(tonumber((child:read_line(10))), child:stderr_text())
  return {
    port = port,
    cuts = function()
      assert(child:write "\n")
      return tonumber((child:read_line(10)))
    end,
    stop = function() return child:stop() end,
  }
end

return cutting_relay

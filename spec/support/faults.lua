--- Servers that misbehave on purpose.
--
--     local server = faults.start [[
--       return function(request, connection)
--         connection:start(200, { ["Content-Type"] = "text/event-stream" })
--         connection:event { type = "init", text = "c1" }
--         connection:after(50, connection.reset)
--       end
--     ]]
--
-- The text is a chunk of Lua that runs in the server's process. It returns a function, called for each complete
-- request, or a table with any of `on_request(request, connection)`, `on_headers(request, connection)` (before the
-- body is read; `on_request` is not called when it has answered), `on_connect(connection)` and
-- `on_close(connection, who)`. The methods of `connection` are in connection.lua. The chunk sees `json`, `uv`, `state`
-- (a table for the life of the server, read by the test with `server:state()`) and `recording(name)`.

local remote = require "spec.support.remote"

local faults = {}

--- Starts a server; raises when the chunk does not compile.
-- @return `url`, `port`, and the methods of remote.lua: `requests`, `connections`, `state`, `stop`
function faults.start(source)
  return remote.start(remote.path("faultserver.lua"), { source = source })
end

return faults

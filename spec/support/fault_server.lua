--- Servers that misbehave on purpose.
--
--     local server = fault_server.start [[
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
-- (a table for the life of the server, read by the test with `server:state()`), `recording(name)`, and `websocket`
-- (websocket_peer.lua).

local server_process = require "spec.support.server_process"

local fault_server = {}

--- Starts a server; raises when the chunk does not compile.
-- @return `url`, `port`, and the methods of server_process.lua: `requests`, `connections`, `state`, `stop`
function fault_server.start(source)
  return server_process.start(server_process.path("fault_server_main.lua"), { source = source })
end

return fault_server

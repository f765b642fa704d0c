--- The main program of a test server: configuration, announcement, control port, end.
--
-- The configuration is one line of JSON on standard input; the answer is one line on standard output: `PORT
-- CONTROLPORT`, or `error: ...`. The server ends when its standard input does. What it has seen is read through the
-- control port, so that questions about the server are not mixed with the connections it counts.

local uv = require "luv"
local json = require "opensandbox.base.json"
local uv_loop = require "spec.support.uv_loop"
local http_server = require "spec.support.http_server"

local server_main = {}

local function say(line)
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

-- Answers `GET /__log` (everything seen), `GET /__connections` (counts only) and `GET /__state` (the handler's table).
local function control(server, state)
  local routes = {}
  function routes.log()
    return { requests = server:requests(), connections = server.log.connections, errors = server.log.errors }
  end
  function routes.connections()
    return {
      accepted = server.log.accepted, open = server.log.open, list = server.log.connections, errors = server.log.errors,
    }
  end
  function routes.state()
    return state
  end
  return http_server.listen {
    on_request = function(request, connection)
      local route = routes[request.path:match("^/__(%l+)$") or ""]
      if not route then return connection:respond(404, {}, "no such route") end
      connection:respond(200, { ["Content-Type"] = "application/json" }, assert(json.encode(route())))
    end,
  }
end

local function start(line, build)
  local config = assert(json.decode(line))
  local state = {}
  local server = http_server.listen(build(config, state))
  say(("%d %d"):format(server.port, control(server, state).port))
end

--- Runs a server until its standard input ends.
-- @param build called with the configuration and the state table; returns the handler, raises when it cannot
function server_main.run(build)
  -- A client that went away is an error of that write, not the end of the server.
  uv_loop.catch_sigpipe()
  local input = uv.guess_handle(0) == "tty" and uv.new_tty(0, true) or uv.new_pipe(false)
  if input.open then input:open(0) end
  local buffer, started = "", false
  input:read_start(function(_, data)
    if not data then os.exit(0) end
    if started then return end
    buffer = buffer .. data
    local line = buffer:match("^([^\n]*)\n")
    if not line then return end
    started = true
    local ok, problem = pcall(start, line, build)
    if not ok then
      say("error: " .. tostring(problem):gsub("\n", " | "))
      os.exit(1)
    end
  end)
  uv.run()
end

return server_main

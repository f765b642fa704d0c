--- The test's side of a test server that runs in a process of its own.

local process = require "spec.support.process"
local http_client = require "spec.support.http_client"
local json = require "opensandbox.base.json"

local server_process = {}

local Server = {}
Server.__index = Server

-- Asks the server's control port.
local function ask(server, route)
  local response, problem = http_client.request { url = ("http://127.0.0.1:%d/__%s"):format(server.control, route) }
  if not response then
    error(("the test server does not answer: %s\n%s"):format(problem, server.child:stderr_text()), 3)
  end
  local answer = assert(json.decode(response.body))
  -- A handler that failed makes every later observation worthless.
  if answer.errors and #answer.errors > 0 then error("the handler failed: " .. table.concat(answer.errors, "\n"), 3) end
  return answer
end

--- The requests received so far: array of `method`, `path`, `headers` (lower-case names), `raw_headers` (pairs),
-- `body`, `body_bytes`, `body_complete`, `connection` (number), `time` (seconds of a monotonic clock). Raises when the
-- handler of the server has failed.
function Server:requests()
  return ask(self, "log").requests
end

--- The connections so far: `accepted`, `open`, and `list` with `open`, `requests` and `closed_by` of each.
function Server:connections()
  return ask(self, "connections")
end

--- The table that the handler knows as `state`, as far as JSON can carry it.
function Server:state()
  return ask(self, "state")
end

--- Ends the server; returns its exit code and signal.
function Server:stop()
  return self.child:stop()
end

--- Starts a server program with its configuration.
function server_process.start(program, config)
  local argv = { process.lua(), program }
  local child = process.start { argv = argv, env = process.module_paths() }
  local written, problem = child:write(assert(json.encode(config)) .. "\n")
  local line
  if written then line, problem = child:read_line(10) end
  local port, control = (line or ""):match("^(%d+) (%d+)$")
  if not port then
    child:stop()
    error(("the test server did not start: %s\n%s"):format(line or problem, child:stderr_text()), 3)
  end
  return setmetatable({
    child = child, pid = child.pid, url = "http://127.0.0.1:" .. port, port = tonumber(port),
    control = tonumber(control),
  }, Server)
end

--- The path of a file beside this one.
function server_process.path(name)
  return (debug.getinfo(1, "S").source:gsub("^@", ""):gsub("[^/]*$", "")) .. name
end

return server_process

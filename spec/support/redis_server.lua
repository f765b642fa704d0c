--- A Redis server for tests, on a free port of loopback, without persistence. It ends with the test process.

local find_program = require "spec.support.find_program"
local free_port = require "spec.support.free_port"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local redis_server = { PACKAGES = "redis-tools, or redis-server (Debian's names), and lua-socket" }

-- One program is all of Redis's programs, by the name under which it is called. Debian has it in redis-tools, which starts no service.
local function program() return find_program("redis-server", "valkey-server", "redis-check-rdb") end

--- Returns whether there is a Redis, and the modules that a client needs.
---@return boolean
function redis_server.installed()
  return program() ~= nil and (pcall(require, "socket"))
end

-- Stops the server when standard input ends.
local GUARD = [[
"$@" & pid=$!
trap 'kill -TERM $pid' TERM
echo $pid
cat >/dev/null
kill -CONT $pid 2>/dev/null
kill -TERM $pid 2>/dev/null
wait $pid
]]

local Server = {}
Server.__index = Server

--- Sends a signal to the server: "sigstop", "sigcont", "sigkill".
function Server:kill(signal)
  uv.kill(self.server_pid, signal)
end

--- Stops the server.
function Server:stop()
  self.child:stop()
  temporary.remove(self.directory)
end

--- Starts a server. Raises when it does not start.
---@param port? integer default: a free one
---@return table server its `port`, `pid` and methods
function redis_server.start(port)
  port = port or free_port()
  local directory = temporary.directory()
  local path = directory .. "/redis-server"
  assert(uv.fs_symlink(assert(program()), path))
  local child = process.start { argv = {
    "sh", "-c", GUARD, "sh", path, "--port", tostring(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
    "--dir", directory,
  } }
  local pid = tonumber(child:read_line() or "")
  local line
  repeat line = child:read_line(10) until not line or line:find("eady to accept connections", 1, true)
  if not line then
    child:stop()
    temporary.remove(directory)
    error("Redis did not start: " .. child:stderr_text())
  end
  return setmetatable({ child = child, server_pid = pid, port = port, directory = directory }, Server)
end

return redis_server

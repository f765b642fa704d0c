--- The real lifecycle server of build/contract, which `make contract` installs, over a stand-in for its container engine.

local uv = require "luv"
local fault_server = require "spec.support.fault_server"
local free_port = require "spec.support.free_port"
local process = require "spec.support.process"
local random = require "opensandbox.base.random"
local temporary = require "spec.support.temporary"
local uv_loop = require "spec.support.uv_loop"
local http_client = require "spec.support.http_client"

local PROGRAM = "build/contract/bin/opensandbox-server"
-- Stops the server when the standard input ends, so that it never outlives this process.
local SUPERVISOR = [[exec 3<&0; "$@" 3<&- & server=$!; (cat <&3; kill "$server") >/dev/null 2>&1 & wait "$server"]]

local START_TIME = 120 -- seconds: Python compiles what it loads first

local CONFIG = [[
[server]
host = "127.0.0.1"
port = %d
api_key = "%s"
max_sandbox_timeout_seconds = 86400
[log]
level = "ERROR"
[runtime]
type = "docker"
execd_image = "opensandbox/execd:v1.1.0"
[storage]
allowed_host_paths = ["%s"]
[store]
type = "sqlite"
path = "%s/store.db"
[docker]
network_mode = "bridge"
publish_host = "127.0.0.1"
[egress]
image = "opensandbox/egress:v1.1.7"
mode = "dns+nft"
]]

local server = {}

local Server = {}
Server.__index = Server

--- Returns what the server and the stand-in have written, for a report of a fault.
function Server:log()
  return ("%s\n%s"):format(self.child:output(), self.child:stderr_text())
end

--- Stops both, and removes their files.
function Server:stop()
  self.child:stop()
  self.engine:stop()
  temporary.remove(self.directory)
end

--- Starts both.
---@return table server `url`, `key`, `directory` (for volumes), `engine`; raises when it does not answer in time
function server.start()
  local directory = temporary.directory()
  local self = setmetatable({ directory = directory, key = random.hex(16) }, Server)
  local port = free_port()
  self.url = "http://127.0.0.1:" .. port
  local config = assert(io.open(directory .. "/config.toml", "w"))
  assert(config:write(CONFIG:format(port, self.key, directory, directory)))
  config:close()
  self.engine = fault_server.start(('return require("spec.support.docker_engine") { directory = %q }'):format(directory))
  self.child = process.start {
    argv = { "sh", "-c", SUPERVISOR, "sh", PROGRAM, "--config", directory .. "/config.toml" },
    env = { DOCKER_HOST = "tcp://127.0.0.1:" .. self.engine.port, HOME = directory, http_proxy = false, https_proxy = false,
      HTTP_PROXY = false, HTTPS_PROXY = false, ALL_PROXY = false, all_proxy = false },
  }
  local deadline = uv.hrtime() / 1e9 + START_TIME
  local answer
  repeat
    answer = self.child:running() and http_client.request { url = self.url .. "/health" }
    if not answer then uv_loop.sleep(0.1) end
  until answer or not self.child:running() or uv.hrtime() / 1e9 > deadline
  if answer then return self end
  local log = self:log()
  self:stop()
  error("the server does not answer:\n" .. log, 2)
end

return server

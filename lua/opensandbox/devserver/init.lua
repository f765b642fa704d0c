--- A server for development and tests that speaks the lifecycle API and the execd API on loopback ports and runs
-- commands as processes of this machine, each sandbox in a directory of its own.
--
-- It behaves as the real services do. It is not for real work: it has no images and no resource limits, and network
-- policies and credentials are kept and shown, but not enforced.

local uv = require "luv"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local guard = require "opensandbox.devserver.base.safe_callback"
local http = require "opensandbox.devserver.http.server"
local isolation = require "opensandbox.devserver.isolation.detect"
local lifecycle = require "opensandbox.devserver.lifecycle.routes"
local ports = require "opensandbox.devserver.lifecycle.gateway"
local random = require "opensandbox.devserver.base.random"
local sandboxes = require "opensandbox.devserver.lifecycle.sandboxes"
local snapshots = require "opensandbox.devserver.lifecycle.snapshots"

local devserver = {}

devserver.VERSION = require "opensandbox.version"

local Server = {}
Server.__index = Server

-- The directory of all sandboxes, and whether it is ours to remove.
local function make_directory(wanted)
  if not wanted then
    return uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp"):gsub("/+$", "") .. "/opensandbox-XXXXXX"), true
  end
  local stat = uv.fs_stat(wanted)
  if stat and stat.type ~= "directory" then return nil, "it is not a directory" end
  if not stat then
    local ok, problem = uv.fs_mkdir(wanted, 448)
    if not ok then return nil, problem end
  end
  return uv.fs_realpath(wanted), not stat
end

local function listen(name, port, handler)
  local listener, problem = http.listen(port, handler)
  if listener then return listener end
  if problem:find("EADDRINUSE", 1, true) then
    return nil, ("port %d is in use: choose another with %s (0 takes a free one)"):format(port, name)
  end
  return nil, ("cannot listen on port %d (%s): %s"):format(port, name, problem)
end

local function milliseconds(seconds)
  return math.floor(seconds * 1000)
end

--- Starts a server. Not from inside a callback of the event loop: it tries the isolation out, and waits for the result.
-- @param options `port` (8080; 0 for a free one), `gateway_port` (0), `key` (random), `root` (a fresh temporary
-- directory), `isolation` ("auto", "bwrap" or "none"), `grace` (seconds a command's stream stays open after its end: 1),
-- `create_delay` and `delete_delay` (seconds that creates and deletes take: 0)
-- @treturn[1] table the server: `url`, `key`, `gateway_url`, `root`, `isolation` (what people should know), `stop()`
-- @treturn[2] nil
-- @treturn[2] string why it cannot start
function devserver.start(options)
  options = options or {}
  local directory, ours = make_directory(options.root)
  if not directory then return nil, ("cannot use the directory %s (--root): %s"):format(options.root, ours) end
  local self = setmetatable({ root = directory, owns_root = ours, key = options.key or random.hex(16) }, Server)

  -- Without a handler, writing to a client that has gone would end the process. Children do not inherit it.
  self.broken_pipe = uv.new_signal()
  self.broken_pipe:start("sigpipe", function() end)

  local trial = assert(uv.fs_mkdtemp(directory .. "/trial-XXXXXX"))
  local strategy, notice = isolation.choose(options.isolation or "auto", trial)
  filesystem.remove_all(trial)
  if not strategy then
    self:_finish()
    return nil, notice
  end
  self.isolation = notice
  self.store = sandboxes.new {
    directory = directory, strategy = strategy, grace = milliseconds(options.grace or 1),
    create_delay = milliseconds(options.create_delay or 0), delete_delay = milliseconds(options.delete_delay or 0),
  }

  self.snapshots = snapshots.new(directory .. "/snapshots")

  local problem
  self.gateway, problem = listen("--gateway-port", options.gateway_port or 0, ports.gateway(self.store))
  if self.gateway then
    self.store.gateway_port = self.gateway.port
    self.api, problem = listen("--port", options.port or 8080, lifecycle.handler {
      store = self.store, snapshots = self.snapshots, key = self.key, gateway_port = self.gateway.port, version = devserver.VERSION,
    })
  end
  if problem then
    self:stop()
    return nil, problem
  end
  self.url = ("http://127.0.0.1:%d"):format(self.api.port)
  self.gateway_url = ("http://127.0.0.1:%d"):format(self.gateway.port)
  return self
end

function Server:_finish()
  self.broken_pipe:close()
  if self.owns_root then filesystem.remove_all(self.root) end
end

--- Stops listening, ends all sandboxes and removes their files.
-- @param callback called when nothing is left
function Server:stop(callback)
  if self.stopped then return end
  self.stopped = true
  for _, listener in ipairs { self.gateway or false, self.api or false } do
    if listener then listener:stop() end
  end
  self.store:close(guard.wrap(function()
    self.snapshots:close()
    self:_finish()
    if callback then callback() end
  end))
end

return devserver

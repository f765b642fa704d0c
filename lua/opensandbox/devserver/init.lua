--- A server for development and tests. It speaks the lifecycle API and the execd API on loopback ports, and runs commands as
-- processes of this machine, each sandbox in a directory of its own.
--
-- It behaves as the real services do. It is not for real work: it has no images and no resource limits, and it stores and returns
-- network policies and credentials, but does not enforce them.

local uv = require "luv"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local http = require "opensandbox.devserver.http.server"
local isolation = require "opensandbox.devserver.isolation.detect"
local lifecycle = require "opensandbox.devserver.lifecycle.api"
local gateway = require "opensandbox.devserver.lifecycle.gateway"
local random = require "opensandbox.base.random"
local sandboxes = require "opensandbox.devserver.lifecycle.sandboxes"
local snapshots = require "opensandbox.devserver.lifecycle.snapshots"
local templates = require "opensandbox.devserver.lifecycle.templates"

local devserver = {}

devserver.VERSION = require "opensandbox.version"

local Server = {}
Server.__index = Server

local function temporary_directory()
  return ((os.getenv("TMPDIR") or "/tmp"):gsub("/+$", ""))
end

-- Returns the directory of all sandboxes, and whether the server created it and so removes it; or nil and the reason.
local function make_directory(wanted)
  if not wanted then
    local made, problem = uv.fs_mkdtemp(temporary_directory() .. "/opensandbox-XXXXXX")
    return made, made and true or problem
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

---@class opensandbox.devserver.Options
---@field port? integer of the API; default 8080, 0 for a free one
---@field gateway_port? integer of the sandboxes; default 0, a free one
---@field key? string the API key; default a random one
---@field root? string the directory of the sandboxes; default a new temporary one, which is removed at the end
---@field isolation? "auto"|"bwrap"|"none" default "auto": bubblewrap where it works
---@field grace? number seconds that the stream of a command stays open after its end; default 1, as on real servers
---@field create_delay? number seconds that a create takes; default 0
---@field delete_delay? number seconds that a delete takes; default 0
---@field lose_output_at_exit? boolean whether terminals lose the last output before the exit, as real ones may; default false
---@field newest_execd? boolean whether execd is that of server 1.1.1, with file routes as another user and several directories in an isolated session, instead of that of August 2026; default false
---@field templates? boolean whether the server has templates, and makes sandboxes from them, as only one on Kubernetes does; default false
---@field collect_interval? number seconds between two collections of idle isolated sessions; default 60

--- Tries how commands can be isolated on this machine. Must not be called from a callback of the event loop, because it runs the loop.
---@param mode "auto"|"bwrap"|"none"
---@param directory? string for the files of the trial, which are removed; default: that of temporary files
---@return table? strategy
---@return string notice a text for people; without a strategy why the mode does not work
function devserver.try_isolation(mode, directory)
  directory = directory or temporary_directory()
  local trial, problem = uv.fs_mkdtemp(directory .. "/trial-XXXXXX")
  if not trial then return nil, ("cannot use the directory %s: %s"):format(directory, problem) end
  local strategy, notice = isolation.choose(mode, trial)
  filesystem.remove_all(trial)
  return strategy, notice
end

--- Starts a server. Must not be called from a callback of the event loop, because it runs the loop to try the isolation.
---@param options? opensandbox.devserver.Options
---@return table? server `url`, `key`, `gateway_url`, `root`, `isolation` (a text for people), `stop(callback)`
---@return string? problem why it cannot start
function devserver.start(options)
  options = options or {}
  local directory, ours = make_directory(options.root)
  if not directory then
    local place, setting = options.root or temporary_directory(), options.root and "--root" or "TMPDIR"
    return nil, ("cannot use the directory %s (%s): %s"):format(place, setting, ours)
  end
  local self = setmetatable({ root = directory, owns_root = ours, key = options.key or random.hex(16) }, Server)

  -- Without a handler, a write to a client that has gone would kill the process. Child processes do not inherit the handler.
  self.broken_pipe = uv.new_signal()
  self.broken_pipe:start("sigpipe", function() end)

  local strategy, notice = devserver.try_isolation(options.isolation or "auto", directory)
  if not strategy then
    self:_finish()
    return nil, notice
  end
  self.isolation = notice
  self.store = sandboxes.new {
    directory = directory, strategy = strategy, grace = milliseconds(options.grace or 1),
    create_delay = milliseconds(options.create_delay or 0), delete_delay = milliseconds(options.delete_delay or 0),
    collect_interval = milliseconds(options.collect_interval or 60), loses_output = options.lose_output_at_exit,
    newest_execd = options.newest_execd,
  }

  self.snapshots = snapshots.new(directory .. "/snapshots")
  self.templates = options.templates and templates.new() or nil

  local problem
  self.gateway, problem = listen("--gateway-port", options.gateway_port or 0, gateway.handler(self.store))
  if self.gateway then
    self.store.gateway_port = self.gateway.port
    self.api, problem = listen("--port", options.port or 8080, lifecycle.handler {
      store = self.store, snapshots = self.snapshots, templates = self.templates, key = self.key, gateway_port = self.gateway.port,
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

--- Stops listening, and removes all sandboxes with their processes and files.
---@param callback? fun() called when nothing is left
function Server:stop(callback)
  if self.stopped then return end
  self.stopped = true
  for _, listener in ipairs { self.gateway or false, self.api or false } do
    if listener then listener:stop() end
  end
  self.store:close(safe_callback.wrap(function()
    self.snapshots:close()
    if self.templates then self.templates:close() end
    self:_finish()
    if callback then callback() end
  end))
end

return devserver

--- OpenSandbox for Lua: create a sandbox, run commands in it, move files in and out, throw it away.
--
--     local opensandbox = require "opensandbox"
--     local client = opensandbox.new()
--     local sandbox <close> = assert(client:create { image = "python:3.12" })
--     print(assert(sandbox:run("python3 --version")).stdout)

require "opensandbox.intree" -- first: the others want the core

local clients = require "opensandbox.client"
local core = require "opensandbox.core"
local errors = require "opensandbox.base.errors"
local pool = require "opensandbox.sandbox_pool"
local presets = require "opensandbox.egress.presets"
local coxpcall = require "opensandbox.loop.coxpcall"
local sandboxes = require "opensandbox.sandbox"
local shell = require "opensandbox.base.shell"
local task = require "opensandbox.loop.task"
local objects = require "opensandbox.lifecycle.objects"

clients.Client.create = sandboxes.create
clients.Client.connect = sandboxes.connect
clients.Client.sandboxes = sandboxes.iterate
clients.Client.kill_all = sandboxes.kill_all
clients.Client.pool = pool.new

-- assert() of PUC Lua 5.1 and 5.2 takes no error but a string, and the lua program of 5.1 prints no other.
local prints_strings_only = _VERSION == "Lua 5.1" and not rawget(_G, "jit")

--- Returns its arguments, or raises the second when the first is nil or false: assert(), for every Lua.
local function check(value, err, ...)
  if value then return value, err, ... end
  -- A task that is cancelled ends with the error itself.
  local for_task = errors.is(err) and err.kind == "cancelled"
  error(prints_strings_only and not for_task and tostring(err) or err, 0)
end

return {
  _VERSION = require "opensandbox.version",
  EXECD_PORT = objects.EXECD_PORT,
  EGRESS_PORT = objects.EGRESS_PORT,
  new = clients.new,
  egress = { presets = presets.known, only = presets.only, none = presets.none }, -- network policies
  is_error = errors.is,
  assert = check,
  quote = shell.quote,
  spawn = task.spawn,
  map = task.map,
  sleep = task.sleep,
  pcall = coxpcall.pcall, -- pcall(), inside which a task can wait on Lua 5.1 too
  now = core.now, -- seconds on the monotonic clock, for measuring
}

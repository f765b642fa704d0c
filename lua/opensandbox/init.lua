--- OpenSandbox for Lua: create a sandbox, run commands in it, move files in and out, throw it away.
--
--     local opensandbox = require "opensandbox"
--     local client = opensandbox.new()
--     local sandbox <close> = assert(client:create { image = "python:3.12" })
--     print(assert(sandbox:run("python3 --version")).stdout)

require "opensandbox.intree" -- first, because the other files need the core
require "opensandbox.base.json" -- second, so that a missing JSON library is reported now, and not by the first request

local clients = require "opensandbox.client"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local errors = require "opensandbox.base.errors"
local lazy = require "opensandbox.base.lazy"

-- Files that are loaded when a field below first needs them.
local parts = lazy.modules {
  objects = "opensandbox.lifecycle.objects",
  pool_stores = "opensandbox.pool",
  presets = "opensandbox.egress.presets",
  shell = "opensandbox.base.shell",
  task = "opensandbox.loop.task",
}

-- The fields that are made when they are first read.
local FIELDS = {
  EXECD_PORT = function() return parts.objects.EXECD_PORT end,
  EGRESS_PORT = function() return parts.objects.EGRESS_PORT end,
  egress = function() -- network policies
    return { presets = parts.presets.known, only = parts.presets.only, none = parts.presets.none }
  end,
  pool_stores = function() return parts.pool_stores end, -- of pools that several processes share
  quote = function() return parts.shell.quote end,
  spawn = function() return parts.task.spawn end,
  map = function() return parts.task.map end,
  sleep = function() return parts.task.sleep end,
}

-- assert() of PUC Lua 5.1 and 5.2 accepts only strings as errors, and the lua program of 5.1 prints only strings.
local prints_strings_only = _VERSION == "Lua 5.1" and not rawget(_G, "jit")

--- Returns its arguments, or raises the second one if the first is nil or false, like assert() but on every Lua.
local function check(value, err, ...)
  if value then return value, err, ... end
  -- A cancelled task must end with the error itself.
  local for_task = errors.is(err) and err.kind == "cancelled"
  error(prints_strings_only and not for_task and tostring(err) or err, 0)
end

return lazy.fields({
  _VERSION = require "opensandbox.version",
  new = clients.new,
  is_error = errors.is,
  assert = check,
  pcall = coxpcall.pcall, -- pcall(), inside which a task can wait on Lua 5.1 too
  now = core.now, -- seconds on the monotonic clock, for measuring
}, FIELDS)

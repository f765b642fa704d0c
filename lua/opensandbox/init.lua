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
  pool_stores = "opensandbox.pool",
  ports = "opensandbox.lifecycle.ports",
  presets = "opensandbox.egress.presets",
  shell = "opensandbox.base.shell",
  task = "opensandbox.loop.task",
}

-- The fields that are made when they are first read.
local FIELDS = {
  EXECD_PORT = function() return parts.ports.EXECD end,
  EGRESS_PORT = function() return parts.ports.EGRESS end,
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

--- Returns its arguments, or raises the second one if the first is nil or false. It is assert(), except that Lua 5.1 and 5.2 print the error
--- as its line, too.
--- ```lua
--- local assert = opensandbox.assert
--- local sandbox = assert(client:create { image = "python:3.12" })
--- ```
---@generic T
---@param value T?
---@param err any
---@param ... any
---@return T value
---@return any ... the other arguments
local function check(value, err, ...)
  if value then return value, err, ... end
  -- A cancelled task must end with the error itself.
  local for_task = errors.is(err) and err.kind == "cancelled"
  error(prints_strings_only and not for_task and tostring(err) or err, 0)
end

--- The module. Times are seconds, or texts like "90s", "10m" and "2h". Instants are Unix seconds. Strings are bytes. Wrong arguments raise
--- an error at your line, and every failure at run time returns `nil, err`. Where only an option `timeout` is listed, without a default, that
--- is the client's (30 s).
--- ```lua
--- local opensandbox = require "opensandbox"
--- print(opensandbox._VERSION, opensandbox.EXECD_PORT, opensandbox.EGRESS_PORT)
--- local began = opensandbox.now()
--- local policy = opensandbox.egress.only("pypi")
--- local store = opensandbox.pool_stores.memory()
--- print(opensandbox.now() - began)
--- ```
---@class opensandbox
---@field _VERSION string the version of the library
---@field EXECD_PORT integer the port of execd in a sandbox: 44772
---@field EGRESS_PORT integer the port of the egress sidecar of a sandbox: 18080
---@field egress opensandbox.EgressPolicies network policies
---@field pool_stores opensandbox.PoolStores stores of pools that several processes share
---@field now fun(): number returns seconds on the monotonic clock, for measuring
---@field new fun(base?: string, api_key?: string, opts?: opensandbox.ClientOpts): opensandbox.Client
---@field is_error fun(value: any): boolean
---@field pcall fun(fn: function, ...: any): boolean, any
---@field quote fun(argument: string): string
---@field spawn fun(fn: function, ...: any): opensandbox.Task
---@field map fun(items: any[], fn: (fun(item: any, index: integer): any, any), opts?: { concurrency?: integer }): any[]?, any
---@field sleep fun(seconds: opensandbox.Duration): true?, opensandbox.Error?
local opensandbox = {
  _VERSION = require "opensandbox.version",
  new = clients.new,
  is_error = errors.is,
  assert = check,
  pcall = coxpcall.pcall, -- pcall(), inside which a task can wait on Lua 5.1 too
  now = core.now,
}

return lazy.fields(opensandbox, FIELDS)

--- The program of a process of spec/support/pool_kills.lua: a shared pool over Redis, with the options in the environment.

require("opensandbox.loop").use("pool_worker_main", "plain")

local opensandbox = require "opensandbox"
local pool_worker = require "spec.support.pool_worker"
local redis_client = require "spec.support.redis_client"
local uv = require "luv"

local function number(name) return assert(tonumber(os.getenv(name)), name) end

local port = number "POOL_REDIS"
local log = pool_worker.log(os.getenv "POOL_LOG", uv.os_getpid())
local store = opensandbox.pool_stores.redis { name = "kills", connect = function() return redis_client.connect(port) end }
local client = opensandbox.new(os.getenv "POOL_SERVER", "key", { create_timeout = 5 })
local pool = client:pool {
  image = "any", min_idle = number "POOL_MIN_IDLE", max_size = number "POOL_MAX_SIZE", lease = number "POOL_LEASE",
  store = pool_worker.recording(store, log),
}
local parent = uv.os_getppid()
pool_worker.run(pool, log, function() return uv.os_getppid() ~= parent end) -- it ends with the test, at the latest
client:close()

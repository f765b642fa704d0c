--- The handlers of spec/hosts/pool_nginx.conf: each worker of nginx uses a shared pool until a request stops it.

local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local redis_client = require "spec.support.redis_client"
local pool_worker = require "spec.support.pool_worker"

local ngx = rawget(_G, "ngx")
local control = ngx.shared.control

local handlers = {}
local pool -- of this worker

local function number(name) return assert(tonumber(os.getenv(name)), name) end

local function is_stopped() return control:get("stopped") or ngx.worker.exiting() end

function handlers.start()
  local log = pool_worker.log(os.getenv "POOL_LOG", ngx.worker.pid())
  local port = tonumber(os.getenv "POOL_REDIS")
  local store = port
    and opensandbox.pool_stores.redis { name = "kills", connect = function() return redis_client.connect(port) end }
    or opensandbox.pool_stores.shared_dict(ngx.shared.pools, { name = "kills" })
  local client = opensandbox.new(os.getenv "POOL_SERVER", "key", { create_timeout = 5 })
  pool = client:pool {
    image = "any", min_idle = number "POOL_MIN_IDLE", max_size = number "POOL_MAX_SIZE", lease = number "POOL_LEASE",
    store = pool_worker.recording(store, log),
  }
  assert(ngx.timer.at(0, function() pool_worker.run(pool, log, is_stopped) end))
end

function handlers.stop()
  control:set("stopped", true)
  ngx.say("stops")
end

--- Answers with the numbers of the pool.
function handlers.stats()
  ngx.say(json.encode(assert(pool:stats())))
end

return handlers

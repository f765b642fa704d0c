--- The stores of pools that several processes share: `opensandbox.pool_stores`.

local lazy = require "opensandbox.base.lazy"

-- Files that are loaded when a field below first needs them.
local parts = lazy.modules {
  memory = "opensandbox.pool.memory_store",
  shared_dict = "opensandbox.pool.shared_dict_store",
  redis = "opensandbox.pool.redis_store",
  custom = "opensandbox.pool.text_store",
}

--- The stores of pools that several processes share: `opensandbox.pool_stores`. Each function makes one; pools with the same store share their
--- sandboxes.
--- ```lua
--- local in_one_state = opensandbox.pool_stores.memory()
--- local in_nginx = opensandbox.pool_stores.shared_dict(ngx.shared.pools, { name = "builds" })
--- local on_machines = opensandbox.pool_stores.redis { name = "builds", connect = connect_redis }
--- local own = opensandbox.pool_stores.custom { name = "table pools", update = update_row }
--- local pool = client:pool { image = "python:3.12", store = in_one_state }
--- ```
---@class opensandbox.PoolStores
---@field memory fun(): opensandbox.PoolStore for the pools of one Lua state
---@field shared_dict fun(dict: table, opts?: { name?: string }): opensandbox.PoolStore for the workers of one nginx: a dictionary of `ngx.shared`, of its own, because nginx removes entries of a dictionary that is full. `name` of the pool, default "default"; pools of other options need other names
---@field redis fun(opts: { name: string, connect: (fun(): table?), timeout?: opensandbox.Duration }): opensandbox.PoolStore for several machines: Redis 3.2 or newer, through the client of the user, which has a method `eval(script, number_of_keys, key, ..., argument, ...)`
---@field custom fun(opts: { name: string, update: (fun(change: (fun(text?: string): string?)): true?, any), now?: (fun(): number) }): opensandbox.PoolStore for anything that changes a text atomically: `update(change)` reads the text, calls `change(text)`, and writes the text that this returns, as one step
local pool_stores = {}

return lazy.fields(pool_stores, {
  memory = function() return parts.memory.new end,
  shared_dict = function() return parts.shared_dict.new end,
  redis = function() return parts.redis.new end,
  custom = function() return parts.custom.new end,
})

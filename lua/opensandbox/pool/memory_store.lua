--- A store for the pools of one Lua state.

local core = require "opensandbox.core"
local rules = require "opensandbox.pool.rules"

local MemoryStore = {}
MemoryStore.__index = MemoryStore

local memory_store = {}

--- Makes a store: `opensandbox.pool_stores.memory`. Several pools of this Lua state can share it.
---@return opensandbox.PoolStore
function memory_store.new()
  return setmetatable({ name = "memory", immediate = true, state = {} }, MemoryStore)
end

function MemoryStore:transact(request)
  return (rules.apply(self.state, request, core.now()))
end

return memory_store

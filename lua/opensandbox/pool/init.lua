--- The stores of pools that several processes share: `opensandbox.pool_stores`.

local lazy = require "opensandbox.base.lazy"

-- Files that are loaded when a field below first needs them.
local parts = lazy.modules {
  memory = "opensandbox.pool.memory_store",
  shared_dict = "opensandbox.pool.shared_dict_store",
  redis = "opensandbox.pool.redis_store",
  custom = "opensandbox.pool.text_store",
}

return lazy.fields({}, {
  memory = function() return parts.memory.new end,
  shared_dict = function() return parts.shared_dict.new end,
  redis = function() return parts.redis.new end,
  custom = function() return parts.custom.new end,
})

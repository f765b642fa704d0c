--- A store for the pools of several processes that keeps the whole pool as one text, in anything that can read, change and write a text
--- atomically: a row of a database, a file with a lock, a value with compare-and-set.
--
-- A store is a table with a method `transact(request)`, which performs one step of rules.lua atomically. It returns the response, or nil
-- and an error: a text, or a table { code, message } with a code of store_session.lua. Each step reads and
-- writes the whole text, which takes some 500 bytes a place.

local core = require "opensandbox.core"
local options = require "opensandbox.base.options"
local rules = require "opensandbox.pool.rules"

--- A store, which several processes share for their pools. `opensandbox.pool_stores` makes them.
--- ```lua
--- local store = opensandbox.pool_stores.memory()
--- print(store.name, store.immediate, store.transact ~= nil)
--- local pool = client:pool { image = "python:3.12", store = store }
--- ```
---@class opensandbox.PoolStore
---@field name string how errors name it
---@field immediate? boolean `transact` never waits
---@field transact fun(self: opensandbox.PoolStore, request: table): table?, any the response, or nil and an error

local TextStore = {}
TextStore.__index = TextStore

local text_store = {}

local option_types = { name = "nonempty string", update = "function", now = "function" }

--- Makes a store: `opensandbox.pool_stores.custom`.
---
--- `update(change)` must do this as one atomic step, which no other process can interrupt: read the text (nil when there is none), call
--- `change(text)`, and write the text that it returns, if it returns one. It may call `change` again when it has to start again. It returns
--- true, or nil and an error.
---
---     opensandbox.pool_stores.custom { name = "table pools", update = function(change)
---       database:begin()
---       local new = change(database:select_for_update("builds"))
---       if new then database:update("builds", new) end
---       return database:commit()
---     end }
---@param opts { name: string, update: fun(change: fun(text?: string): string?), now?: fun(): number } name: how errors name the store; now: seconds on a clock that all its processes share, default: the system's time
---@return opensandbox.PoolStore
function text_store.new(opts)
  local op = "pool_stores.custom"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, option_types)
  options.argument(op, "option 'name'", opts.name, "nonempty string")
  options.argument(op, "option 'update'", opts.update, "function")
  return setmetatable({ name = opts.name, update = opts.update, now = opts.now or core.wall_clock }, TextStore)
end

function TextStore:transact(request)
  local response
  local ok, err = self.update(function(text)
    local changed
    changed, response = rules.apply_text(text, request, self.now())
    return changed
  end)
  if not ok then return nil, err or "update returned no true value" end
  return response
end

return text_store

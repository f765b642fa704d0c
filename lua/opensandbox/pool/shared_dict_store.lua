--- A store for the pools of all workers of one nginx: a dictionary of `ngx.shared`, which outlives each worker and every reload.
--
-- The dictionary has no step that reads and writes, so an entry of it is a lock. The lock names its holder, because a worker can die
-- while it holds the lock: the others then remove it. The holder of the lock never waits, so that no worker waits long.

local core = require "opensandbox.core"
local deadlines = require "opensandbox.loop.deadline"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local text_store = require "opensandbox.pool.text_store"

local shared_dict_store = {}

local LOCK_LIFETIME = 60   -- seconds until nginx removes a lock, if no worker does
local LOCK_TIMEOUT = 5     -- seconds that a step waits for the lock
local POLL_INTERVAL = 0.002 -- seconds
local NO_SUCH_PROCESS = 3  -- errno ESRCH

local locks_taken = 0

-- Returns whether a process exists. Returns true where that cannot be determined.
local function is_alive(pid)
  local has_ffi, ffi = pcall(require, "ffi")
  if not has_ffi then return true end
  pcall(ffi.cdef, "int kill(int pid, int signal);") -- raises when another module has declared it
  return ffi.C.kill(pid, 0) == 0 or ffi.errno() ~= NO_SUCH_PROCESS
end

-- Removes the lock of a dead process. Of several workers that notice the death only one does this, and a later lock is never removed.
local function break_lock(dict, key, holder)
  if dict:add(key .. ":" .. holder, true, LOCK_LIFETIME) and dict:get(key) == holder then dict:delete(key) end
end

-- Returns the id of this process: nginx's, because nothing else can share the dictionary.
local function process_id()
  local ngx = rawget(_G, "ngx")
  return ngx and ngx.worker and ngx.worker.pid() or 0
end

-- Takes the lock. Returns the value by which it is released, or nil and an error.
local function lock(dict, key)
  locks_taken = locks_taken + 1
  local own = ("%d/%d/%.6f"):format(process_id(), locks_taken, core.now())
  local deadline = deadlines.new(LOCK_TIMEOUT)
  while true do
    local added, problem = dict:add(key, own, LOCK_LIFETIME)
    if added then return own end
    if problem ~= "exists" then
      return nil, { code = "store_failed", message = "the lock cannot be written: " .. tostring(problem) }
    end
    local holder = dict:get(key)
    local pid = type(holder) == "string" and tonumber(holder:match("^(%d+)/%d+/"))
    if holder ~= nil and not pid then return nil, { code = "store_foreign", message = "the lock is a value of another program" } end
    if pid and pid > 0 and not is_alive(pid) then
      break_lock(dict, key, holder)
    elseif deadline:has_passed() then
      return nil, { code = "store_timeout", seconds = LOCK_TIMEOUT,
        message = ("the lock is held by process %d"):format(pid or 0) }
    elseif loop.wait { seconds = POLL_INTERVAL, shielded = true } then
      return nil, { code = "store_failed", message = "the lock is taken, and this code cannot wait for it" }
    end
  end
end

-- Reads, changes and writes the text while this worker has the lock.
local function update_locked(dict, key, own, change)
  local text, problem = dict:get(key)
  if text == nil and problem then return nil, problem end
  local new = change(text)
  if not new then return true end
  if dict:get(key .. ":lock") ~= own then
    return nil, { code = "store_timeout", seconds = LOCK_LIFETIME, message = "this process was stopped while it had the lock" }
  end
  local ok, reason = dict:safe_set(key, new) -- never removes entries of others
  if not ok then return nil, { code = "store_failed", message = "the pool cannot be written: " .. tostring(reason) } end
  return true
end

local option_types = { name = "nonempty string" }

--- Makes a store: `opensandbox.pool_stores.shared_dict`. Give it a dictionary of its own, because nginx removes entries of a dictionary
--- that is full. A place takes some 500 bytes.
---
---     lua_shared_dict pools 1m;
---     client:pool { image = "any", store = opensandbox.pool_stores.shared_dict(ngx.shared.pools, { name = "builds" }) }
---@param dict table an entry of ngx.shared
---@param opts? { name?: string } name of the pool, default "default"; pools of other options need other names
---@return opensandbox.PoolStore
function shared_dict_store.new(dict, opts)
  local op = "pool_stores.shared_dict"
  options.argument(op, "the dictionary (ngx.shared.NAME, with lua_shared_dict NAME 1m; in the configuration)", dict, "table")
  local name = options.check(op, opts, option_types).name or "default"
  local key = "opensandbox:" .. name
  return text_store.new {
    name = ("ngx.shared, pool %q"):format(name),
    now = core.now, -- the monotonic clock of the machine
    update = function(change)
      local own, err = lock(dict, key .. ":lock")
      if not own then return nil, err end
      local called, ok, problem = pcall(update_locked, dict, key, own, change)
      if dict:get(key .. ":lock") == own then dict:delete(key .. ":lock") end
      if not called then error(ok, 0) end
      return ok, problem
    end,
  }
end

return shared_dict_store

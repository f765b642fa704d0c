--- A pool of sandboxes: they are created before they are needed. (The server's pools are in lifecycle/server_pool_routes.lua.)
--
-- The places of a pool are in a store, see pool/rules.lua, and pool/dispatcher.lua serves calls of `acquire` from it. Without the option
-- `store` that is a private one, and the pool deletes its idle sandboxes when it is closed or collected. With it, the pools of several
-- processes share their places: an idle sandbox belongs to no process, and is taken by its handle. Each process holds its other places by a
-- lease that it renews, so that the others delete the sandboxes of a dead process.
--
-- The requests of a process are served in the order in which they came. A sandbox is used once. It counts towards `max_size` until it is
-- deleted.

local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local create_options = require "opensandbox.lifecycle.create_options"
local deadlines = require "opensandbox.loop.deadline"
local dispatcher = require "opensandbox.pool.dispatcher"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local lazy = require "opensandbox.base.lazy"
local loop = require "opensandbox.loop"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local sandboxes = require "opensandbox.sandboxes"
local scheduler = require "opensandbox.loop.scheduler"
local store_session = require "opensandbox.pool.store_session"
local tables = require "opensandbox.base.tables"

-- Files that are loaded when they are first needed.
local parts = lazy.modules { memory_store = "opensandbox.pool.memory_store" }

--- Sandboxes that are created in advance, in this process or in all that share a store. Each is used once.
--- ```lua
--- local pool = client:pool { image = "python:3.12", min_idle = 4, max_size = 16 }
--- ```
---@class opensandbox.Pool
local Pool = {}
Pool.__index = Pool
Pool.__name = "opensandbox.Pool"

local pool = {}

local pool_of = setmetatable({}, { __mode = "k" }) -- by sandbox: the weak reference to the pool that handed it out

local DEFAULTS = { min_idle = 1, max_size = 10, acquire_timeout = 30, lease = 60, store_timeout = 5 }
local CLOSE_TIMEOUT = 30          -- seconds
local CREATE_GRACE = 2            -- seconds that a create under way gets when the pool is closed
local PING_TIMEOUT = 2            -- seconds
local POLL_INTERVAL = 1           -- seconds between checks of a request that waits for a create beyond its time limit
local MAX_MIN_LIFETIME = 60       -- seconds: the greatest default of min_remaining_lifetime
local LEASE_SHARE = 3 / 4         -- of the option is the lease in the store; the rest is for the pass that notices its end
local FOREVER = 1e9               -- seconds: the lease in a private store

--- The options of `client:pool`: those of the sandboxes, and how many there are.
--- ```lua
--- local pool = client:pool {
---   image = "python:3.12", timeout = "1h", min_idle = 4, max_size = 16, min_remaining_lifetime = 60,
---   acquire_timeout = 10, ready_timeout = 60, keep_alive = false,
---   warm_up = function(sandbox) return sandbox:run("pip install numpy") end,
---   ready = function(sandbox) return sandbox.files:exists("/tmp/ready") end, max_creates_per_second = 2, check = function(sandbox) return sandbox:run("true") end,
---   store = opensandbox.pool_stores.memory(), lease = 60, store_timeout = 5,
---   on_state = function(info) print(info.id, info.state) end,
--- }
--- ```
---@class opensandbox.PoolOpts: opensandbox.SandboxOpts
---@field min_idle? integer idle sandboxes that are kept ready, default 1
---@field max_size? integer sandboxes in all at any time, default 10
---@field min_remaining_lifetime? opensandbox.Duration of lifetime that a sandbox must have left to be handed out, default a tenth of its timeout, at most 60
---@field warm_up? fun(sandbox: opensandbox.Sandbox): any, any called once with each new sandbox before it is handed out; nil and an error, or a raised one, discard it
---@field acquire_timeout? opensandbox.Duration that `acquire` waits for capacity, default 30
---@field ready? fun(sandbox: opensandbox.Sandbox): any, any see CreateOpts
---@field ready_timeout? opensandbox.Duration see CreateOpts
---@field max_creates_per_second? number default: no limit
---@field check? fun(sandbox: opensandbox.Sandbox): any, any called with each idle sandbox that is to be handed out; nil and an error, or a raised one, discard it
---@field store? opensandbox.PoolStore of opensandbox.pool_stores: shares the pool with all that use this store; min_idle, max_size and max_creates_per_second are then for all of them together, as the last program with new ones has them. The pool renews leases until it is closed, so that it keeps the event loop of a host from ending before
---@field lease? opensandbox.Duration after which the others delete the sandboxes of a process that has died, default 60, at least 1; a process must wait in this library, or in its event loop, at least four times in that
---@field store_timeout? opensandbox.Duration after which a store that does not answer is an error, default 5
---@field on_state? fun(info: opensandbox.SandboxInfo) see CreateOpts
---@field keep_alive? opensandbox.Duration|false see CreateOpts

local own_options = {
  min_idle = "natural", max_size = "natural", max_creates_per_second = "any", min_remaining_lifetime = "seconds or 0",
  warm_up = "function", check = "function", acquire_timeout = "seconds or 0", store = "table", lease = "seconds",
  store_timeout = "seconds",
}
local sandbox_options = tables.merge(create_options.types, create_options.object_types)

-- Checks the options that `resize` has, too.
local function check_limits(op, limits)
  if limits.max_size < 1 then options.raise(op, "option 'max_size' must be at least 1") end
  if limits.min_idle > limits.max_size then
    options.raise(op, ("option 'min_idle' (%d) is more than option 'max_size' (%d)"):format(limits.min_idle, limits.max_size))
  end
  local rate = limits.max_creates_per_second
  if rate ~= nil and not (type(rate) == "number" and rate > 0 and rate < math.huge) then
    options.raise(op, "option 'max_creates_per_second' must be a number greater than 0")
  end
end

-- Checks the pool's own options, and returns them with their defaults.
local function with_defaults(op, given, lifetime)
  local own = tables.merge(DEFAULTS, given)
  check_limits(op, own)
  own.min_remaining_lifetime = own.min_remaining_lifetime or math.min(MAX_MIN_LIFETIME, (lifetime or 0) / 10)
  if lifetime and own.min_remaining_lifetime >= lifetime then
    options.raise(op, ("option 'min_remaining_lifetime' must be less than the timeout of %s s"):format(
      numbers.format(lifetime)))
  end
  if own.store and type(own.store.transact) ~= "function" then
    options.raise(op, "option 'store' must be a store, for example opensandbox.pool_stores.redis { ... }")
  end
  if own.lease < 1 then options.raise(op, "option 'lease' must be at least 1 s") end
  return own
end

--- Makes a pool and starts to fill it.
--- ```lua
--- local pool = client:pool { image = "python:3.12", min_idle = 4, max_size = 16 }
--- ```
---@param client opensandbox.Client
---@param opts opensandbox.PoolOpts
---@return opensandbox.Pool
function pool.new(client, opts)
  local op = "pool"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, tables.merge(sandbox_options, own_options))
  local own, to_create, to_send = {}, {}, {}
  for name, value in each(opts) do
    if own_options[name] then own[name] = value else to_create[name] = value end
    if create_options.types[name] then to_send[name] = value end
  end
  create_options.check(op, to_send)
  local lifetime = create_options.lifetime(to_create)
  own = with_defaults(op, own, lifetime)
  local session = store_session.new(own.store or parts.memory_store.new(), {
    url = client.url, lease = own.store and own.lease * LEASE_SHARE or FOREVER,
    create_timeout = client.http.timeouts.create_timeout,
    limits = { min_idle = own.min_idle, max_size = own.max_size, rate = own.max_creates_per_second },
  })
  local self = setmetatable({
    _ref = nil, -- a weak reference to this object
    client = client, acquire_timeout = own.acquire_timeout,
    _is_shared = own.store ~= nil,
    _lifetime = lifetime, -- seconds of each sandbox; false: it never expires
    _keep_alive = to_create.keep_alive,
    _check = own.check,
    _store_timeout = own.store_timeout,
    _session = session,
    _dispatcher = dispatcher.new {
      client = client, session = session, is_shared = own.store ~= nil, options = to_create, warm_up = own.warm_up,
      max_idle_time = lifetime and lifetime - own.min_remaining_lifetime, adopt = sandboxes.adopt,
    },
  }, Pool)
  self._ref = setmetatable({ pool = self }, { __mode = "v" })
  client:add_close_listener(self._dispatcher)
  self._dispatcher:reconcile()
  return self
end

-- Returns the error for a request that the store does not answer, or nil when it may still do that.
local function store_timeout_error(self, op, request)
  local since = self._session:pending_since()
  if not since or core.now() - math.max(since, request.since) < self._store_timeout then return nil end
  return self._session:error(op, "store_timeout", "it does not answer", self._store_timeout)
end

-- Waits until a request has a sandbox, which was not checked yet.
local function wait_for_sandbox(self, op, request, limit)
  local wait = { registry = request, key = "waiter", owner = request }
  self._dispatcher:reconcile()
  while true do
    scheduler.expect(wait)
    if request.sandbox or request.err then return request.sandbox, request.err end
    if self._dispatcher:is_closed() then return nil, dispatcher.closed_error(op) end
    local left = limit:remaining()
    local is_covered = request:position() <= self._dispatcher:creating() -- it waits for the outcome of a create under way
    local err = not is_covered and store_timeout_error(self, op, request) or nil
    if limit:has_passed() then
      -- The time limit applies to the wait for capacity.
      if not is_covered and request.answered then
        err = errors.timeout { op = op, code = "pool_exhausted", option = limit.option, seconds = limit.seconds,
          text = ("no sandbox became free in time, and all %d are in use"):format(self._session.counts.max_size),
          hint = "Release sandboxes sooner, or raise the option max_size or " .. limit.option }
      end
      left = POLL_INTERVAL
    end
    if err then
      request:abandon()
      return nil, err
    end
    if not self._session.store.immediate then left = math.min(left, self._store_timeout) end
    wait.seconds = left
    local interruption, reason = loop.wait(wait)
    if interruption then
      request:abandon()
      return nil, loop.interrupted(op, interruption, reason)
    end
    if not request.sandbox and not request.err then self._dispatcher:reconcile() end
  end
end

-- Calls the user's check.
local function call_check(self, op, sandbox)
  local ok, value, problem = coxpcall.pcall(self._check, sandbox)
  if ok and (value or problem == nil) then return true end
  if ok then value = problem end
  if errors.is(value) then return nil, value end
  return nil, errors.new { kind = "state", code = "check_failed", op = op, sandbox_id = sandbox.id,
    message = "check failed: " .. tostring(value) }
end

-- Checks that an idle sandbox still responds, and renews its lifetime.
local function check(self, op, sandbox)
  local execd, err = sandbox:execd_endpoint(op)
  local client, ok = self.client:for_op(op), false
  if execd then ok, err = client:ping(execd, { timeout = PING_TIMEOUT }) end
  if ok and self._lifetime then ok, err = client:renew_sandbox(sandbox.id, self._lifetime) end
  if ok and self._is_shared and self._keep_alive then ok, err = sandbox:keep_alive(self._keep_alive) end
  if ok and self._check then ok, err = call_check(self, op, sandbox) end
  return ok, err
end

local acquire_options = { timeout = "seconds or 0" }

--- Returns a sandbox that is ready, for one use: release it, or use `with`. It takes an idle one that answers and lives long enough, else
--- waits for a new one. The requests of a process are served in their order.
--- ```lua
--- local sandbox = assert(pool:acquire { timeout = 10 })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds to wait for capacity, default: the pool's acquire_timeout; a create that is under way is waited for beyond that
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err kind `timeout`, code `pool_exhausted` when there was no capacity; code `store_unreachable`, `store_timeout`, `store_foreign` or `store_failed` when the store fails; else the error of the create
function Pool:acquire(opts)
  local op = "pool:acquire"
  opts = options.check(op, opts, acquire_options)
  local limit = deadlines.new(opts.timeout or self.acquire_timeout, opts.timeout and "timeout" or "acquire_timeout")
  local position -- at the end
  while true do
    if self._dispatcher:is_closed() then return nil, dispatcher.closed_error(op) end
    local request = self._dispatcher.queue:add(position)
    local sandbox, err = wait_for_sandbox(self, op, request, limit)
    if not sandbox then return nil, err end
    pool_of[sandbox] = self._ref
    if request.is_fresh then return sandbox end
    local ok, alive, problem = coxpcall.pcall(check, self, op, sandbox)
    if ok and alive then return sandbox end
    sandbox:delete_in_background()
    if not ok then error(alive, 0) end
    if problem.kind == "cancelled" or problem.kind == "closed" then return nil, problem end
    position = 1 -- as before
  end
end

--- Deletes a sandbox of this pool in the background, which makes room for another.
--- ```lua
--- pool:release(sandbox)
--- ```
---@param sandbox opensandbox.Sandbox
---@return true
function Pool:release(sandbox)
  if type(sandbox) ~= "table" or pool_of[sandbox] ~= self._ref then
    options.raise("pool:release", "the sandbox must be one that acquire of this pool returned")
  end
  if sandbox:owned_resource() then sandbox:delete_in_background() end -- else it was deleted, or detached
  return true
end

local function release_and_return(self, sandbox, ok, ...)
  self:release(sandbox)
  if not ok then error((...), 0) end
  return ...
end

--- Calls a function with a sandbox and `...`, and releases the sandbox afterwards, also when the function raises. Its error is raised again.
--- ```lua
--- local result = assert(pool:with(function(sandbox) return sandbox:run("make test", { timeout = 60 }) end))
--- ```
---@param fn fun(sandbox: opensandbox.Sandbox, ...: any): any, any
---@param ... any
---@return any ... the results of fn, or nil and the error of acquire
function Pool:with(fn, ...)
  options.argument("pool:with", "the function", fn, "function")
  local sandbox, err = self:acquire()
  if not sandbox then return nil, err end
  return release_and_return(self, sandbox, coxpcall.pcall(fn, sandbox, ...))
end

--- How many sandboxes a pool has.
--- ```lua
--- local stats = pool:stats()
--- print(stats.idle, stats.busy, stats.creating, stats.failures)
--- ```
---@class opensandbox.PoolStats
---@field idle integer sandboxes that are ready
---@field busy integer sandboxes that are handed out or being deleted
---@field creating integer creates under way
---@field failures integer failed creates of this process since the last success

--- Returns the numbers of sandboxes, of all processes that share the pool.
--- ```lua
--- print(assert(pool:stats()).idle)
--- ```
---@return opensandbox.PoolStats? stats
---@return opensandbox.Error? err of the store
function Pool:stats()
  if self._is_shared and not self._dispatcher:is_ours() then return nil, dispatcher.closed_error "pool:stats" end
  self._dispatcher:creating() -- removes those that their host has ended
  if self._session.store.immediate then self._dispatcher:reconcile() end
  local counts, err = self._session:perform("pool:stats", "count")
  if not counts then return nil, err end
  return { idle = counts.idle, busy = counts.busy, creating = counts.creating, failures = self._dispatcher.failures }
end

local resize_options = { min_idle = "natural", max_size = "natural", max_creates_per_second = "any" }

--- Changes the limits, for all processes that share the pool. Idle sandboxes above the new limits are deleted. Sandboxes in use stay until
--- they are released.
--- ```lua
--- assert(pool:resize { min_idle = 8, max_size = 32 })
--- ```
---@param opts { min_idle?: integer, max_size?: integer, max_creates_per_second?: number|false } default: as before; false: no limit
---@return true? ok
---@return opensandbox.Error? err of the store
function Pool:resize(opts)
  local op = "pool:resize"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, resize_options)
  if self._dispatcher:is_closed() then return nil, dispatcher.closed_error(op) end
  local counts, err = self._session:perform(op, "count")
  if not counts then return nil, err end
  local rate = opts.max_creates_per_second
  if rate == nil then rate = counts.rate > 0 and counts.rate end
  local limits = { min_idle = opts.min_idle or counts.min_idle, max_size = opts.max_size or counts.max_size,
    max_creates_per_second = rate or nil }
  check_limits(op, limits)
  counts, err = self._session:perform(op, "resize", {
    min_idle = limits.min_idle, max_size = limits.max_size, rate = limits.max_creates_per_second,
  })
  if not counts then return nil, err end
  self._dispatcher.trim = true
  self._dispatcher:reconcile()
  return true
end

local time_options = { timeout = "seconds" }

--- Waits until `min_idle` sandboxes are ready, or as many as max_size allows beside those in use.
--- ```lua
--- assert(pool:fill { timeout = "2m" })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_filled`; else the error of the last create, or of the store
function Pool:fill(opts)
  local op = "pool:fill"
  local limit = deadlines.new(options.check(op, opts, time_options).timeout)
  local own = self._dispatcher
  own.backoff_end = nil -- this call is a reason to try again
  local failures = own.failures
  local wait = { registry = own.watchers, key = {} }
  while true do
    if self._dispatcher:is_closed() then return nil, dispatcher.closed_error(op) end
    self._dispatcher:reconcile()
    if self._session.store.immediate then scheduler.expect(wait) end -- with another store, the count is a wait itself
    local counts, err = self._session:perform(op, "count")
    if not counts then return nil, err end
    if own:is_closed() then return nil, dispatcher.closed_error(op) end -- it was closed during the count
    if counts.idle >= math.min(counts.min_idle, counts.max_size - counts.busy) then return true end
    if own.failures > failures and own:creating() == 0 then return nil, own.error end
    failures = math.min(failures, own.failures)
    if limit:has_passed() then
      return nil, errors.timeout { op = op, code = "not_filled", text = ("%d of %d sandboxes are ready"):format(counts.idle,
        counts.min_idle), option = limit.option, seconds = limit.seconds, cause = own.error }
    end
    wait.seconds = self._is_shared and limit:clamp(own:tick()) or limit:remaining()
    local interruption, reason = loop.wait(wait)
    if interruption then return nil, loop.interrupted(op, interruption, reason) end
  end
end

--- Closes the pool: deletes the sandboxes whose create is under way, and the idle ones unless the pool is shared, and waits until they are
--- gone. Idle sandboxes of a shared pool stay for the other processes, and for later ones: `resize { min_idle = 0 }` deletes them. Sandboxes
--- that are handed out continue until they are released. Waiting and later calls of acquire return an error. Closing the client does this
--- too.
--- ```lua
--- assert(pool:close())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 30; the deletes continue in the background
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_closed`
function Pool:close(opts)
  local op = "pool:close"
  local limit = deadlines.new(options.check(op, opts, time_options).timeout or CLOSE_TIMEOUT)
  local own = self._dispatcher
  own:stop()
  if not self._is_shared then own:delete_idle() end
  -- A create deletes its sandbox itself when the pool is closed. One that takes long continues in the background.
  if not own.tasks:join(deadlines.new(limit:clamp(CREATE_GRACE))) then own:cancel_creates() end
  if own.tasks:join(limit) then return true end
  return nil, errors.timeout { op = op, code = "not_closed", text = "not everything is deleted", option = limit.option,
    seconds = limit.seconds, hint = "The deletes continue in the background" }
end

function Pool:__close()
  self:close()
end

function Pool:__tostring()
  local stats = self._session.store.immediate and self:stats() or self._session.counts or { idle = 0, busy = 0, creating = 0 }
  return ("opensandbox.Pool: %d idle, %d busy, %d creating"):format(stats.idle, stats.busy, stats.creating)
end

class.check_colon(Pool, "pool")

return pool

--- A pool of sandboxes in this process: they are created before they are needed. (The server's pools are in lifecycle/server_pool_routes.lua.)
--
-- Background tasks create all sandboxes, for waiting requests and for the reserve of idle ones. Requests are served in the order in which
-- they came. A sandbox is used once. It counts towards `max_size` until it is deleted.
--
-- Tasks and the hooks of sandboxes refer to the pool through a weak reference, so that a pool that nobody holds is collected together with
-- its idle sandboxes.

local class = require "opensandbox.base.class"
local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local create_options = require "opensandbox.lifecycle.create_options"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local tables = require "opensandbox.base.tables"
local task = require "opensandbox.loop.task"
local task_group = require "opensandbox.loop.task_group"

--- Sandboxes that are created in advance, in this process. Each is used once.
--- ```lua
--- local pool = client:pool { image = "python:3.12", min_idle = 4, max_size = 16 }
--- ```
---@class opensandbox.Pool
local Pool = {}
Pool.__index = Pool
Pool.__name = "opensandbox.Pool"

local pool = {}

local pool_of = setmetatable({}, { __mode = "k" }) -- by sandbox: the weak reference to the pool that handed it out

local DEFAULTS = { min_idle = 1, max_size = 10, acquire_timeout = 30 }
local CLOSE_TIMEOUT = 30          -- seconds
local CREATE_GRACE = 2            -- seconds that a create under way gets when the pool is closed
local MAX_CONCURRENT_CREATES = 8  -- for the reserve; every waiting request has one in addition
local INITIAL_BACKOFF = 0.5       -- seconds without a create for the reserve after a failure
local MAX_BACKOFF = 60            -- seconds
local BACKOFF_FACTOR = 2
local PING_TIMEOUT = 2            -- seconds
local POLL_INTERVAL = 1           -- seconds between checks of a request that waits for a create beyond its time limit
local MAX_MIN_LIFETIME = 60       -- seconds: the greatest default of min_remaining_lifetime

--- The options of `client:pool`: those of the sandboxes, and how many there are.
--- ```lua
--- local pool = client:pool {
---   image = "python:3.12", timeout = "1h", min_idle = 4, max_size = 16, min_remaining_lifetime = 60,
---   acquire_timeout = 10, ready_timeout = 60, keep_alive = false,
---   warm_up = function(sandbox) return sandbox:run("pip install numpy") end,
---   on_state = function(info) print(info.id, info.state) end,
--- }
--- ```
---@class opensandbox.PoolOpts: opensandbox.SandboxOpts
---@field min_idle? integer idle sandboxes that are kept ready, default 1
---@field max_size? integer sandboxes in all at any time, default 10
---@field min_remaining_lifetime? opensandbox.Duration of lifetime that a sandbox must have left to be handed out, default a tenth of its timeout, at most 60
---@field warm_up? fun(sandbox: opensandbox.Sandbox): any, any called once with each new sandbox before it is handed out; nil and an error, or a raised one, discard it
---@field acquire_timeout? opensandbox.Duration that `acquire` waits for capacity, default 30
---@field ready_timeout? opensandbox.Duration see CreateOpts
---@field on_state? fun(info: opensandbox.SandboxInfo) see CreateOpts
---@field keep_alive? opensandbox.Duration|false see CreateOpts

local own_options = {
  min_idle = "natural", max_size = "natural", min_remaining_lifetime = "seconds or 0", warm_up = "function",
  acquire_timeout = "seconds or 0",
}
local sandbox_options = tables.merge(create_options.types, create_options.object_types)

-- Checks the pool's own options, and returns them with their defaults.
local function with_defaults(op, given, lifetime)
  local own = tables.merge(DEFAULTS, given)
  if own.max_size < 1 then options.raise(op, "option 'max_size' must be at least 1") end
  if own.min_idle > own.max_size then
    options.raise(op, ("option 'min_idle' (%d) is more than option 'max_size' (%d)"):format(own.min_idle, own.max_size))
  end
  own.min_remaining_lifetime = own.min_remaining_lifetime or math.min(MAX_MIN_LIFETIME, (lifetime or 0) / 10)
  if lifetime and own.min_remaining_lifetime >= lifetime then
    options.raise(op, ("option 'min_remaining_lifetime' must be less than the timeout of %s s"):format(
      numbers.format(lifetime)))
  end
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
  for name, value in pairs(opts) do
    if own_options[name] then own[name] = value else to_create[name] = value end
    if create_options.types[name] then to_send[name] = value end
  end
  create_options.check(op, to_send)
  local lifetime = create_options.lifetime(to_create)
  own = with_defaults(op, own, lifetime)
  local self = setmetatable({
    client = client, min_idle = own.min_idle, max_size = own.max_size, acquire_timeout = own.acquire_timeout,
    _process = core.process(),
    _lifetime = lifetime, -- seconds of each sandbox; false: it never expires
    _max_idle_time = lifetime and lifetime - own.min_remaining_lifetime or math.huge, -- seconds
    _create_spec = { client = client, options = to_create, warm_up = own.warm_up },
    _tasks = task_group.new(),
    _idle = {},             -- { sandbox, since, is_fresh }, the oldest first
    _busy = 0,              -- sandboxes that are handed out, checked, or being deleted
    _create_tasks = {},     -- by a token that the task holds
    _backoff_task = {},     -- [1]: the task that waits for the end of the backoff
    _queue = {},            -- waiting AcquireRequests
    _watchers = {},         -- waiters in fill()
    _failures = 0,          -- failed creates since the last success
    _error = nil,           -- of the last failed create
    _backoff = backoffs.new(INITIAL_BACKOFF, MAX_BACKOFF, BACKOFF_FACTOR),
    _backoff_end = nil,     -- the Deadline before which no create for the reserve is started
    _closed = false,
  }, Pool)
  self._ref = setmetatable({ pool = self }, { __mode = "v" })
  local create_tasks, backoff_task = self._create_tasks, self._backoff_task
  self._finalizer = finalizer(function()
    for _, running in pairs(create_tasks) do running:cancel() end
    for _, running in pairs(backoff_task) do running:cancel() end
  end)
  client:add_close_listener(self)
  self:_reconcile()
  return self
end

-- Creates one sandbox and warms it up.
local function create_one(spec)
  local sandbox, err = spec.client:create(spec.options)
  if not sandbox then return nil, err end
  if not spec.warm_up then return sandbox end
  local ok, value, problem = coxpcall.pcall(spec.warm_up, sandbox)
  if ok and (value or problem == nil) and sandbox:owned_resource() then return sandbox end
  sandbox:discard()
  if ok then value = not value and problem or "it has closed or detached the sandbox" end
  if errors.is(value) then return nil, value end
  return nil, errors.new { kind = "state", code = "warm_up_failed", op = "pool", sandbox_id = sandbox.id,
    message = "warm_up failed: " .. tostring(value) }
end

-- Returns whether the pool is closed. For a forked child it always is, because its sandboxes and tasks are the parent's.
local function is_closed(self)
  return self._closed or self._process ~= core.process()
end

-- A task: creates one sandbox for the pool, if that still exists then.
local function create_task(ref, token, spec)
  local ok, sandbox, err = coxpcall.pcall(create_one, spec)
  if not ok then
    sandbox, err = nil, errors.is(sandbox) and sandbox
      or errors.new { kind = "state", code = "create_failed", op = "pool", message = tostring(sandbox) }
  end
  if ref.pool and not is_closed(ref.pool) then
    ref.pool:_on_create_done(token, sandbox, err)
  elseif sandbox then
    sandbox:discard()
  end
end

-- Returns the number of creates under way.
function Pool:_creating()
  local count = 0
  for token, running in pairs(self._create_tasks) do
    if running:done() then self._create_tasks[token] = nil else count = count + 1 end -- its host may have ended it
  end
  return count
end

-- Returns whether creates for the reserve have to wait.
local function is_backing_off(self)
  return self._backoff_end ~= nil and not self._backoff_end:has_passed()
end

function Pool:_on_create_done(token, sandbox, err)
  self._create_tasks[token] = nil
  local entry = { sandbox = sandbox, since = core.now(), is_fresh = true }
  if sandbox then
    self._failures, self._backoff_end = 0, nil
    self._backoff:reset()
    table.insert(self._idle, entry)
  else
    self._failures, self._error = self._failures + 1, err
    -- Several creates that fail together count once.
    if not is_backing_off(self) then self._backoff_end = deadlines.new(self._backoff:next()) end
    -- A request that another create can still serve continues to wait.
    if #self._queue > self:_creating() then table.remove(self._queue, 1):finish(nil, err) end
  end
  self:_reconcile()
  entry.is_fresh = false -- no request was waiting for it
  for _, watcher in pairs(self._watchers) do scheduler.wake(watcher) end
end

-- Counts a sandbox towards max_size until it is deleted, or detached by its user.
local function track(self, sandbox)
  local ref = self._ref
  pool_of[sandbox] = ref
  sandbox:owned_resource().on_release = function()
    if not ref.pool then return end
    ref.pool._busy = ref.pool._busy - 1
    ref.pool:_reconcile()
  end
  self._busy = self._busy + 1
end

-- Deletes the idle sandboxes that do not live long enough.
local function evict_expired(self)
  local oldest = self._idle[1]
  while oldest and core.now() - oldest.since > self._max_idle_time do
    table.remove(self._idle, 1)
    track(self, oldest.sandbox)
    oldest.sandbox:delete_in_background()
    oldest = self._idle[1]
  end
end

-- Returns how many creates to start now: one for each waiting request, and those for the reserve unless a backoff is under way.
local function creates_needed(self, creating)
  local idle = #self._idle
  local reserve = self.min_idle
  if self._failures > 0 then reserve = is_backing_off(self) and 0 or math.min(reserve, idle + 1) end
  local most = math.max(#self._queue, MAX_CONCURRENT_CREATES) - creating
  return math.min(#self._queue + reserve - idle - creating, self.max_size - self._busy - idle - creating, most)
end

-- Fills the reserve when the backoff is over.
local function schedule_retry(self)
  local running = self._backoff_task[1]
  if #self._idle >= self.min_idle or (running and not running:done()) then return end
  if not is_backing_off(self) then return end -- there is no capacity: the release of a sandbox reconciles again
  local ref, seconds = self._ref, self._backoff_end:remaining()
  self._backoff_task[1] = self._tasks:spawn(function()
    task.sleep(seconds)
    if not ref.pool then return end
    ref.pool._backoff_task[1] = nil
    ref.pool:_reconcile()
  end)
end

-- Assigns idle sandboxes to waiting requests and starts creates. It is called after every change, and never waits.
function Pool:_reconcile()
  if is_closed(self) then return end
  evict_expired(self)
  while self._queue[1] and self._idle[1] do
    local request, entry = table.remove(self._queue, 1), table.remove(self._idle, 1)
    track(self, entry.sandbox)
    request.is_fresh = entry.is_fresh
    request:finish(entry.sandbox)
  end
  local creating = self:_creating()
  for _ = 1, creates_needed(self, creating) do
    local ref, token, spec = self._ref, {}, self._create_spec
    self._create_tasks[token] = self._tasks:spawn(function() create_task(ref, token, spec) end)
    creating = creating + 1
  end
  if creating == 0 then schedule_retry(self) end
end

local function closed_error(op)
  return errors.new { kind = "closed", code = "closed", op = op, message = "the pool is closed" }
end

-- A call of acquire. It ends with a `sandbox` or an `err`.
local AcquireRequest = {}
AcquireRequest.__index = AcquireRequest

function AcquireRequest:finish(sandbox, err)
  self.sandbox, self.err = sandbox, err
  if self.waiter then scheduler.wake(self.waiter) end
end

-- Its position in the pool's queue, or nil.
function AcquireRequest:queue_position()
  for i, request in ipairs(self.pool._queue) do
    if request == self then return i end
  end
end

-- Called when the code that called acquire stops waiting, also when the host ends its coroutine.
function AcquireRequest:abandon()
  local position = self:queue_position()
  if position then table.remove(self.pool._queue, position) end
  if self.sandbox then self.sandbox:delete_in_background() end
end

-- Waits until a request has a sandbox, which was not checked yet.
local function wait_for_sandbox(self, op, request, limit)
  while true do
    self:_reconcile()
    if request.sandbox or request.err then return request.sandbox, request.err end
    if is_closed(self) then return nil, closed_error(op) end
    local left = limit:remaining()
    if limit:has_passed() then
      -- The time is for capacity. A request with a create under way waits for its outcome.
      if (request:queue_position() or 0) > self:_creating() then
        request:abandon()
        return nil, errors.timeout { op = op, code = "pool_exhausted", option = limit.option, seconds = limit.seconds,
          text = ("no sandbox became free in time, and all %d are in use"):format(self.max_size),
          hint = "Release sandboxes sooner, or raise the option max_size or " .. limit.option }
      end
      left = POLL_INTERVAL
    end
    local interruption, reason = loop.wait { seconds = left, registry = request, key = "waiter", owner = request }
    if interruption then
      request:abandon()
      return nil, loop.interrupted(op, interruption, reason)
    end
  end
end

-- Checks that an idle sandbox still responds, and renews its lifetime.
local function check(self, op, sandbox)
  local execd, err = sandbox:execd_endpoint(op)
  local client, ok = self.client:for_op(op), false
  if execd then ok, err = client:ping(execd, { timeout = PING_TIMEOUT }) end
  if ok and self._lifetime then ok, err = client:renew_sandbox(sandbox.id, self._lifetime) end
  return ok, err
end

local acquire_options = { timeout = "seconds or 0" }

--- Returns a sandbox that is ready, for one use: release it, or use `with`. It takes an idle one that answers and lives long enough, else
--- waits for a new one. Requests are served in their order.
--- ```lua
--- local sandbox = assert(pool:acquire { timeout = 10 })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds to wait for capacity, default: the pool's acquire_timeout; a create that is under way is waited for beyond that
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err kind `timeout`, code `pool_exhausted` when there was no capacity; else the error of the create
function Pool:acquire(opts)
  local op = "pool:acquire"
  opts = options.check(op, opts, acquire_options)
  local limit = deadlines.new(opts.timeout or self.acquire_timeout, opts.timeout and "timeout" or "acquire_timeout")
  local position = #self._queue + 1
  while true do
    if is_closed(self) then return nil, closed_error(op) end
    local request = setmetatable({ pool = self, sandbox = nil, err = nil, is_fresh = false, waiter = nil }, AcquireRequest)
    table.insert(self._queue, math.min(position, #self._queue + 1), request)
    local sandbox, err = wait_for_sandbox(self, op, request, limit)
    if not sandbox or request.is_fresh then return sandbox, err end
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
---@field failures integer failed creates since the last success

--- Returns the numbers of sandboxes.
--- ```lua
--- print(pool:stats().idle)
--- ```
---@return opensandbox.PoolStats
function Pool:stats()
  return { idle = #self._idle, busy = self._busy, creating = self:_creating(), failures = self._failures }
end

local time_options = { timeout = "seconds" }

--- Waits until `min_idle` sandboxes are ready, or as many as max_size allows beside those in use.
--- ```lua
--- assert(pool:fill { timeout = "2m" })
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_filled`; else the error of the last create
function Pool:fill(opts)
  local op = "pool:fill"
  local limit = deadlines.new(options.check(op, opts, time_options).timeout)
  self._backoff_end = nil -- this call is a reason to try again
  local failures = self._failures
  while true do
    self:_reconcile()
    if is_closed(self) then return nil, closed_error(op) end
    if #self._idle >= math.min(self.min_idle, self.max_size - self._busy) then return true end
    if self._failures > failures and self:_creating() == 0 then return nil, self._error end
    failures = math.min(failures, self._failures)
    if limit:has_passed() then
      return nil, errors.timeout { op = op, code = "not_filled", text = ("%d of %d sandboxes are ready"):format(#self._idle,
        self.min_idle), option = limit.option, seconds = limit.seconds, cause = self._error }
    end
    local interruption, reason = loop.wait { seconds = limit:remaining(), registry = self._watchers, key = {} }
    if interruption then return nil, loop.interrupted(op, interruption, reason) end
  end
end

-- Stops handing out and creating sandboxes.
local function stop(self)
  if is_closed(self) then return end
  self._closed = true
  for _, running in pairs(self._backoff_task) do running:cancel() end
  for _, request in ipairs(self._queue) do request:finish(nil, closed_error("pool:acquire")) end
  for _, watcher in pairs(self._watchers) do scheduler.wake(watcher) end
  self._queue = {}
end

local function cancel_creates(self)
  if self._process ~= core.process() then return end
  for _, running in pairs(self._create_tasks) do running:cancel() end
end

--- Internal: closes the pool without waiting. The client deletes the sandboxes.
---@return opensandbox.TaskGroup tasks that end soon
function Pool:on_client_close()
  stop(self)
  cancel_creates(self)
  return self._tasks
end

--- Closes the pool: deletes the idle sandboxes, and those whose create is under way, and waits until they are gone. Sandboxes that are
--- handed out continue until they are released. Waiting and later calls of acquire return an error. Closing the client does this too.
--- ```lua
--- assert(pool:close())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 30; the deletes continue in the background
---@return true? ok
---@return opensandbox.Error? err kind `timeout`, code `not_closed`
function Pool:close(opts)
  local op = "pool:close"
  local limit = deadlines.new(options.check(op, opts, time_options).timeout or CLOSE_TIMEOUT)
  stop(self)
  for _, entry in ipairs(self._idle) do
    self._tasks:spawn(function() entry.sandbox:discard() end)
  end
  self._idle = {}
  -- A create deletes its sandbox itself when the pool is closed. One that takes long continues in the background.
  if not self._tasks:join(deadlines.new(limit:clamp(CREATE_GRACE))) then cancel_creates(self) end
  if self._tasks:join(limit) then return true end
  return nil, errors.timeout { op = op, code = "not_closed", text = "not everything is deleted", option = limit.option,
    seconds = limit.seconds, hint = "The deletes continue in the background" }
end

function Pool:__close()
  self:close()
end

function Pool:__tostring()
  local stats = self:stats()
  return ("opensandbox.Pool: %d idle, %d busy, %d creating"):format(stats.idle, stats.busy, stats.creating)
end

class.check_colon(Pool, "pool")

return pool

--- A pool of sandboxes in this process, ready before they are wanted. (The server's pools are in `pools.lua`.)
--
-- All sandboxes are made by tasks in the background, for those who wait and for the reserve, and wait in `idle` until somebody takes
-- one. Who wants one queues up: first come, first served. A sandbox is used once; it keeps its place until it is gone, so that there
-- are never more than `max_size`.
--
-- Tasks and the hooks of sandboxes refer to the pool through a weak reference: one that nobody holds is collected, and its idle
-- sandboxes with it.

local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local create_options = require "opensandbox.lifecycle.create_options"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"
local coxpcall = require "opensandbox.loop.coxpcall"
local numbers = require "opensandbox.base.numbers"
local scheduler = require "opensandbox.loop.scheduler"
local task = require "opensandbox.loop.task"

---@class opensandbox.Pool
local Pool = {}
Pool.__index = Pool
Pool.__name = "opensandbox.Pool"

local pool = {}

local pool_of = setmetatable({}, { __mode = "k" }) -- by sandbox: the weak reference to the pool that handed it out
local retired = setmetatable({}, { __mode = "k" }) -- sandboxes whose deletion has been started

local DEFAULTS = { min_idle = 1, max_size = 10, acquire_timeout = 30 }
local CREATES_AT_ONCE = 8   -- for the reserve; those who wait have one each
local FIRST_REST = 0.5      -- seconds without a create for the reserve after one that failed; doubles
local LONGEST_REST = 60     -- seconds
local PING_TIMEOUT = 2      -- seconds
local LATE_LOOK = 1         -- seconds between looks of one who waits for a create beyond its time

local own_options = {
  min_idle = "natural", max_size = "natural", min_remaining_lifetime = "seconds or 0", warm_up = "function",
  acquire_timeout = "seconds or 0",
}
local sandbox_options = tables.merge(create_options.types, {
  ready_timeout = "seconds", on_state = "function", keep_alive = "seconds or false",
})

-- Who wants a sandbox. It ends up with a `sandbox` or an `err`.
local Ticket = {}
Ticket.__index = Ticket

function Ticket:wake()
  if self.waiter then scheduler.wake(self.waiter) end
end

--- Makes a pool and begins to fill it.
---@param client opensandbox.Client
---@param opts table those of create, and: min_idle (idle sandboxes to keep ready, default 1), max_size (sandboxes at once in all, default 10), min_remaining_lifetime (seconds of life that one must have left to be handed out, default a tenth of its timeout, at most 60), warm_up (called once with each new sandbox, before anybody gets it), acquire_timeout (seconds, default 30)
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
  own = tables.merge(DEFAULTS, own)
  if own.max_size < 1 then options.raise(op, "option 'max_size' must be at least 1") end
  if own.min_idle > own.max_size then
    options.raise(op, ("option 'min_idle' (%d) is more than option 'max_size' (%d)"):format(own.min_idle, own.max_size))
  end
  local timeout = create_options.lifetime(to_create)
  local min_remaining_lifetime = own.min_remaining_lifetime or math.min(60, (timeout or 0) / 10)
  if timeout and min_remaining_lifetime >= timeout then
    options.raise(op, ("option 'min_remaining_lifetime' must be less than the timeout of %s s"):format(numbers.format(timeout)))
  end
  local self = setmetatable({
    client = client, min_idle = own.min_idle, max_size = own.max_size, acquire_timeout = own.acquire_timeout,
    _timeout = timeout, -- of each sandbox; false: it never expires
    _usable = timeout and timeout - min_remaining_lifetime or math.huge, -- seconds that it may be idle
    _recipe = { client = client, options = to_create, warm_up = own.warm_up },
    _idle = {},      -- { sandbox, since }, the oldest first
    _busy = 0,       -- handed out, being looked at, being killed
    _creates = {},   -- tasks, by the token that each knows
    _rests = {},     -- the task, if any, that comes back when the rest after a failure is over
    _queue = {},     -- tickets
    _watchers = {},  -- who waits in fill()
    _failures = 0,   -- creates that failed since the last that worked
  }, Pool)
  self._ref = setmetatable({ pool = self }, { __mode = "v" })
  local creates, rests = self._creates, self._rests
  self._finalizer = finalizer(function()
    for _, one in pairs(creates) do one:cancel() end
    for _, one in pairs(rests) do one:cancel() end
  end)
  client:add_close_listener(self)
  self:_tend()
  return self
end

-- Kills a sandbox; when the server does not hear, at least closing the client tries again.
local function finish(sandbox)
  if not sandbox:kill() then sandbox:delete_in_background() end
end

-- Makes one sandbox by the recipe.
local function make(recipe)
  local sandbox, err = recipe.client:create(recipe.options)
  if not sandbox then return nil, err end
  if not recipe.warm_up then return sandbox end
  local ok, value, problem = coxpcall.pcall(recipe.warm_up, sandbox)
  if ok and (value or problem == nil) and sandbox:owned_resource() then return sandbox end
  finish(sandbox)
  if ok then value = not value and problem or "it has closed or detached the sandbox" end
  if errors.is(value) then return nil, value end
  return nil, errors.new { kind = "state", code = "warm_up_failed", op = "pool", sandbox_id = sandbox.id,
    message = "warm_up failed: " .. tostring(value) }
end

-- A task: makes one sandbox and brings it to the pool, if that is still there.
local function create(ref, token, recipe)
  local ok, sandbox, err = coxpcall.pcall(make, recipe)
  if not ok then
    sandbox, err = nil, errors.is(sandbox) and sandbox
      or errors.new { kind = "state", code = "create_failed", op = "pool", message = tostring(sandbox) }
  end
  if ref.pool and not ref.pool._closed then
    ref.pool:_made(token, sandbox, err)
  elseif sandbox then
    finish(sandbox)
  end
end

function Pool:_creating()
  local count = 0
  for token, one in pairs(self._creates) do
    if one:done() then self._creates[token] = nil else count = count + 1 end -- its host may have ended it
  end
  return count
end

-- The outcome of a create.
function Pool:_made(token, sandbox, err)
  self._creates[token] = nil
  local entry = { sandbox = sandbox, since = core.now(), is_fresh = true }
  if sandbox then
    self._failures, self._rest, self._rests_until = 0, nil, nil
    table.insert(self._idle, entry)
  else
    local now = core.now()
    self._failures, self._error = self._failures + 1, err
    if now >= (self._rests_until or 0) then -- several that fail together are one failure
      self._rest = self._rest and math.min(self._rest * 2, LONGEST_REST) or FIRST_REST
      self._rests_until = now + self._rest
    end
    -- Whoever could still be served by another create goes on waiting.
    if #self._queue > self:_creating() then
      local ticket = table.remove(self._queue, 1)
      ticket.err = err
      ticket:wake()
    end
  end
  self:_tend()
  entry.is_fresh = nil -- nobody has waited for it
  for _, watcher in pairs(self._watchers) do scheduler.wake(watcher) end
end

-- From now on the sandbox has a place that is free when it is gone, however it goes. May be called in a finalizer: it starts nothing.
local function occupy(self, sandbox)
  local ref = self._ref
  pool_of[sandbox] = ref
  sandbox:owned_resource().on_release = function()
    local there = ref.pool
    if not there then return end
    there._busy = there._busy - 1
    if there._queue[1] then there._queue[1]:wake() end
  end
  self._busy = self._busy + 1
end

-- Kills a sandbox that has a place, in the background.
local function retire(self, sandbox)
  if not sandbox:owned_resource() or retired[sandbox] then return end
  retired[sandbox] = true
  local ref = self._ref
  self.client.cleanup:spawn(function()
    finish(sandbox)
    if ref.pool then ref.pool:_tend() end
  end)
end

-- Sandboxes that will not live long enough are no use.
local function sort_out(self)
  local oldest = self._idle[1]
  while oldest and core.now() - oldest.since > self._usable do
    table.remove(self._idle, 1)
    occupy(self, oldest.sandbox)
    retire(self, oldest.sandbox)
    oldest = self._idle[1]
  end
end

-- How many creates to start now: one for each who waits, and the reserve, unless creates fail and it is not time to try again.
local function wanted(self, creating)
  local idle = #self._idle
  local reserve = self.min_idle
  if self._failures > 0 then
    reserve = core.now() >= (self._rests_until or 0) and math.min(reserve, idle + 1) or 0
  end
  local most = math.max(#self._queue, CREATES_AT_ONCE) - creating
  return math.min(#self._queue + reserve - idle - creating, self.max_size - self._busy - idle - creating, most)
end

-- Comes back to the reserve when the rest after a failure is over.
local function come_back(self)
  local one = self._rests[1]
  if not self._rests_until or #self._idle >= self.min_idle or (one and not one:done()) then return end
  local ref, seconds = self._ref, self._rests_until - core.now()
  if seconds <= 0 then return end -- all places are taken: who frees one comes here
  self._rests[1] = self.client.cleanup:spawn(function()
    task.sleep(seconds)
    if not ref.pool then return end
    ref.pool._rests[1] = nil
    ref.pool:_tend()
  end)
end

-- Does what there is to do: hands out, and starts creates. To be called whenever something has changed, but in a finalizer.
function Pool:_tend()
  if self._closed then return end
  sort_out(self)
  while self._queue[1] and self._idle[1] do
    local ticket = table.remove(self._queue, 1)
    local entry = table.remove(self._idle, 1)
    occupy(self, entry.sandbox)
    ticket.sandbox, ticket.is_fresh = entry.sandbox, entry.is_fresh
    ticket:wake()
  end
  local creating = self:_creating()
  for _ = 1, wanted(self, creating) do
    local ref, token, recipe = self._ref, {}, self._recipe
    self._creates[token] = self.client.cleanup:spawn(function() create(ref, token, recipe) end)
    creating = creating + 1
  end
  if creating == 0 then come_back(self) end
end

local function closed(op)
  return errors.new { kind = "closed", code = "closed", op = op, message = "the pool is closed" }
end

local function position(self, ticket)
  for i, one in ipairs(self._queue) do
    if one == ticket then return i end
  end
end

-- Nobody waits with this ticket any more.
function Ticket:abandon()
  local there = self.ref.pool
  if not there then return end
  local at = position(there, self)
  if at then table.remove(there._queue, at) end
  if self.sandbox then retire(there, self.sandbox) end
end

-- Waits until the ticket has a sandbox, which nobody has looked at yet.
local function wait_for_turn(self, op, ticket, timeout, deadline, option)
  while true do
    self:_tend()
    if ticket.sandbox or ticket.err then return ticket.sandbox, ticket.err end
    if self._closed then return nil, closed(op) end
    local left = deadline - core.now()
    if left <= 0 then
      -- The time is for a place. One who has it, and waits for a create, is told by that how it went.
      if (position(self, ticket) or 0) > self:_creating() then
        ticket:abandon()
        return nil, errors.timeout { op = op, code = "pool_exhausted", option = option, seconds = timeout,
          text = ("no sandbox was free in time, and all %d places are taken"):format(self.max_size),
          hint = "Release sandboxes sooner, or raise the option max_size or " .. option }
      end
      left = LATE_LOOK
    end
    local interruption, reason = loop.wait { seconds = left, registry = ticket, key = "waiter", owner = ticket }
    if interruption then
      ticket:abandon()
      return nil, loop.interrupted(op, interruption, reason)
    end
  end
end

-- Whether an idle sandbox still answers; it gets its whole life again.
local function check(self, sandbox)
  local execd, err = sandbox:execd_endpoint("pool:acquire")
  if not execd then return nil, err end
  local ok
  ok, err = self.client:ping(execd, { timeout = PING_TIMEOUT })
  if not ok then return nil, err end
  if self._timeout then
    ok, err = sandbox:renew(self._timeout)
    if not ok then return nil, err end
  end
  return true
end

local acquire_options = { timeout = "seconds or 0" }

--- A sandbox that is ready, for one use: release it, or use `with`. Takes an idle one that answers and has life enough left, else waits
--- for a new one. Who came first is served first.
---@param opts? table timeout (seconds to wait for a place when all are taken; default: the pool's acquire_timeout)
---@return opensandbox.Sandbox? sandbox
---@return opensandbox.Error? err kind `timeout`, code `pool_exhausted` when all places were taken; else why none could be made
function Pool:acquire(opts)
  local op = "pool:acquire"
  opts = options.check(op, opts, acquire_options)
  local timeout = opts.timeout or self.acquire_timeout
  local option = opts.timeout and "timeout" or "acquire_timeout"
  local deadline = core.now() + timeout
  local place = #self._queue + 1
  while true do
    if self._closed then return nil, closed(op) end
    local ticket = setmetatable({ ref = self._ref }, Ticket)
    table.insert(self._queue, math.min(place, #self._queue + 1), ticket)
    local sandbox, err = wait_for_turn(self, op, ticket, timeout, deadline, option)
    if not sandbox or ticket.is_fresh then return sandbox, err end
    local ok, good, problem = coxpcall.pcall(check, self, sandbox)
    if ok and good then return sandbox end
    retire(self, sandbox)
    if not ok then error(good, 0) end
    if problem.kind == "cancelled" or problem.kind == "closed" then
      problem.op = op
      return nil, problem
    end
    place = 1 -- it was first before
  end
end

--- Ends a sandbox of this pool, in the background, and makes room for another.
---@param sandbox opensandbox.Sandbox
---@return true
function Pool:release(sandbox)
  if type(sandbox) ~= "table" or pool_of[sandbox] ~= self._ref then
    options.raise("pool:release", "the sandbox must be one that this pool's acquire gave")
  end
  retire(self, sandbox)
  return true
end

local function after(self, sandbox, ok, ...)
  self:release(sandbox)
  if not ok then error((...), 0) end
  return ...
end

--- Calls a function with a sandbox, and `...`, and ends the sandbox afterwards, whatever happened. An error of the function is raised again.
---@param fn fun(sandbox: opensandbox.Sandbox, ...): any
---@return any ... what fn returned; nil and an error when there was no sandbox
function Pool:with(fn, ...)
  options.argument("pool:with", "the function", fn, "function")
  local sandbox, err = self:acquire()
  if not sandbox then return nil, err end
  return after(self, sandbox, coxpcall.pcall(fn, sandbox, ...))
end

---@class opensandbox.PoolStats
---@field idle integer ready to be handed out
---@field busy integer handed out, or on their way out
---@field creating integer
---@field failures integer creates that failed since the last that worked

--- How many sandboxes there are.
---@return opensandbox.PoolStats
function Pool:stats()
  return { idle = #self._idle, busy = self._busy, creating = self:_creating(), failures = self._failures }
end

--- Waits until `min_idle` sandboxes are ready, or as many as there is room for beside those in use.
---@return true? ok
---@return opensandbox.Error? err why the last one could not be made
function Pool:fill()
  local op = "pool:fill"
  self._rests_until = nil -- now is the time to try again
  local before = self._failures
  while true do
    self:_tend()
    if self._closed then return nil, closed(op) end
    if #self._idle >= math.min(self.min_idle, self.max_size - self._busy) then return true end
    if self._failures > before and self:_creating() == 0 then return nil, self._error end
    before = math.min(before, self._failures)
    local interruption, reason = loop.wait { registry = self._watchers, key = {} }
    if interruption then return nil, loop.interrupted(op, interruption, reason) end
  end
end

-- Closes it without waiting. Gives the tasks that clear away.
function Pool:on_client_close()
  if self._closed then return {} end
  self._closed = true
  local clearing = {}
  for _, tasks in ipairs { self._creates, self._rests } do
    for _, one in pairs(tasks) do
      one:cancel()
      clearing[#clearing + 1] = one
    end
  end
  for _, entry in ipairs(self._idle) do
    clearing[#clearing + 1] = self.client.cleanup:spawn(function() finish(entry.sandbox) end)
  end
  self._idle = {}
  for _, ticket in ipairs(self._queue) do ticket:wake() end
  for _, watcher in pairs(self._watchers) do scheduler.wake(watcher) end
  self._queue = {}
  return clearing
end

--- Ends the idle sandboxes and waits until they are gone. Those that are handed out go on until they are released. Whoever waits for
--- one gets an error, and so does every later acquire. Closing the client does this too.
---@return true
function Pool:close()
  for _, one in ipairs(self:on_client_close()) do
    one:join()
  end
  return true
end

Pool.__close = Pool.close

function Pool:__tostring()
  local stats = self:stats()
  return ("opensandbox.Pool: %d idle, %d busy, %d creating"):format(stats.idle, stats.busy, stats.creating)
end

class.check_colon(Pool, "pool")

return pool

--- The dispatcher of a pool: serves the requests of this process, and the reserve of idle sandboxes, from the pool's store.
--
-- One *pass* at a time sends the changes to the store, and asks it for sandboxes. A store that never waits is used at once, in
-- the code that has caused the change; any other one in a background task. Tasks and the hooks of sandboxes refer to the dispatcher through
-- a weak reference, so that a pool without other references is collected together with its idle sandboxes. A shared pool is held by its
-- sandboxes in use, whose leases it renews.

local acquire_queue = require "opensandbox.pool.acquire_queue"
local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local creates = require "opensandbox.pool.creates"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local holdings = require "opensandbox.pool.holdings"
local lazy = require "opensandbox.base.lazy"
local random = require "opensandbox.base.random"
local scheduler = require "opensandbox.loop.scheduler"
local task = require "opensandbox.loop.task"
local task_group = require "opensandbox.loop.task_group"

-- Files that are loaded when they are first needed.
local parts = lazy.modules { orphans = "opensandbox.pool.orphans" }

---@class opensandbox.PoolDispatcher
---@field session opensandbox.StoreSession
---@field queue opensandbox.AcquireQueue
---@field tasks opensandbox.TaskGroup creates and deletes
---@field watchers table waiters that each pass wakes
---@field failures integer failed creates since the last success
---@field error? opensandbox.Error of the last failed create
---@field closed boolean
---@field client_closed boolean the other processes delete the rest
local Dispatcher = {}
Dispatcher.__index = Dispatcher

local dispatcher = {}

local OP = "pool:acquire"         -- whose requests see the errors of a pass
local MAX_CONCURRENT_CREATES = 8  -- for the reserve; every waiting request has one in addition
local INITIAL_BACKOFF = 0.5       -- seconds without a create for the reserve after a failure
local MAX_BACKOFF = 60            -- seconds
local BACKOFF_FACTOR = 2
local MAX_TICK = 1                -- seconds between two passes of a shared pool
local TICKS_PER_LEASE = 8
local MAX_STORE_POLL = 0.5        -- seconds between two passes of a shared pool in which requests wait

--- Returns the error of calls after the pool was closed.
---@param op string
---@return opensandbox.Error
function dispatcher.closed_error(op)
  return errors.new { kind = "closed", code = "closed", op = op, message = "the pool is closed" }
end

--- Makes a dispatcher.
---@param facts { client: opensandbox.Client, session: opensandbox.StoreSession, is_shared: boolean, options: table, warm_up?: function, max_idle_time: number|false, adopt: fun(client: opensandbox.Client, op: string, handle: table): opensandbox.Sandbox?, opensandbox.Error? } options: of client:create; max_idle_time: seconds; adopt: makes the object of a handle
---@return opensandbox.PoolDispatcher
function dispatcher.new(facts)
  local tasks = task_group.new()
  local self = setmetatable({
    client = facts.client, session = facts.session, is_shared = facts.is_shared, max_idle_time = facts.max_idle_time,
    adopt = facts.adopt,
    process = core.process(),
    holdings = holdings.new(facts.session),
    tasks = tasks,
    creates = creates.new { client = facts.client, options = facts.options, warm_up = facts.warm_up, is_shared = facts.is_shared,
      tasks = tasks },
    kept = {},              -- by token: the idle sandboxes of a private pool
    timer = {},             -- { task, at }: the task that starts the next pass
    timers = task_group.new(),
    queue = acquire_queue.new(),
    watchers = {},
    failures = 0, error = nil,
    backoff = backoffs.new(INITIAL_BACKOFF, MAX_BACKOFF, BACKOFF_FACTOR),
    backoff_end = nil,      -- the Deadline before which no create for the reserve is started
    running_pass = nil,     -- { task? } while a pass runs
    pass_wanted = false,    -- something has changed since the pass began
    next_reap = 0,          -- on the clock of core.now()
    trim = false,           -- idle sandboxes above the limits are deleted
    store_poll = backoffs.new(nil, MAX_STORE_POLL),
    closed = false,
    client_closed = false,
  }, Dispatcher)
  self.ref = setmetatable({ dispatcher = self }, { __mode = "v" })
  local running, timer = self.creates, self.timer
  self.finalizer = finalizer(function()
    running:cancel()
    if timer.task then timer.task:cancel() end
  end)
  return self
end

--- Returns whether this process has made the pool, and not its parent.
---@return boolean
function Dispatcher:is_ours()
  return self.process == core.process()
end

--- Returns whether the pool is closed. For a forked child it always is, because its sandboxes and tasks are the parent's.
---@return boolean
function Dispatcher:is_closed()
  return self.closed or not self:is_ours()
end

--- Returns the number of creates under way, and how many of them are for the reserve.
---@return integer count
---@return integer for_reserve
function Dispatcher:creating()
  return self.creates:count(function(token) self.holdings:remove(token) end)
end

-- Starts to create the sandbox of a place that the store has reserved.
local function start_create(self, token, for_reserve)
  self.holdings:add(token)
  self.creates:start(self.ref, token, for_reserve)
end

-- Returns whether creates for the reserve have to wait.
local function is_backing_off(self)
  return self.backoff_end ~= nil and not self.backoff_end:has_passed()
end

--- Frees a place, whose sandbox is deleted or was never created.
function Dispatcher:release_place(token)
  self.holdings:remove(token)
  self:reconcile()
end

-- Hands a sandbox to the first request. It counts towards max_size until it is deleted, or detached by its user.
local function hand_over(self, token, sandbox, is_fresh)
  local ref, holder = self.ref, self.is_shared and self or nil
  sandbox:owned_resource().on_release = function()
    local owner = holder or ref.dispatcher
    holder = nil
    if owner then owner:release_place(token) end
  end
  if self.queue[1] then self.queue:finish_first(sandbox, nil, is_fresh) else sandbox:delete_in_background() end
end

-- Makes the place of a sandbox idle. In a shared pool its object is detached before, because another process may take the
-- place at once.
local function make_idle(self, token, sandbox, handle, lifetime)
  if self.is_shared then sandbox:detach() else self.kept[token] = sandbox end
  self.holdings:put(token, handle, lifetime)
end

--- Called when a create has ended.
---@param token string
---@param sandbox? opensandbox.Sandbox
---@param err? opensandbox.Error
function Dispatcher:on_create_done(token, sandbox, err)
  self.creates:remove(token)
  local handle
  if sandbox then handle, err = sandbox:handle() end -- sends nothing, because the endpoint is known
  if handle then
    self.failures, self.backoff_end = 0, nil
    self.backoff:reset()
    if self.queue[1] then
      self.holdings:assign(token, handle)
      hand_over(self, token, sandbox, true)
    else
      make_idle(self, token, sandbox, handle, self.max_idle_time)
    end
  else
    if sandbox then sandbox:discard() end
    self.holdings:remove(token)
    self.failures, self.error = self.failures + 1, err
    -- Several creates that fail together count once.
    if not is_backing_off(self) then self.backoff_end = deadlines.new(self.backoff:next()) end
    -- A request that another create can still serve continues to wait.
    if #self.queue > self:creating() then self.queue:finish_first(nil, err) end
  end
  self:reconcile()
end

-- Returns the object of a sandbox whose place was taken from the store.
local function object_of(self, response)
  local kept = self.kept[response.from]
  self.kept[response.from] = nil
  if kept then return kept end
  local ok, sandbox, err = coxpcall.pcall(self.adopt, self.client, OP, response.value)
  if ok and sandbox then return sandbox end
  return nil, self.session:error(OP, "store_foreign", "it holds a handle that cannot be used: " .. tostring(ok and err or sandbox))
end

--- Deletes the sandboxes that a dead process has left or that were idle for too long. With `trim`, deletes the idle sandboxes above the limits, too.
---@return true? ok
---@return opensandbox.Error? err of the store
function Dispatcher:reap()
  if self.holdings.has_surplus then self.trim, self.holdings.has_surplus = true, false end
  if self.is_shared and not self.trim and core.now() < self.next_reap then return true end
  local reaped = 0 -- they count until they are deleted
  while true do
    local token = random.hex(16)
    local response, err = self.session:perform(OP, "reap", { token = token, trim = self.trim, reaped = reaped })
    if not response then return nil, err end
    if not response.reaped then break end
    reaped = reaped + 1
    self.holdings:add(token, response.value)
    if response.value then
      local sandbox = object_of(self, response)
      if sandbox then
        local ref = self.ref
        sandbox:owned_resource().on_release = function()
          if ref.dispatcher then ref.dispatcher:release_place(token) end
        end
        self.tasks:spawn(function() sandbox:discard() end)
      else
        self.holdings:drop(token)
      end
    else
      local ref, client = self.ref, self.client
      self.tasks:spawn(function()
        local ended = parts.orphans.delete(client, response.label, response.left)
        if not ref.dispatcher then return end
        if ended then ref.dispatcher:release_place(token) else ref.dispatcher.holdings:drop(token) end
      end)
    end
  end
  self.trim = false
  self.next_reap = core.now() + self:tick()
  return true
end

-- Serves the first request from an idle place that was taken from the store.
local function serve_from(self, token, response)
  self.holdings:add(token, response.value)
  local sandbox, err = object_of(self, response)
  if not sandbox then
    self.holdings:drop(token)
    if self.queue[1] then self.queue:finish_first(nil, err) end
  elseif self.queue[1] then
    hand_over(self, token, sandbox, false)
  else -- the request has ended meanwhile
    make_idle(self, token, sandbox, response.value, response.left)
    return self.holdings:flush(OP)
  end
  return true
end

-- Serves the waiting requests. Returns the seconds after which the store may have more for them.
local function serve(self)
  local ok, err, response = true, nil, nil
  while ok and self.queue[1] do
    local creating, filling = self:creating()
    local lacking = #self.queue - (creating - filling) -- creates
    local token = random.hex(16)
    response, err = self.session:perform(OP, "acquire", { token = token, create = lacking > 0 })
    if not response then return nil, err end
    if response.value then
      ok, err = serve_from(self, token, response)
    else
      if response.create then start_create(self, token, false) end
      if not response.create or lacking == 1 then break end
    end
  end
  for _, request in ipairs(self.queue) do request.answered = true end
  return ok, err, response and response.wait
end

-- Starts creates for the reserve. Returns the seconds after which the store may allow more.
local function fill_reserve(self)
  local counts = self.session.counts
  while true do
    local creating, filling = self:creating()
    local surplus = math.max(0, creating - filling - #self.queue) -- creates whose request has ended
    if creating >= math.max(#self.queue, MAX_CONCURRENT_CREATES) then return true end
    if self.failures > 0 and (is_backing_off(self) or creating > #self.queue) then return true end
    if counts and counts.idle + surplus >= counts.min_idle then return true end
    local token = random.hex(16)
    local response, err = self.session:perform(OP, "fill", { token = token, coming = surplus })
    if not response then return nil, err end
    counts = response
    if not response.create then return true, nil, response.wait end
    start_create(self, token, true)
  end
end

-- Sends the changes, and serves requests and the reserve. Returns the seconds until the next pass that something waits for.
local function pass(self)
  local ok, err = self.holdings:flush(OP)
  if ok and self.is_shared and not self.client_closed then ok, err = self.holdings:renew(OP) end
  if not ok or self:is_closed() then return ok, err end
  local wait, fill_wait
  ok, err = self:reap()
  if ok then ok, err, wait = serve(self) end
  if ok then ok, err, fill_wait = fill_reserve(self) end
  return ok, err, math.min(wait or math.huge, fill_wait or math.huge)
end

--- Returns the seconds between two passes of a shared pool in which nothing happens.
---@return number
function Dispatcher:tick()
  return math.min(MAX_TICK, self.session.lease / TICKS_PER_LEASE)
end

-- Returns whether a pool that stops has nothing left to do. A worker of nginx that exits waits for all timers.
local function is_over(self)
  if self.client_closed or not self:is_ours() then return true end
  local ngx = rawget(_G, "ngx")
  local is_stopping = self.closed or (ngx and ngx.worker and ngx.worker.exiting() and not self.queue[1])
  return is_stopping and self.holdings:is_empty() and self:creating() == 0
end

-- Starts the next pass after some seconds, unless one starts earlier.
local function pass_after(self, seconds)
  local timer, at = self.timer, core.now() + seconds
  if timer.task and not timer.task:done() then
    if timer.at <= at then return end
    timer.task:cancel()
  end
  local ref = self.ref
  timer.at = at
  timer.task = self.timers:spawn(function()
    if not task.sleep(seconds) or not ref.dispatcher then return end
    ref.dispatcher.timer.task = nil
    ref.dispatcher:reconcile()
  end)
end

-- Starts the timer of the next pass, if anything waits for it.
local function schedule(self, wait)
  if is_over(self) then return end
  if self.is_shared then
    if self.queue[1] then wait = math.min(wait, self.store_poll:next()) else self.store_poll:reset() end
    wait = math.min(wait, self:tick())
  end
  local counts = self.session.counts
  local lacks = counts and counts.idle < counts.min_idle
  if not self:is_closed() and lacks and is_backing_off(self) and self:creating() == 0 then
    wait = math.min(wait, self.backoff_end:remaining())
  end
  if wait < math.huge then pass_after(self, wait) end
end

-- Runs passes until nothing has changed during the last one.
local function run_passes(self)
  local called, ok, err, wait
  repeat
    self.pass_wanted = false
    called, ok, err, wait = coxpcall.pcall(pass, self)
  until not called or not ok or not self.pass_wanted
  self.running_pass = nil
  if not called then error(ok, 0) end
  if not ok then
    -- Every process renews its leases first when the store answers again.
    self.next_reap = core.now() + self.session.lease / 2
    self.queue:fail_until(self:creating(), err)
  end
  schedule(self, wait or math.huge)
  scheduler.wake_all(self.watchers)
end

--- Starts a pass. It is called after every change, and never waits: only a store that does not wait itself is used at once.
function Dispatcher:reconcile()
  if not self:is_ours() then return end
  self.pass_wanted = true
  if self.running_pass and not (self.running_pass.task and self.running_pass.task:done()) then return end
  self.running_pass = {}
  if self.session.store.immediate then return run_passes(self) end
  local ref = self.ref
  self.running_pass.task = self.client.cleanup:spawn(function()
    if ref.dispatcher then run_passes(ref.dispatcher) end
  end)
end

--- Stops handing out and creating sandboxes.
function Dispatcher:stop()
  if self:is_closed() then return end
  self.closed = true
  if self.timer.task then self.timer.task:cancel() end
  self.timer.task = nil
  self.queue:fail_until(0, dispatcher.closed_error(OP))
  scheduler.wake_all(self.watchers)
  if self.is_shared then self:reconcile() end -- the leases of sandboxes in use are renewed until they are released
end

--- Cancels the creates under way, which delete their sandboxes.
function Dispatcher:cancel_creates()
  if self:is_ours() then self.creates:cancel() end
end

--- Deletes all idle sandboxes of a pool that is closed, in tasks.
function Dispatcher:delete_idle()
  if not self:is_ours() then return end
  self.session:perform(OP, "resize", { min_idle = 0, max_size = 0 })
  self.trim = true
  self:reap()
end

--- Called when the client is closed, which deletes the sandboxes in use.
---@return opensandbox.TaskGroup tasks that end soon
function Dispatcher:on_client_close()
  self.client_closed = true
  self:stop()
  self:cancel_creates()
  return self.tasks
end

return dispatcher

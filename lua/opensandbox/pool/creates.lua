--- The creates of a pool that are under way in this process. Each runs in a task, for a place that the store has reserved.

local coxpcall = require "opensandbox.loop.coxpcall"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local objects = require "opensandbox.lifecycle.objects"
local tables = require "opensandbox.base.tables"

---@class opensandbox.PoolCreates
---@field running table<string, { task: opensandbox.Task, for_reserve: boolean }> by token
local PoolCreates = {}
PoolCreates.__index = PoolCreates

local creates = {}

--- Makes an empty set.
---@param facts { client: opensandbox.Client, options: table, warm_up?: function, is_shared: boolean, tasks: opensandbox.TaskGroup } options: of client:create
---@return opensandbox.PoolCreates
function creates.new(facts)
  return setmetatable({ facts = facts, running = {} }, PoolCreates)
end

-- Creates the sandbox of a place and warms it up. In a shared pool it carries a label, by which another process finds it if this one dies.
local function create_one(facts, token)
  local opts = facts.options
  if facts.is_shared then
    opts = tables.merge(opts, { metadata = tables.merge(opts.metadata or {}, { [objects.POOL_LABEL] = token }) })
  end
  local sandbox, err = facts.client:create(opts)
  if not sandbox then return nil, err end
  if not facts.warm_up then return sandbox end
  local ok, value, problem = coxpcall.pcall(facts.warm_up, sandbox)
  if ok and (value or problem == nil) and sandbox:owned_resource() then return sandbox end
  sandbox:discard()
  if ok then value = not value and problem or "it has closed or detached the sandbox" end
  if errors.is(value) then return nil, value end
  return nil, errors.new { kind = "state", code = "warm_up_failed", op = "pool", sandbox_id = sandbox.id,
    message = "warm_up failed: " .. tostring(value) }
end

-- A task: creates the sandbox of a place for the pool, if that still exists and is open then.
local function create_task(ref, token, facts)
  local ok, sandbox, err = coxpcall.pcall(create_one, facts, token)
  if not ok then
    sandbox, err = nil, errors.is(sandbox) and sandbox
      or errors.new { kind = "state", code = "create_failed", op = "pool", message = tostring(sandbox) }
  end
  if ref.dispatcher and not ref.dispatcher:is_closed() then return ref.dispatcher:on_create_done(token, sandbox, err) end
  if sandbox then sandbox:discard() end
  if ref.dispatcher then ref.dispatcher:release_place(token) end
end

--- Starts a create.
---@param ref { dispatcher?: opensandbox.PoolDispatcher } a weak reference to the code that receives the outcome
---@param token string of the place
---@param for_reserve boolean no request waits for it
function PoolCreates:start(ref, token, for_reserve)
  local facts = self.facts
  self.running[token] = { for_reserve = for_reserve, task = facts.tasks:spawn(function() create_task(ref, token, facts) end) }
end

--- Removes a create that has ended.
function PoolCreates:remove(token)
  self.running[token] = nil
end

--- Returns the number of creates under way, and how many of them are for the reserve.
---@param on_ended fun(token: string) called with each place whose create the host has ended without notice
---@return integer count
---@return integer for_reserve
function PoolCreates:count(on_ended)
  local count, for_reserve = 0, 0
  for token, create in each(self.running) do
    if create.task:done() then
      self.running[token] = nil
      on_ended(token)
    else
      count = count + 1
      if create.for_reserve then for_reserve = for_reserve + 1 end
    end
  end
  return count, for_reserve
end

--- Cancels all creates.
function PoolCreates:cancel()
  for _, create in each(self.running) do create.task:cancel() end
end

return creates

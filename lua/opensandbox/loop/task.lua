--- Tasks: functions that run concurrently in one thread. While one task waits for the network, a time or another task, the others run.

local class = require "opensandbox.base.class"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"

--- A function that runs concurrently with others in one thread: `opensandbox.spawn`.
--- ```lua
--- local task = opensandbox.spawn(function() return sandbox:run("make test") end)
--- local result, err = task:wait()
--- ```
---@class opensandbox.Task
---@field waiters table<table, opensandbox.Waiter> internal: the code that waits for the end
---@field waiter? opensandbox.Waiter|false internal: of the task's own coroutine, until its function has returned
---@field is_owned? boolean internal: code that is certain to wait for the end reports its error
---@field on_end? fun(task: opensandbox.Task) internal
---@field ended? boolean internal
---@field results? table internal: the results of the function, with their number `n`
---@field failure? { value: any } internal: the error that the function raised
---@field unhandled? { text?: string } internal: the report of an error for which no code waits yet
---@field cancelling? boolean internal
---@field cancel_delivered? boolean internal: a wait has reported the cancellation
local Task = {}
Task.__index = Task
Task.__name = "opensandbox.Task"

local task = {}

local NO_MEMORY = { value = scheduler.NO_MEMORY } -- the failure of a task whose outcome could not be kept

local ORDINARY = {} -- how most tasks are started, see `start`

local alive = {} -- luacheck: ignore 241 (tasks that have not ended: callers need not keep them)

local pack = table.pack or function(...) return { n = select("#", ...), ... } end -- luacheck: std max
local unpack = table.unpack or unpack -- luacheck: std max

local function cancelled_error()
  return errors.new { kind = "cancelled", code = "cancelled", op = "spawn", message = "the task was cancelled" }
end

-- Reports an error that no code has waited for when the task object is collected, or at the latest when the state closes.
local function report_if_unhandled(self, value, trace)
  local unhandled = { text = "opensandbox: a task failed, and nobody waited for it: " .. tostring(value) .. (trace or "") }
  self.unhandled = unhandled
  unhandled.finalizer = finalizer(function()
    if unhandled.text then loop.report(unhandled.text) end
  end)
  if next(self.waiters) == nil then loop.unhandled_error() end
end

-- Adds a hint to the message of PUC Lua 5.1, which does not name the remedy.
local function with_hint(value)
  local is_it = type(value) == "string" and value:find("attempt to yield across metamethod/C-call boundary", 1, true)
  if not is_it then return value end
  return value .. ": on Lua 5.1 a task cannot wait inside pcall or a for loop's iterator; "
    .. "use opensandbox.pcall, and :next() or :read() in a while loop"
end

-- Sets the outcome of a task: its results or its failure.
local function set_outcome(self, ok, ...)
  local value, second = ...
  if not ok then value = with_hint(value) end
  local err = value
  if ok then
    self.results = pack(...)
    err = value == nil and errors.is(second) and second or nil
  end
  local was_cancelled = self.cancelling and errors.is(err) and err.kind == "cancelled"
  if not ok then
    if was_cancelled then self.results = pack(nil, err) else self.failure = { value = value } end
  end
  if not was_cancelled and (not ok or err) and not self.is_owned then report_if_unhandled(self, err, not ok and second or nil) end
end

-- Ends a task, with `ok` and the function's results, or with false, the error and its traceback. If this raises an error, because memory
-- runs out, it is called again.
local function finish(self, ok, ...)
  if not self.ended then
    local is_set, problem = pcall(set_outcome, self, ok, ...)
    if not is_set and not self.results and not self.failure then
      self.failure = problem == scheduler.NO_MEMORY and NO_MEMORY or { value = problem }
    end
    alive[self] = nil
    self.ended = true
  end
  scheduler.wake_all(self.waiters)
  if self.on_end then self.on_end(self) end
end

-- Starts a task. `how` has: is_detached, on_end, is_owned.
local function start(how, fn, ...)
  local self = setmetatable({
    waiters = {}, on_end = how.on_end, is_owned = how.is_owned,
    waiter = false, ended = false, results = false, failure = false, -- so that setting them needs no memory
  }, Task)
  local arguments = pack(...)
  loop.spawn(self, function()
    alive[self] = true
    if self.cancelling then
      finish(self, false, cancelled_error())
    else
      finish(self, coxpcall.xpcall(fn, unpack(arguments, 1, arguments.n)))
    end
  end, how.is_detached)
  return self
end

--- Starts a function as a task. The function does not run before this returns: it starts when the caller waits, returns to the host's
--- loop or ends.
--- ```lua
--- local task = opensandbox.spawn(function() return assert(sandbox:run("make test")) end)
--- print(task:wait().exit_code)
--- ```
---@param fn function
---@param ... any its arguments
---@return opensandbox.Task
function task.spawn(fn, ...)
  options.argument("spawn", "the function", fn, "function")
  return start(ORDINARY, fn, ...)
end

--- Starts a function that does not work for the caller: it continues when the host ends the caller's coroutine.
---@param fn fun()
---@param on_end fun(task: opensandbox.Task) called when the task has ended, also if it failed or was cancelled; twice if memory runs out
---@return opensandbox.Task
function task.spawn_detached(fn, on_end)
  return start({ is_detached = true, on_end = on_end }, fn)
end

--- Returns whether the task has ended, successfully or not.
--- ```lua
--- if task:done() then print(task:wait()) end
--- ```
---@return boolean
function Task:done()
  return self.ended == true
end

-- Returns the results of the function of a task that has ended, or raises its error again.
local function outcome(self)
  if self.failure then error(self.failure.value, 0) end
  return unpack(self.results, 1, self.results.n)
end

-- Waits for the end of a task. Returns nothing when the task ended, "timeout" when the deadline passed, or the results of an interrupted
-- loop.wait(). `shielded` and `owner` are those of the wait.
local function join(self, deadline, shielded, owner)
  local wait = scheduler.expect { registry = self.waiters, key = {}, shielded = shielded, owner = owner }
  while not self.ended do
    if deadline:has_passed() then return "timeout" end
    wait.seconds = deadline:remaining()
    local interruption, reason = loop.wait(wait)
    if interruption then return interruption, reason end
  end
  if self.unhandled then self.unhandled.text = nil end
end

local wait_options = { timeout = "seconds" }

--- Waits for the end of the task and returns the results of its function. An error that the function raised is raised again.
---
--- Returns nil and an error if the task was cancelled (kind `cancelled`), if the timeout has passed (kind `timeout`; the task continues),
--- or if the waiting task itself was cancelled.
--- ```lua
--- local result, err = task:wait { timeout = 60 }
--- ```
---@param opts? { timeout?: opensandbox.Duration }|opensandbox.Duration default: as long as the task runs
---@return any ... the results of the function
function Task:wait(opts)
  if type(opts) == "number" or type(opts) == "string" then opts = { timeout = opts } end
  opts = options.check("task:wait", opts, wait_options)
  local interruption, reason = join(self, deadlines.new(opts.timeout))
  if interruption == "timeout" then
    return nil, errors.timeout { op = "task:wait", code = "wait_timeout", text = "the task has not ended", option = "timeout",
      seconds = opts.timeout, hint = "It continues: wait again, or cancel it" }
  elseif interruption then
    return nil, loop.interrupted("task:wait", interruption, reason)
  end
  return outcome(self)
end

--- Internal: waits for a task that works for the running code alone. The task is cancelled when this wait is interrupted or abandoned.
---@param op string the method that the user called
---@return any ... the results of its function, or nil and an error
function Task:join_own(op)
  local interruption, reason = join(self, deadlines.new(), false, { abandon = function() self:cancel() end })
  if not interruption then return outcome(self) end
  self:cancel()
  return nil, loop.interrupted(op, interruption, reason)
end

--- Internal: returns whether the running code is that of this task.
---@return boolean
function Task:is_current()
  return not self.ended and loop.current_task() == self
end

--- Internal: waits for the end and ignores the outcome. A cancelled task may call this.
---@param seconds? number default: no limit
function Task:join(seconds)
  join(self, deadlines.new(seconds), true)
end

--- Cancels the task. The call of this library in which it waits returns nil and an error of kind `cancelled`. Its connection is closed,
--- and a command that it runs is stopped on the server. Later calls that wait raise that error, except those that delete or stop
--- something: kill, close, delete_sandbox, interrupt_command. A task that has not started never runs.
--- ```lua
--- task:cancel()
--- ```
---@return boolean was_running
function Task:cancel()
  if self.ended then return false end
  self.cancelling = true
  local waiter = self.waiter
  if waiter and waiter.parked and not waiter.parked.shielded then scheduler.wake(waiter) end
  return true
end

--- Internal: for a wait of this task. Returns nil if the task is not being cancelled, "first" if this wait is the first to report the
--- cancellation, and "again" if a wait has reported it before.
---@return "first"|"again"|nil
function Task:deliver_cancel()
  if not self.cancelling then return nil end
  if self.cancel_delivered then return "again" end
  self.cancel_delivered = true
  return "first"
end

--- Internal: sets the waiter of the task's coroutine, for `cancel`.
---@param waiter? opensandbox.Waiter nil after the function has returned
function Task:set_waiter(waiter)
  if waiter then waiter.task = self else self.waiter.task = nil end
  self.waiter = waiter
end

--- Waits for some time, while other tasks run.
--- ```lua
--- opensandbox.sleep(0.5)
--- ```
---@param seconds opensandbox.Duration
---@return true? ok
---@return opensandbox.Error? err when the task was cancelled
function task.sleep(seconds)
  seconds = options.argument("sleep", "the seconds", seconds, "seconds or 0")
  local err = loop.sleep("sleep", seconds)
  return not err and true or nil, err
end

local map_options = { concurrency = "natural" }
local DEFAULT_CONCURRENCY = 16

--- Calls a function for each item of a list, several at a time, and waits for all calls.
---
--- `results[i]` is the first result of `fn(items[i], i)`. If the function returned nil and an error, `errors[i]` is that error. If it
--- raises an error, the other calls are cancelled and waited for, and the error is raised. After an error `results` has a hole, so count
--- to `#items` instead of using `ipairs(results)`.
--- ```lua
--- local results, errors = opensandbox.map({ "3.11", "3.12" }, function(version)
---   local sandbox = assert(client:create { image = "python:" .. version })
---   return sandbox:run("python3 --version")
--- end, { concurrency = 8 })
--- for i = 1, 2 do print(results[i] and results[i].stdout or errors[i]) end
--- ```
---@param items any[]
---@param fn fun(item: any, index: integer): any, any
---@param opts? { concurrency?: integer } concurrency: the number of calls at a time, default 16
---@return any[]? results nil when the calling task was cancelled
---@return table<integer, any>|opensandbox.Error|nil errors nil when there was none
function task.map(items, fn, opts)
  local op = "map"
  options.argument(op, "the items", items, "table")
  options.argument(op, "the function", fn, "function")
  opts = options.check(op, opts, map_options)
  if opts.concurrency == 0 then options.raise(op, "option 'concurrency' must be greater than 0") end
  return task.map_for(op, items, fn, opts.concurrency)
end

--- Internal: does the same for another method.
---@param op string the method that the user called
---@param items any[]
---@param fn fun(item: any, index: integer): any, any
---@param concurrency? integer
---@return any[]? results
---@return table<integer, any>|opensandbox.Error|nil errors
function task.map_for(op, items, fn, concurrency)
  local results, failures = {}, nil
  local workers, next_index = {}, 1
  local first_failure
  local function stop()
    next_index = #items + 1
    for _, worker in ipairs(workers) do worker:cancel() end
  end
  local function on_end(worker)
    if not worker.failure then return end
    first_failure = first_failure or worker.failure
    stop()
  end
  local function work()
    while next_index <= #items do
      local index = next_index
      next_index = index + 1
      local value, err = fn(items[index], index)
      results[index] = value
      if value == nil and err ~= nil then
        failures = failures or {}
        failures[index] = err
      end
    end
  end
  local how = { on_end = on_end, is_owned = true }
  for i = 1, math.min(#items, concurrency or DEFAULT_CONCURRENCY) do
    local started, worker = pcall(start, how, work)
    if not started then -- by the host, or because memory has run out
      first_failure = { value = worker }
      stop()
      break
    end
    workers[i] = worker
  end
  local no_limit = deadlines.new()
  local interruption, reason
  for _, worker in ipairs(workers) do
    if not interruption then
      interruption, reason = join(worker, no_limit)
      if interruption then stop() end
    end
    if interruption then join(worker, no_limit, true) end
  end
  if interruption then return nil, loop.interrupted(op, interruption, reason) end
  if first_failure then error(first_failure.value, 0) end
  return results, failures
end

--- Internal: ends the task with an error that was raised outside of its function, which will never continue. It completes the end of a task
--- that has ended, but whose waiters may not know it.
---@param problem any
function Task:fail(problem)
  finish(self, false, problem)
end

--- Internal: called when the host has ended the coroutine of this task, which will never continue.
function Task:abandon()
  self.cancelling = true
  finish(self, false, cancelled_error())
end

class.check_colon(Task, "task")

return task

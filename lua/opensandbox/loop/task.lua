--- Tasks: functions that run beside each other in one thread. Whenever one waits, for the network, for a time, for another, the
--- others go on.

local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local protect = require "opensandbox.loop.coxpcall"
local scheduler = require "opensandbox.loop.scheduler"

---@class opensandbox.Task
local Task = {}
Task.__index = Task
Task.__name = "opensandbox.Task"

local task = {}

local alive = {} -- luacheck: ignore 241 (tasks that have not ended: nobody else needs to hold on to them)

local pack = table.pack or function(...) return { n = select("#", ...), ... } end -- luacheck: std max
local unpack = table.unpack or unpack -- luacheck: std max

local function never_ran()
  return errors.new { kind = "cancelled", code = "cancelled", op = "spawn", message = "the task was cancelled" }
end

-- An error that nobody has waited for is told when the task object is collected, at the latest when the state closes.
local function watch_unheard(self, value, trace)
  local unheard = { text = "opensandbox: a task failed, and nobody waited for it: " .. tostring(value) .. (trace or "") }
  self.unheard = unheard
  unheard.finalizer = finalizer(function()
    if unheard.text then loop.report(unheard.text) end
  end)
  if next(self.waiters) == nil then loop.failed() end
end

-- What PUC Lua 5.1 says of it does not tell what to do.
local function with_hint(value)
  local is_it = type(value) == "string" and value:find("attempt to yield across metamethod/C-call boundary", 1, true)
  if not is_it then return value end
  return value .. ": on Lua 5.1 a task cannot wait inside pcall or a for loop's iterator; "
    .. "use opensandbox.pcall, and :next() or :read() in a while loop"
end

-- The end of a task: `ok` and the function's results, or false, the error and its traceback.
local function finish(self, ok, ...)
  alive[self] = nil
  self.ended = true
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
  if not was_cancelled and (not ok or err) then watch_unheard(self, err, not ok and second or nil) end
  for _, waiter in pairs(self.waiters) do scheduler.wake(waiter) end
end

local function start(in_background, fn, ...)
  local self = setmetatable({ waiters = {} }, Task)
  local arguments = pack(...)
  alive[self] = true
  loop.spawn(self, function()
    if self.cancelling then
      finish(self, false, never_ran())
    else
      finish(self, protect.traced(fn, unpack(arguments, 1, arguments.n)))
    end
  end, in_background)
  return self
end

--- Starts a function as a task. It begins when the caller waits, returns to the host's loop or ends, not before this returns.
---@param fn function
---@param ... any its arguments
---@return opensandbox.Task
function task.spawn(fn, ...)
  options.argument("spawn", "the function", fn, "function")
  return start(false, fn, ...)
end

--- Starts a function that works for a client, and not for whoever called us: it goes on when the host ends the caller's coroutine.
--- Closing the client waits for it, for a moment.
---@return opensandbox.Task
function task.background(client, fn)
  local one
  one = start(true, function()
    fn()
    client._clearing[one] = nil
  end)
  client._clearing[one] = true
  return one
end

--- Whether the task has ended, well or not.
---@return boolean
function Task:done()
  return self.ended == true
end

-- Waits for the end of a task. What loop.wait() gives when that was stopped; "late" when the time was over.
local function join(self, seconds, shielded)
  local deadline = seconds and scheduler.now() + seconds
  while not self.ended do
    local left = deadline and deadline - scheduler.now()
    if left and left <= 0 then return "late" end
    local stopped, detail = loop.wait { seconds = left, registry = self.waiters, key = {}, shielded = shielded }
    if stopped then return stopped, detail end
  end
  if self.unheard then self.unheard.text = nil end
end

--- Waits for the end of the task and gives what its function returned; what it raised is raised again.
---
--- Nil and an error when the task was cancelled (kind `cancelled`), when `seconds` have passed (kind `timeout`; the task goes on), or when
--- the waiting task itself was cancelled.
---@param seconds? number
---@return any ...
function Task:wait(seconds)
  if seconds ~= nil then options.argument("wait", "the seconds", seconds, "seconds") end
  local stopped, detail = join(self, seconds)
  if stopped == "late" then
    return nil, errors.new { kind = "timeout", code = "wait_timeout", op = "wait", clock = "seconds",
      message = ("the task has not ended in %g s"):format(seconds), hint = "It goes on: wait again, or cancel it" }
  elseif stopped then
    return nil, loop.stop("wait", stopped, detail)
  end
  if self.failure then error(self.failure.value, 0) end
  return unpack(self.results, 1, self.results.n)
end

--- Waits for the end, at most `seconds`, whatever it is.
function Task:_join(seconds)
  join(self, seconds, true)
end

--- Cancels the task. A call of this library that it waits in returns nil and an error of kind `cancelled`, its connection is closed, and
--- a command that it runs is stopped on the server; any later call that waits raises that error, except those that end things: kill,
--- close, delete_sandbox, interrupt_command. A task that has not begun never does.
---@return boolean whether it was still running
function Task:cancel()
  if self.ended then return false end
  self.cancelling = true
  local waiter = self.waiter
  if waiter and waiter.parked and not waiter.parked.shielded then scheduler.wake(waiter) end
  return true
end

--- Waits for some time, while other tasks go on.
---@param seconds number
---@return true? ok
---@return opensandbox.Error? err when the task was cancelled
function task.sleep(seconds)
  options.argument("sleep", "the seconds", seconds, "seconds or 0")
  local err = loop.pause("sleep", seconds)
  return not err and true or nil, err
end

local map_options = { concurrency = "count" }
local CONCURRENCY = 16

--- Calls a function for each item of a list, several at a time, and waits for all.
---
--- `results[i]` is the first thing that `fn(items[i], i)` returned. Where it returned nil and an error, `errors[i]` is that error. When it
--- raises, the others are cancelled and waited for, and the error is raised.
---@param items any[]
---@param fn fun(item: any, index: integer): any
---@param opts? table concurrency (how many at a time, default 16)
---@return any[]? results nil when the calling task was cancelled
---@return table<integer, any>|opensandbox.Error|nil errors nil when there was none
function task.map(items, fn, opts)
  local op = "map"
  options.argument(op, "the items", items, "table")
  options.argument(op, "the function", fn, "callable")
  opts = options.check(op, opts, map_options)
  if opts.concurrency == 0 then options.raise(op, "option 'concurrency' must be greater than 0") end
  local results, failures, broken = {}, nil, nil
  local workers, next_index = {}, 1
  local function stop()
    next_index = #items + 1
    for _, worker in ipairs(workers) do worker:cancel() end
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
  local function worker()
    local ok, value = protect.traced(work)
    if ok or broken then return end
    broken = { value = value }
    stop()
  end
  for i = 1, math.min(#items, opts.concurrency or CONCURRENCY) do workers[i] = task.spawn(worker) end
  local stopped, detail
  for _, one in ipairs(workers) do
    if not stopped then
      stopped, detail = join(one)
      if stopped then stop() end
    end
    if stopped then join(one, nil, true) end
  end
  if stopped then return nil, loop.stop(op, stopped, detail) end
  if broken then error(broken.value, 0) end
  return results, failures
end

-- The host ended the coroutine of this task, and it will never go on.
function Task:_abandon()
  self.cancelling = true
  finish(self, false, never_ran())
end

return task

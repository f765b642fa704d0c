--- The adapter for programs without an event loop. Tasks are coroutines of our own. The scheduler resumes them whenever a caller blocks.
--
-- The interface of every adapter:
--   name
--   spawn(body, detached, task)
--                              starts a function in a coroutine that can wait; detached: it continues when the running coroutine ends;
--                              task: the adapter may call its `set_waiter` with the coroutine's waiter before the function runs
--   waiter(coroutine, chosen)  returns the waiter of a coroutine, each time the same, or nil if the coroutine cannot be suspended here;
--                              chosen: the user chose the adapter by options.loop
--   block(waiter)              waits in code that cannot be suspended
--   unblock()                  a blocking wait has ended: make block() return soon
--   refusal()                  returns the reason why blocking is not allowed here, or nil
--   changed()                  there is something else to wait for
--   unhandled_error()          a task has failed, and no code waits for it yet
--   report(text)               reports an error that no code waits for
-- Functions that an adapter does not have are those of this file. scheduler.lua describes the fields of a waiter. An adapter lets its
-- host drive the scheduler: the host watches pollfd() for reading, wakes up after timeout() and calls step(0).

local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"

local standalone = { name = "plain" }

local MAX_WAIT = 60 -- seconds

local waiters = setmetatable({}, { __mode = "kv" }) -- by coroutine, which keeps its waiter while it runs
local TOKEN = {} -- a value that only a task and the scheduler pass to each other

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  -- Other code may resume the coroutine too, as code written for luv does with its own coroutines. Such a resume has no token. A resume
  -- that was queued for an earlier wait, which a finalizer has ended before it was suspended, finds this one not woken.
  repeat until coroutine.yield(TOKEN) == TOKEN and self.woken
end

function Waiter:notify()
  scheduler.notify() -- it is in the run queue
end

-- The function of a task catches its errors itself. An error that is raised before or after it, because memory runs out, ends its task here.
-- If memory runs out here too, this raises an error, and the next step calls it again.
function Waiter:resume()
  local ok, problem = coroutine.resume(self.coroutine, TOKEN)
  if ok then return end
  local status = coroutine.status(self.coroutine)
  if status == "suspended" then -- there was no memory, or no C stack, to resume it
    scheduler.enqueue(self)
    error(problem, 0)
  end
  if status ~= "dead" or not self.task then return end
  self.problem = self.problem or problem
  scheduler.unpark(self)
  self.task:fail(self.problem)
end

function standalone.spawn(body, _, task)
  -- The first resume passes the token too, and `body` takes no arguments.
  local waiter = setmetatable({
    coroutine = coroutine.create(function() body() end),
    -- so that setting them needs no memory:
    task = false, problem = false, parked = false, woken = false, is_queued = false, next = false, at = false, position = false,
  }, Waiter)
  waiters[waiter.coroutine] = waiter
  if task then task:set_waiter(waiter) end
  scheduler.enqueue(waiter)
end

function standalone.waiter(running)
  return waiters[running]
end

--- Drives the scheduler until the waiter is woken.
function standalone.block(waiter)
  while not waiter.woken do
    if not scheduler.has_work() then
      scheduler.unpark(waiter)
      options.raise("opensandbox", "this would wait for ever: nothing is left that could end the wait")
    end
    scheduler:step(MAX_WAIT)
  end
end

function standalone.unblock() end

function standalone.refusal() end

function standalone.changed() end

function standalone.unhandled_error() end

function standalone.report(text)
  io.stderr:write(text, "\n")
end

return standalone

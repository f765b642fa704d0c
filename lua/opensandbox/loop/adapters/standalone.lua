--- No host: tasks are coroutines of our own, resumed by the scheduler, which runs whenever somebody blocks.
--
-- The shape of every adapter:
--   name
--   spawn(body, detached)      starts a function in a coroutine that can wait; detached: it does not end with the running coroutine
--   waiter(coroutine, chosen)  returns the waiter of a coroutine, each time the same, or nil if it cannot be suspended here; chosen: the
--                              user chose the adapter by options.loop
--   block(waiter)              waits in code that cannot be suspended
--   unblock()                  a blocking wait has ended: make block() return soon
--   refusal()                  returns the reason why blocking is not allowed here, or nil
--   changed()                  the set of things to wait for has changed
--   unhandled_error()          a task has failed, and nobody waits for it yet
--   report(text)               reports an error that nobody waits for
-- Functions that an adapter does not have are those of this file. A waiter is a table with two methods. `suspend` is called in its
-- coroutine; it yields to the host and returns when `self.woken` is true, not before. `notify` is called anywhere and makes the host
-- continue `suspend`. The scheduler lists the other fields of a waiter. The adapter lets the host watch `opensandbox.loop.scheduler`: its
-- pollfd() for reading, its timeout(), then its step(0).

local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"

local plain = { name = "plain" }

local LONGEST_STEP = 60 -- seconds

local waiters = setmetatable({}, { __mode = "kv" }) -- by coroutine, which holds its own while it runs
local TOKEN = {} -- what passes between a task and the scheduler, and between nobody else

local Waiter = {}
Waiter.__index = Waiter

function Waiter:suspend()
  -- Others may resume the coroutine, as code written for luv does with its own; that is not meant for us.
  repeat until coroutine.yield(TOKEN) == TOKEN
end

function Waiter:notify()
  scheduler.enqueue(self)
end

function Waiter:resume()
  coroutine.resume(self.coroutine, TOKEN) -- the body catches its errors itself
end

function plain.spawn(body)
  -- The first resume brings the token too.
  local waiter = setmetatable({ coroutine = coroutine.create(function() body() end) }, Waiter)
  waiters[waiter.coroutine] = waiter
  scheduler.enqueue(waiter)
end

function plain.waiter(running)
  return waiters[running]
end

--- Drives the scheduler until the waiter is woken.
function plain.block(waiter)
  while not waiter.woken do
    if not scheduler.has_work() then
      scheduler.unpark(waiter)
      options.raise("opensandbox", "this would wait for ever: nothing is left that could end the wait")
    end
    scheduler:step(LONGEST_STEP)
  end
end

function plain.unblock() end

function plain.refusal() end

function plain.changed() end

function plain.unhandled_error() end

function plain.report(text)
  io.stderr:write(text, "\n")
end

return plain

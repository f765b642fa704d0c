--- No host: tasks are coroutines of our own, resumed by the scheduler, which runs whenever somebody blocks.
--
-- The shape of every adapter:
--   name
--   spawn(body, in_background)   starts a function in a coroutine that can wait; in_background: and that does not end with the running one
--   waiter(coroutine, chosen)   its waiter, each time the same, if that coroutine can be suspended here, else nil; chosen: the adapter
--                       was, by options.loop
--   block(waiter)       waits in code that cannot be suspended
--   unblock()           the wait of somebody that blocks is over: what it waits in should come back
--   refusal()           why blocking is out of the question here, or nil
--   changed()           there is more, less or something else to wait for
--   failed()            a task has failed, and nobody waits for it yet
--   report(text)        tells about an error that nobody waits for
-- What one does not say for itself is as here. A waiter is a table with two methods: `suspend`, called in its coroutine, gives the turn to
-- the host and comes back when `self.woken` is true, not before; `rouse`, called anywhere, tells the host that it is. Both need no more of
-- it. It is the adapter that lets the host watch `opensandbox.scheduler`: its pollfd() for reading, its timeout(), then its step(0).

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

function Waiter:rouse()
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
    if not scheduler.can_go_on() then
      scheduler.unpark(waiter)
      options.raise("opensandbox", "this would wait for ever: nothing is left that could end the wait")
    end
    scheduler:step(LONGEST_STEP)
  end
end

function plain.unblock() end

function plain.refusal() end

function plain.changed() end

function plain.failed() end

function plain.report(text)
  io.stderr:write(text, "\n")
end

return plain

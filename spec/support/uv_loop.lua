--- Waiting on the event loop from a synchronous test.
--
-- The tests are plain sequential code; the helpers that talk to other processes use luv. Its default loop is run only
-- inside these functions, and the code that opened a handle closes it with `close`, so between two calls of a helper nothing
-- is left on the loop. They must not be called from inside a callback of the loop.

local uv = require "luv"

local uv_loop = {}

--- Milliseconds of a clock that never goes back.
function uv_loop.now()
  return uv.hrtime() / 1e6
end

--- Closes handles (nil and already closing ones are skipped) and waits until the loop has let go of them.
function uv_loop.close(...)
  local pending = 0
  for index = 1, select("#", ...) do
    local handle = select(index, ...)
    if handle and not handle:is_closing() then
      pending = pending + 1
      handle:close(function() pending = pending - 1 end)
    end
  end
  while pending > 0 do uv.run("nowait") end
end

--- Catches SIGPIPE, which writing to a peer that has gone would raise, while the handle that is returned is open.
function uv_loop.catch_sigpipe()
  local handle = uv.new_signal()
  handle:start("sigpipe", function() end)
  return handle
end

--- Runs the loop until `done()` is true or `seconds` have passed.
-- @param done
-- @param seconds
-- @param begin called first, if given: what writes belongs here, where SIGPIPE is caught. It is not caught outside of
-- this function, for the tests must notice a library that raises it.
-- @treturn boolean whether it is true now
function uv_loop.wait(done, seconds, begin)
  if not begin and done() then return true end
  local guard = uv_loop.catch_sigpipe()
  if begin then begin() end
  local late = false
  local timer = uv.new_timer()
  uv.update_time()   -- the loop last looked at the clock when it last ran, which may be long ago
  -- It repeats because `run` checks the timers first and may then wait for other events, for ever if there is no timer.
  timer:start(math.floor(math.max(seconds, 0) * 1000), 20, function() late = true end)
  while not late and not done() do uv.run("once") end
  uv_loop.close(timer, guard)
  return done() and true or false
end

--- Lets the loop run for some time, for tests that must let another process run for a moment.
function uv_loop.sleep(seconds)
  uv_loop.wait(function() return false end, seconds)
end

--- Runs the loop until `done()` is true, and returns its results; raises at the caller's line when that takes too long. It asks again
--- and again, also for what brings no event to this loop.
-- @param done
-- @param what (optional) the awaited event
-- @param seconds (20)
function uv_loop.wait_until(done, what, seconds)
  seconds = seconds or 20
  local deadline = uv_loop.now() + seconds * 1000
  while true do
    local value = done()
    if value then return value end
    if uv_loop.now() > deadline then error(("not within %g s%s"):format(seconds, what and ": " .. what or ""), 2) end
    uv_loop.sleep(0.01)
  end
end

-- With its first signal and its first stream the loop opens descriptors that it keeps; better now than while a test
-- counts them.
uv_loop.sleep(0)
uv_loop.close(uv.new_pipe(false))

return uv_loop

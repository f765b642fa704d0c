--- The event loop of the program: the adapter of the library's scheduler that also watches signals and descriptors such as the standard
--- input.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"

local event_loop = {}

local MAX_WAIT = 60         -- seconds
local POLL_INTERVAL = 0.005 -- seconds between steps on platforms where the scheduler has no descriptor

local readers = {} -- waiters by the descriptor that they want to read
local signal_fd
local handlers = {} -- by the name of the signal

local adapter = { name = "opensandbox program" }

-- Calls the handler for the signals that were received, and wakes the readers of the descriptors that are ready.
local function dispatch(ready)
  if signal_fd and ready[signal_fd] then
    local name = core.next_signal()
    while name do
      handlers[name](name)
      name = core.next_signal()
    end
  end
  local woken = {}
  for fd, waiter in each(readers) do
    if ready[fd] then woken[#woken + 1] = waiter end
  end
  for _, waiter in ipairs(woken) do scheduler.wake(waiter) end
end

function adapter.block(waiter)
  while not waiter.woken do
    local network = scheduler:pollfd()
    local seconds = math.min(scheduler:timeout() or MAX_WAIT, network and MAX_WAIT or POLL_INTERVAL)
    local watched = { network }
    if signal_fd then watched[#watched + 1] = signal_fd end
    for fd in each(readers) do watched[#watched + 1] = fd end
    dispatch(core.wait_readable(watched, seconds))
    scheduler:step(0)
  end
end

--- Makes this the loop of the Lua state.
function event_loop.use()
  loop.use("opensandbox", adapter)
end

--- Catches signals. A signal that this process ignores stays ignored.
---@param names string[] such as "INT" and "WINCH"
---@param handler fun(name: string) called while the loop waits
function event_loop.catch_signals(names, handler)
  for _, name in ipairs(names) do handlers[name] = handler end
  signal_fd = assert(core.catch_signals((table.unpack or unpack)(names))) -- luacheck: std max
end

--- Waits until a descriptor can be read, and reads it. Other tasks run meanwhile.
---@param fd integer
---@param seconds? number the longest wait, default: no limit
---@return string? bytes "" at the end
---@return opensandbox.Error|string|nil err of kind `cancelled`, or the system's message; nil when the time has passed
function event_loop.read(fd, seconds)
  local limit = seconds and core.now() + seconds
  repeat
    local left = limit and limit - core.now()
    if left and left <= 0 then return nil end
    local interruption, reason = loop.wait { registry = readers, key = fd, seconds = left }
    if interruption then return nil, loop.interrupted("read", interruption, reason) end
  until core.wait_readable({ fd }, 0)[fd]
  return core.read(fd)
end

return event_loop

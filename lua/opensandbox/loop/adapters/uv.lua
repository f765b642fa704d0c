--- The adapter for libuv: luv scripts and Neovim. Tasks are coroutines of our own. The loop watches the scheduler's descriptor, which
--- becomes readable for timeouts too; without a descriptor, a timer is used.

local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local standalone = require "opensandbox.loop.adapters.standalone"

local vim = rawget(_G, "vim")
local in_neovim = type(vim) == "table" and (vim.uv or vim.loop) and true or false
local uv = in_neovim and (vim.uv or vim.loop) or require "luv"

local adapter = { name = "uv" }

local POLL_INTERVAL = 5            -- milliseconds between steps if there is no descriptor to watch
local INTERRUPT_POLL_INTERVAL = 100 -- milliseconds: vim.wait() of Neovim 0.7 reports Ctrl-C only when its time has passed
local UNHANDLED_ERROR_DELAY = 1000 -- milliseconds

local poll, watched
local timer -- only without a descriptor: vim.wait() of Neovim 0.7 continues to sleep when a timer has scheduled a function
local step_scheduled = false

local function step()
  step_scheduled = false
  scheduler:step(0)
end

-- In Neovim the loop calls back in a fast event, in which most of Neovim's API is not allowed. Tasks need that API, so the step is
-- scheduled. It may have to wait until a prompt ends; nothing is watched until then, because the loop would spin.
local function on_event()
  if step_scheduled then return end
  step_scheduled = true
  if not in_neovim then return step() end
  if poll then poll:stop() end
  vim.schedule(step)
end

-- Returns the active poll handle of a descriptor.
local function watch(fd)
  if watched ~= fd then
    if poll then poll:close() end
    poll, watched = uv.new_poll(fd), fd
  end
  if not poll:is_active() then poll:start("r", on_event) end
  return poll
end

-- Returns the active timer.
local function start_timer()
  timer = timer or uv.new_timer()
  uv.update_time()
  timer:start(math.ceil(math.min((scheduler:timeout() or 1) * 1000, POLL_INTERVAL)), 0, on_event)
  return timer
end

function adapter.changed()
  if step_scheduled then return end -- the step calls this at its end
  if not scheduler.has_work() then
    if poll then poll:stop() end
    if timer then timer:stop() end
    return
  end
  local fd = scheduler:pollfd()
  local handle = fd and scheduler:alarm() and watch(fd) or start_timer()
  -- Background transfers must not keep the loop from ending.
  if scheduler.has_waiters() then handle:ref() else handle:unref() end
end

if in_neovim then
  function adapter.refusal()
    if vim.in_fast_event() then
      return "this would block Neovim in a fast event: call it in a task (opensandbox.spawn), or in vim.schedule()"
    end
  end

  function adapter.block(waiter)
    adapter.changed()
    local interval = timer and POLL_INTERVAL or INTERRUPT_POLL_INTERVAL
    repeat
      local woken, why = vim.wait(INTERRUPT_POLL_INTERVAL, function() return waiter.woken end, interval)
      if why == -2 then
        loop.abandon(waiter)
        options.raise("opensandbox", "interrupted")
      end
    until woken
  end

  function adapter.report(text)
    vim.schedule(function() vim.notify(text, vim.log.levels.ERROR) end)
  end

  -- The error is reported when the failed task is collected. An editor runs for days, and its next collection may be an hour away, so a
  -- collection is run.
  local collect_scheduled = false
  function adapter.unhandled_error()
    if collect_scheduled then return end
    collect_scheduled = true
    vim.defer_fn(function()
      collect_scheduled = false
      collectgarbage()
    end, UNHANDLED_ERROR_DELAY)
  end

  -- Neovim does not close its Lua state, so finalizers would not delete the sandboxes of this session.
  local function at_exit()
    vim.api.nvim_create_autocmd("VimLeavePre", {
      desc = "opensandbox: delete the sandboxes of this session",
      callback = function()
        scheduler.exit()
        if poll then poll:close() end
        if timer then timer:close() end
        poll, watched, timer = nil, nil, nil
      end,
    })
  end
  if vim.in_fast_event() then vim.schedule(at_exit) else at_exit() end
else
  local running_loop = false

  -- While other code waits too, this runs the loop, so that everything in it continues. Inside a callback the loop cannot be run.
  function adapter.block(waiter)
    while not waiter.woken and scheduler.has_waiters() and not uv.loop_mode() do
      running_loop = true
      local is_alive = uv.run("once")
      running_loop = false
      if not is_alive and not scheduler.has_work() then break end
    end
    standalone.block(waiter)
  end

  -- The loop runs its timers first and then waits for events. One of the timers may have ended our wait.
  function adapter.unblock()
    if running_loop then uv.stop() end
  end
end

return adapter

--- libuv: luv scripts and Neovim. Tasks are our own coroutines; the loop watches the scheduler's descriptor, which tells about
--- times too; a timer where there is none.

local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local plain = require "opensandbox.loop.adapters.standalone"
local scheduler = require "opensandbox.loop.scheduler"

local vim = rawget(_G, "vim")
local in_neovim = type(vim) == "table" and (vim.uv or vim.loop) and true or false
local uv = in_neovim and (vim.uv or vim.loop) or require "luv"

local adapter = { name = "uv" }

local POLLED_STEP = 5         -- milliseconds between steps where there is no descriptor to watch
local LOOK_AGAIN = 100        -- milliseconds: vim.wait() of Neovim 0.7 tells about Ctrl-C when its time is over
local LOOK_FOR_UNHEARD = 1000 -- milliseconds

local poll, watched
local timer -- only where there is no descriptor: vim.wait() of Neovim 0.7 sleeps on when a timer has scheduled something
local due = false -- a step has been asked for

local function step()
  due = false
  scheduler:step(0)
end

-- In Neovim the loop calls back in a fast event, where most of its API is out of bounds; the tasks want all of it. The step may have to
-- wait for a prompt to end: until then nothing is watched, for the loop would spin.
local function on_event()
  if due then return end
  due = true
  if not in_neovim then return step() end
  if poll then poll:stop() end
  vim.schedule(step)
end

-- Both give the handle that is active now.
local function watch(fd)
  if watched ~= fd then
    if poll then poll:close() end
    poll, watched = uv.new_poll(fd), fd
  end
  if not poll:is_active() then poll:start("r", on_event) end
  return poll
end

local function wake_up_soon()
  timer = timer or uv.new_timer()
  uv.update_time()
  timer:start(math.ceil(math.min((scheduler:timeout() or 1) * 1000, POLLED_STEP)), 0, on_event)
  return timer
end

function adapter.changed()
  if due then return end -- the step will tell
  if not scheduler.has_work() then
    if poll then poll:stop() end
    if timer then timer:stop() end
    return
  end
  local fd = scheduler:pollfd()
  local handle = fd and scheduler:alarm() and watch(fd) or wake_up_soon()
  -- What only moves in the background must not keep the loop from ending.
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
    local interval = timer and POLLED_STEP or LOOK_AGAIN
    repeat
      local woken, why = vim.wait(LOOK_AGAIN, function() return waiter.woken end, interval)
      if why == -2 then
        loop.abandon(waiter)
        options.raise("opensandbox", "interrupted")
      end
    until woken
  end

  function adapter.report(text)
    vim.schedule(function() vim.notify(text, vim.log.levels.ERROR) end)
  end

  -- An editor runs for days, and its collector may come round in an hour: it is sent to look whether anybody holds the failed task.
  local looking = false
  function adapter.unhandled_error()
    if looking then return end
    looking = true
    vim.defer_fn(function()
      looking = false
      collectgarbage()
    end, LOOK_FOR_UNHEARD)
  end

  -- Neovim does not close its Lua state, so no finalizer would end the sandboxes of this session.
  local function at_exit()
    vim.api.nvim_create_autocmd("VimLeavePre", {
      desc = "opensandbox: end the sandboxes of this session",
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
  -- While others wait too, they and the rest of the loop go on meanwhile; inside a callback of the loop it cannot be run.
  local runs_here = false

  function adapter.block(waiter)
    while not waiter.woken and scheduler.has_waiters() and not uv.loop_mode() do
      runs_here = true
      local is_alive = uv.run("once")
      runs_here = false
      if not is_alive and not scheduler.has_work() then break end
    end
    plain.block(waiter)
  end

  -- The loop looks at its timers first and then waits for something else: it may be one of them that ended our wait.
  function adapter.unblock()
    if runs_here then uv.stop() end
  end
end

return adapter

--- libuv: luv scripts and Neovim. Tasks are our own coroutines; the loop watches the scheduler's descriptor and one timer.

local scheduler = require "opensandbox.scheduler"
local plain = require "opensandbox.loop.plain"

local vim = rawget(_G, "vim")
local in_neovim = type(vim) == "table" and (vim.uv or vim.loop) and true or false
local uv = in_neovim and (vim.uv or vim.loop) or require "luv"

local adapter = { name = "uv" }

local POLLED_STEP = 0.005 -- seconds between steps where there is no descriptor to watch

local poll, watched, timer
local due = false -- a step has been asked for

local function step()
  due = false
  scheduler:step(0)
end

-- In Neovim the loop calls back in a fast context, where most of its API is out of bounds; the tasks want all of it.
local function on_event()
  if due then return end
  due = true
  if in_neovim then vim.schedule(step) else step() end
end

local function watch(fd)
  if watched ~= fd then
    if poll then poll:close() end
    poll, watched = fd and uv.new_poll(fd) or nil, fd
  end
  if poll and not poll:is_active() then poll:start("r", on_event) end
end

local function wake_after(seconds)
  uv.update_time()
  timer:start(math.ceil(seconds * 1000), 0, on_event)
end

-- What only moves in the background must not keep the loop from ending.
local function set_referenced(handle, referenced)
  if not handle then return end
  if referenced then handle:ref() else handle:unref() end
end

function adapter.changed()
  if not scheduler.can_go_on() then
    if poll then poll:stop() end
    if timer then timer:stop() end
    return
  end
  timer = timer or uv.new_timer()
  local fd, seconds = scheduler:pollfd(), scheduler:timeout()
  if fd then watch(fd) else seconds = math.min(seconds or POLLED_STEP, POLLED_STEP) end
  if seconds then wake_after(seconds) else timer:stop() end
  local referenced = scheduler.has_waiting()
  set_referenced(poll, referenced)
  set_referenced(timer, referenced)
end

if in_neovim then
  function adapter.refusal()
    if vim.in_fast_event() then
      return "this would block Neovim in a fast event: call it in a task (opensandbox.spawn), or in vim.schedule()"
    end
  end

  function adapter.block(waiter)
    local _, why = vim.wait(2 ^ 31 - 1, function() return waiter.woken end, 50)
    if why == -2 then error("interrupted", 0) end
  end

  function adapter.report(text)
    vim.schedule(function() vim.notify(text, vim.log.levels.ERROR) end)
  end
else
  -- While others wait too, they and the rest of the loop go on meanwhile; inside a callback of the loop it cannot be run.
  function adapter.block(waiter)
    while not waiter.woken and scheduler.has_waiting() and not uv.loop_mode() do
      if not uv.run("once") and not scheduler.can_go_on() then break end
    end
    plain.block(waiter)
  end
end

return adapter

--- The event loop of this Lua state, and how the running code waits in it.
--
-- All waiting of the library passes through `loop.wait`. A task, or a coroutine that belongs to the host, is suspended. Any other code
-- blocks, or gets an error where blocking is not allowed. The library never yields a coroutine that is neither.

local coxpcall = require "opensandbox.loop.coxpcall"
local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local standalone = require "opensandbox.loop.adapters.standalone"
local tables = require "opensandbox.base.tables"

local loop = {}

-- Adapters by the value of the option `loop`. They are loaded when they are first used.
local modules = {
  plain = "standalone", uv = "uv", ngx = "ngx", cqueues = "cqueues", socket = "luasocket", copas = "copas",
}

local chosen, chosen_key -- the adapter of the option `loop`, and the option's value; nil: the host decides
local adapters = {}      -- complete adapters, by the table that they were made from

-- Completes an adapter: functions that it does not have are those of the standalone adapter.
local function with_defaults(given)
  adapters[given] = adapters[given] or tables.merge(standalone, given)
  return adapters[given]
end

local function load(name)
  return require("opensandbox.loop.adapters." .. modules[name])
end

local loaded = {} -- adapters that the host has decided for, by name: selecting one needs no memory

-- Returns the name of the host's loop. It is detected for every wait, because a script may start a loop later.
local function detect_host()
  local ngx, vim = rawget(_G, "ngx"), rawget(_G, "vim")
  if type(ngx) == "table" and ngx.get_phase then return "ngx" end
  if type(vim) == "table" and (vim.uv or vim.loop) then return "uv" end
  local cqueues = package.loaded.cqueues
  if type(cqueues) == "table" and cqueues.running() then return "cqueues" end
  if package.loaded.copas then return "copas" end
  return package.loaded.luv and "uv" or "plain"
end

-- Selects the adapter for the running code, which the scheduler notifies from now on.
local function select_adapter()
  local adapter = chosen
  if not adapter then
    local name = detect_host()
    if not loaded[name] then loaded[name] = with_defaults(load(name)) end
    adapter = loaded[name]
  end
  scheduler.on_change = adapter.changed
  return adapter
end

--- Chooses the loop for this Lua state. All clients and tasks share it.
---@param op string
---@param given string|table the name of an adapter, or a table of the shape that `adapters/standalone.lua` describes
function loop.use(op, given)
  if type(given) == "string" then
    if not modules[given] then
      options.raise(op, ("option 'loop': %q is not known; known are plain, uv, ngx, cqueues, socket and copas"):format(given))
    end
    given = load(given)
  else
    options.argument(op, "option 'loop'", given, "table")
    options.argument(op, "the name of the loop", given.name, "nonempty string")
  end
  if chosen and chosen_key ~= given then
    options.raise(op, ("option 'loop': this Lua state already uses the loop %q, and all its clients share one"):format(chosen.name))
  end
  chosen, chosen_key = with_defaults(given), given
end

local BlockingWaiter = { blocks = true }
BlockingWaiter.__index = BlockingWaiter

function BlockingWaiter:suspend() self.adapter.block(self) end

function BlockingWaiter:notify() self.adapter.unblock() end

-- Lua 5.1 and 5.2 cannot say it.
local is_yieldable = rawget(coroutine, "isyieldable") or function() return true end

-- Returns the waiter of the running code, or nil and the reason why this code must not wait. Code of a task that cannot yield, because it
-- runs in a finalizer or is called from C, blocks like code outside of tasks.
local function current_waiter()
  local adapter = select_adapter()
  local running = coxpcall.running()
  local own = running and (standalone.waiter(running) or adapter.waiter(running, chosen ~= nil))
  if own and is_yieldable() then return own end
  local refusal = adapter.refusal()
  if refusal then return nil, refusal end
  return setmetatable({ adapter = adapter }, BlockingWaiter)
end

coxpcall.set_enter_hook(current_waiter)

--- Waits until the waiter in the registry is woken or the time has passed.
---@param wait opensandbox.Wait
---@return string? interruption nil: continue; "cancelled"; "cancelled again" if an earlier wait has returned that error; "refused" if this code must not wait
---@return string? reason for "refused"
function loop.wait(wait)
  local own, refusal = current_waiter()
  if not own then return "refused", refusal end
  local task = not wait.shielded and own.task
  if not task then
    scheduler.park(own, wait)
    return nil
  end
  local cancelled = task:deliver_cancel()
  if not cancelled then
    scheduler.park(own, wait)
    cancelled = task:deliver_cancel()
  end
  if not cancelled then return nil end
  return cancelled == "again" and "cancelled again" or "cancelled"
end

--- Waits for some time.
---@param op string for errors
---@param seconds number
---@param shielded? boolean see opensandbox.Wait
---@param owner? table see opensandbox.Wait
---@return opensandbox.Error? err when the task was cancelled
function loop.sleep(op, seconds, shielded, owner)
  local interruption, reason = loop.wait { seconds = seconds, shielded = shielded, owner = owner }
  if interruption then return loop.interrupted(op, interruption, reason) end
end

--- Called when the host has ended the coroutine of a waiter, which will never continue. The owner of its wait abandons the operation.
---@param waiter opensandbox.Waiter
function loop.abandon(waiter)
  local wait = scheduler.unpark(waiter)
  if wait and wait.owner then wait.owner:abandon() end
  if waiter.task then waiter.task:abandon() end
end

--- Converts an interrupted wait into an error. If waiting is not allowed here, it raises at the caller's line. The first wait of a
--- cancelled task returns the error; every later wait raises it, so that a task that ignores errors still ends.
---@param op string
---@param interruption string of loop.wait
---@param reason? string of loop.wait
---@param err? opensandbox.Error of kind `cancelled`, in place of the general error
---@return opensandbox.Error err
function loop.interrupted(op, interruption, reason, err)
  if interruption == "refused" then options.raise(op, reason) end
  err = err or errors.new { kind = "cancelled", code = "cancelled", op = op, message = "the task was cancelled" }
  if interruption == "cancelled again" then error(err, 0) end
  return err
end

-- Makes the running code that of a task.
local function attach(task) task:set_waiter((assert(current_waiter()))) end

--- Starts a function in a coroutine that can wait. The function does not run before this returns.
---@param task opensandbox.Task
---@param body fun() it must not raise an error
---@param detached? boolean it continues when the host ends the running coroutine
function loop.spawn(task, body, detached)
  local adapter = select_adapter()
  adapter.spawn(function()
    if not task.waiter then
      local ok, problem = pcall(attach, task)
      if not ok then return task:fail(problem) end -- memory has run out
    end
    body()
    scheduler.unpark(task.waiter) -- PUC Lua 5.1 raises an error instead of yielding where it cannot yield
    task:set_waiter(nil)
  end, detached, task)
end

--- Returns the task whose code is running.
---@return opensandbox.Task? task nil outside of tasks
function loop.current_task()
  local own = current_waiter()
  return own and own.task or nil
end

--- Returns the name of the running code's loop.
---@return string
function loop.name()
  return select_adapter().name
end

--- Called when a task fails without a waiter. The error is reported when the task is collected, unless someone waits for it before.
function loop.unhandled_error()
  select_adapter().unhandled_error()
end

--- Reports an error that no code waits for.
---@param text string
function loop.report(text)
  select_adapter().report(text)
end

return loop

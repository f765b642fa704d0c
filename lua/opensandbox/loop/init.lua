--- The event loop of this Lua state, and how the running code waits in it.
--
-- All waiting of the library passes through `loop.wait`. A task, or a coroutine that belongs to the host, is suspended. Any other code
-- blocks, or gets an error where blocking is not allowed. The library never yields a coroutine that is neither.

local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local plain = require "opensandbox.loop.adapters.standalone"
local coxpcall = require "opensandbox.loop.coxpcall"
local scheduler = require "opensandbox.loop.scheduler"

local loop = {}

local modules = {
  plain = "standalone", uv = "uv", ngx = "ngx", cqueues = "cqueues", socket = "luasocket", copas = "copas",
}

local chosen, chosen_key -- by options.loop; else the host decides
local adapters = {}      -- with defaults, by the table that they were made from

-- Functions that an adapter does not have are those of plain Lua.
local function with_defaults(given)
  adapters[given] = adapters[given] or options.merge(plain, given)
  return adapters[given]
end

local function load(name)
  return require("opensandbox.loop.adapters." .. modules[name])
end

-- The name of the host's loop. It is detected for every wait, because a script may start a loop later.
local function detect_host()
  local ngx, vim = rawget(_G, "ngx"), rawget(_G, "vim")
  if type(ngx) == "table" and ngx.get_phase then return "ngx" end
  if type(vim) == "table" and (vim.uv or vim.loop) then return "uv" end
  local cqueues = package.loaded.cqueues
  if type(cqueues) == "table" and cqueues.running() then return "cqueues" end
  if package.loaded.copas then return "copas" end
  return package.loaded.luv and "uv" or "plain"
end

-- The adapter for the running code. Makes it the one that the scheduler notifies.
local function current()
  local adapter = chosen or with_defaults(load(detect_host()))
  scheduler.on_change = adapter.changed
  return adapter
end

--- Chooses the loop for this Lua state: all clients and tasks share it.
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
    options.argument(op, "the name of the loop", given.name, "text")
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

-- The waiter of the running code.
local function waiter()
  local adapter = current()
  local running = coxpcall.running()
  local own = running and (plain.waiter(running) or adapter.waiter(running, chosen ~= nil))
  if own then return own end
  local refusal = adapter.refusal()
  if refusal then return nil, refusal end
  return setmetatable({ adapter = adapter }, BlockingWaiter)
end

coxpcall.set_enter_hook(waiter)

--- Waits until the waiter in the registry is woken or the time has passed.
---@param wait table seconds; registry and key (the table and key under which the waiter is found meanwhile); shielded (a cancelled task may wait here, because the call deletes or stops something); owner (its `abandon` method is called when the host ends the coroutine meanwhile)
---@return string? interruption "cancelled", "cancelled again" (an earlier wait has returned the error), or "refused" where this code must not wait; nil: continue
---@return string? reason refused: why
function loop.wait(wait)
  local own, refusal = waiter()
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
---@param shielded? boolean as in loop.wait
---@param owner? table as in loop.wait
---@return opensandbox.Error? err when the task was cancelled
function loop.sleep(op, seconds, shielded, owner)
  local interruption, reason = loop.wait { seconds = seconds, shielded = shielded, owner = owner }
  if interruption then return loop.interrupted(op, interruption, reason) end
end

--- The host has ended the coroutine of a waiter, which will never continue. The owner of its wait is told to abandon it.
function loop.abandon(own)
  local wait = scheduler.unpark(own)
  if wait and wait.owner then wait.owner:abandon() end
  if own.task then own.task:abandon() end
end

--- Converts an interrupted wait into an error. If waiting is not allowed here, it raises at the caller's line. The first wait of a
--- cancelled task returns the error; every later wait raises it, so that a task that ignores errors still ends.
---@param interruption string of loop.wait
---@param reason? string of loop.wait
---@param err? opensandbox.Error of kind `cancelled`, in place of the general one
---@return opensandbox.Error err
function loop.interrupted(op, interruption, reason, err)
  if interruption == "refused" then options.raise(op, reason) end
  err = err or errors.new { kind = "cancelled", code = "cancelled", op = op, message = "the task was cancelled" }
  if interruption == "cancelled again" then error(err, 0) end
  return err
end

--- Starts a function in a coroutine that can wait. It runs later, not before this returns.
---@param task table kept as the waiter's `task`
---@param body fun() which raises no error
---@param detached? boolean it does not end with the running coroutine
function loop.spawn(task, body, detached)
  local adapter = current()
  adapter.spawn(function()
    local own = waiter()
    own.task = task
    task:set_waiter(own)
    body()
    scheduler.unpark(own) -- PUC Lua 5.1 raises an error instead of yielding where it cannot
    own.task = nil
    task:set_waiter(nil)
  end, detached)
end

--- The name of the loop of the running code.
function loop.name()
  return current().name
end

--- Called when a task fails without a waiter. The error is reported when the task is collected, unless someone waits for it before.
function loop.unhandled_error()
  current().unhandled_error()
end

--- Reports an error that nobody waits for.
function loop.report(text)
  current().report(text)
end

return loop

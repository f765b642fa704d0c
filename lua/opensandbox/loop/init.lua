--- Which event loop we live in, and how the running code waits in it.
--
-- All waiting of the library passes through `loop.wait`. A task, or a coroutine that belongs to the host, is suspended; any other code
-- blocks, or is told that it must not. A coroutine that is neither is never yielded: it blocks, as its caller would.

local errors = require "opensandbox.base.errors"
local options = require "opensandbox.base.options"
local plain = require "opensandbox.loop.adapters.standalone"
local protect = require "opensandbox.loop.coxpcall"
local scheduler = require "opensandbox.loop.scheduler"

local loop = {}

local modules = {
  plain = "standalone", uv = "uv", ngx = "ngx", cqueues = "cqueues", socket = "luasocket", copas = "copas",
}

local chosen, chosen_as -- by options.loop; else the host decides
local adapters = {}     -- complete ones, by what they were made from

-- What an adapter does not say for itself is as in plain Lua.
local function complete(given)
  adapters[given] = adapters[given] or options.merge(plain, given)
  return adapters[given]
end

local function load(name)
  return require("opensandbox.loop.adapters." .. modules[name])
end

-- The host that we find ourselves in. Asked anew each time: a script may start a loop later.
local function found()
  local ngx, vim = rawget(_G, "ngx"), rawget(_G, "vim")
  if type(ngx) == "table" and ngx.get_phase then return "ngx" end
  if type(vim) == "table" and (vim.uv or vim.loop) then return "uv" end
  local cqueues = package.loaded.cqueues
  if type(cqueues) == "table" and cqueues.running() then return "cqueues" end
  if package.loaded.copas then return "copas" end
  return package.loaded.luv and "uv" or "plain"
end

-- The adapter for the running code.
local function current()
  local adapter = chosen or complete(load(found()))
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
  if chosen and chosen_as ~= given then
    options.raise(op, ("option 'loop': this Lua state already uses the loop %q, and all its clients share one"):format(chosen.name))
  end
  chosen, chosen_as = complete(given), given
end

local Blocking = { blocks = true }
Blocking.__index = Blocking

function Blocking:suspend() self.adapter.block(self) end

function Blocking:rouse() self.adapter.unblock() end

-- The waiter of the running code.
local function waiter()
  local adapter = current()
  local running = protect.running()
  local own = running and (plain.waiter(running) or adapter.waiter(running, chosen ~= nil))
  if own then return own end
  local refusal = adapter.refusal()
  if refusal then return nil, refusal end
  return setmetatable({ adapter = adapter }, Blocking)
end

protect.on_enter = waiter

--- Waits, until the waiter that stands in the registry is woken or the time has passed.
---@param wait table seconds; registry and key (where the waiter stands meanwhile); shielded (a cancelled task may wait here, for it ends things); owner (its `abandon` is called when the host ends the coroutine meanwhile)
---@return string? stopped "cancelled", or "refused" where this code must not wait; nil: go on
---@return any detail cancelled: whether the task was told before; refused: why
function loop.wait(wait)
  local own, refusal = waiter()
  if not own then return "refused", refusal end
  local task = not wait.shielded and own.task
  if not task then
    scheduler.park(own, wait)
    return nil
  end
  if not task.cancelling then scheduler.park(own, wait) end
  if not task.cancelling then return nil end
  local again = task.was_told
  task.was_told = true
  return "cancelled", again
end

--- Lets time pass.
---@param shielded? boolean as in loop.wait
---@param owner? table as in loop.wait
---@return opensandbox.Error? err when the task was cancelled
function loop.pause(op, seconds, shielded, owner)
  local stopped, detail = loop.wait { seconds = seconds, shielded = shielded, owner = owner }
  if stopped then return loop.stop(op, stopped, detail) end
end

--- The host has ended the coroutine of a waiter, which will never go on: what it waited for is given up.
function loop.abandon(own)
  local wait = scheduler.unpark(own)
  if wait and wait.owner then wait.owner:abandon() end
  if own.task then own.task:_abandon() end
end

--- What comes of a wait that was stopped: a refusal raises at the caller's line. So does the second time that a cancelled task
--- is told, for one that passes over errors would run on for ever; the first time it is the error to return.
---@param err? opensandbox.Error of kind `cancelled`
---@return opensandbox.Error err
function loop.stop(op, stopped, detail, err)
  err = err or errors.new { kind = "cancelled", code = "cancelled", op = op, message = "the task was cancelled" }
  if stopped == "refused" then options.raise(op, detail) end
  if detail then error(err, 0) end
  return err
end

--- Starts a function in a coroutine that can wait. It runs later, not before this returns.
---@param task table kept as the waiter's `task`
---@param body fun() which raises no error
---@param in_background? boolean it is not the running coroutine's business, and does not end with it
function loop.spawn(task, body, in_background)
  local adapter = current()
  adapter.spawn(function()
    local own = waiter()
    own.task, task.waiter = task, own
    body()
    scheduler.unpark(own) -- PUC Lua 5.1 raises an error instead of yielding where it cannot
    own.task, task.waiter = nil, nil
  end, in_background)
end

--- The name of the loop of the running code.
function loop.name()
  return current().name
end

--- A task has failed that nobody waits for yet. If nobody ever does, its error is reported when the task is collected.
function loop.failed()
  current().failed()
end

--- Tells about an error that nobody waits for.
function loop.report(text)
  current().report(text)
end

return loop

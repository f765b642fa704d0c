--- Protected calls that can be yielded across on every Lua.
--
-- In PUC Lua 5.1 a coroutine cannot yield inside pcall(). There the function runs in a coroutine of its own, and what it yields is
-- passed on; `protect.running` knows which coroutine that one stands for. Everywhere else this is pcall() and xpcall().

local protect = {}

local needs_coroutine = _VERSION == "Lua 5.1" and not rawget(_G, "jit")
local stands_for = setmetatable({}, { __mode = "kv" })

--- The running coroutine, or nil in the main one. Inside `protect.pcall` it is the one that called it.
---@return thread?
function protect.running()
  local running, is_main = coroutine.running()
  if is_main then return nil end
  return stands_for[running] or running
end

local ENDED = {} -- what passes from a function that has ended to who waits for it, and between nobody else

local relay

local function go_on(inner, value, ...)
  if value == ENDED then return true, ... end
  return relay(inner, coroutine.resume(inner, value, ...))
end

function relay(inner, ok, ...)
  if not ok then return false, (...), debug.traceback(inner, "") end
  if coroutine.status(inner) == "dead" then return true, ... end
  return go_on(inner, coroutine.yield(...))
end

-- The function may have yielded by itself, and been resumed to its end by others: then the one outside still waits for it.
local function ended(caller, ...)
  if coroutine.status(caller) == "suspended" then coroutine.resume(caller, ENDED, ...) end
  return ...
end

--- Called before another coroutine stands for the running one: a host that tells its coroutines by what resumed them can look at it now.
function protect.on_enter() end

local function in_coroutine(fn, ...)
  protect.on_enter()
  local caller, outer = coroutine.running(), protect.running()
  local inner = coroutine.create(function(...) return ended(caller, fn(...)) end)
  stands_for[inner] = outer
  return relay(inner, coroutine.resume(inner, ...))
end

local function without_trace(ok, ...)
  if ok then return true, ... end
  return false, (...)
end

--- pcall(), inside which tasks can wait on every Lua.
function protect.pcall(fn, ...)
  if needs_coroutine and protect.running() then return without_trace(in_coroutine(fn, ...)) end
  return pcall(fn, ...)
end

local function with_trace(trace, ok, ...)
  if ok then return true, ... end
  return false, (...), trace.text
end

-- In PUC Lua 5.1 xpcall() passes no arguments on.
local function bound(fn, ...)
  local arguments, count = { ... }, select("#", ...)
  if count == 0 then return fn end
  return function() return fn(unpack(arguments, 1, count)) end -- luacheck: std max
end

--- The same, and after an error its traceback as the third result.
function protect.traced(fn, ...)
  if needs_coroutine then
    if protect.running() then return in_coroutine(fn, ...) end
    fn = bound(fn, ...)
  end
  local trace = {}
  return with_trace(trace, xpcall(fn, function(value)
    trace.text = debug.traceback("", 2)
    return value
  end, ...))
end

return protect

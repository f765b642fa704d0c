--- Protected calls that can be yielded across on every Lua.
--
-- In PUC Lua 5.1 a coroutine cannot yield inside pcall(). There the function runs in an inner coroutine, and its yields are forwarded;
-- `coxpcall.running` returns the outer coroutine. Everywhere else this is pcall() and xpcall().

local coxpcall = {}

local needs_coroutine = _VERSION == "Lua 5.1" and not rawget(_G, "jit")
local outer_of = setmetatable({}, { __mode = "kv" })

--- The running coroutine, or nil in the main one. Inside `coxpcall.pcall` it is the coroutine that called that.
---@return thread?
function coxpcall.running()
  local running, is_main = coroutine.running()
  if is_main then return nil end
  return outer_of[running] or running
end

local RETURNED = {} -- marks the results of a function that was resumed to its end by other code

local forward

local function continue(inner, value, ...)
  if value == RETURNED then return true, ... end
  return forward(inner, coroutine.resume(inner, value, ...))
end

function forward(inner, ok, ...)
  if not ok then return false, (...), debug.traceback(inner, "") end
  if coroutine.status(inner) == "dead" then return true, ... end
  return continue(inner, coroutine.yield(...))
end

-- If other code resumed the inner coroutine to its end, the outer one still waits for it.
local function returned(caller, ...)
  if coroutine.status(caller) == "suspended" then coroutine.resume(caller, RETURNED, ...) end
  return ...
end

local function enter_hook() end

--- Sets a function that is called before a function runs in an inner coroutine. Adapters that identify a coroutine by the code that
--- resumed it use this.
function coxpcall.set_enter_hook(hook)
  enter_hook = hook
end

local function in_coroutine(fn, ...)
  enter_hook()
  local caller, outer = coroutine.running(), coxpcall.running()
  local inner = coroutine.create(function(...) return returned(caller, fn(...)) end)
  outer_of[inner] = outer
  return forward(inner, coroutine.resume(inner, ...))
end

local function without_trace(ok, ...)
  if ok then return true, ... end
  return false, (...)
end

--- pcall(), inside which tasks can wait on every Lua.
function coxpcall.pcall(fn, ...)
  if needs_coroutine and coxpcall.running() then return without_trace(in_coroutine(fn, ...)) end
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
function coxpcall.xpcall(fn, ...)
  if needs_coroutine then
    if coxpcall.running() then return in_coroutine(fn, ...) end
    fn = bound(fn, ...)
  end
  local trace = {}
  return with_trace(trace, xpcall(fn, function(value)
    trace.text = debug.traceback("", 2)
    return value
  end, ...))
end

return coxpcall

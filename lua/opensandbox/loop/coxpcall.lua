--- Protected calls in which a coroutine can yield on every Lua.
--
-- In PUC Lua 5.1 a coroutine cannot yield inside pcall(). There the function runs in an inner coroutine, whose yields are forwarded, and
-- `coxpcall.running` returns the outer coroutine. On every other Lua these functions are pcall() and xpcall().

local coxpcall = {}

local needs_coroutine = _VERSION == "Lua 5.1" and not rawget(_G, "jit")
local outer_of = setmetatable({}, { __mode = "kv" })

--- Returns the running coroutine, or nil in the main one. Inside `coxpcall.pcall` it returns the coroutine that called `pcall`.
---@return thread?
function coxpcall.running()
  local running, is_main = coroutine.running()
  if is_main then return nil end
  return outer_of[running] or running
end

local RETURNED = {} -- precedes the results of a function that other code resumed to its end

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

--- Sets a hook that is called before a function runs in an inner coroutine. Adapters need it if they identify a coroutine by the
--- code that resumed it.
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

--- Calls a function like pcall(). A task can wait inside it on every Lua.
--- ```lua
--- local ok, problem = opensandbox.pcall(function() return assert(sandbox:run("make test")) end)
--- ```
---@param fn function
---@param ... any its arguments
---@return boolean ok
---@return any ... the results of the function, or the raised error
function coxpcall.pcall(fn, ...)
  if needs_coroutine and coxpcall.running() then return without_trace(in_coroutine(fn, ...)) end
  return pcall(fn, ...)
end

local function with_trace(trace, ok, ...)
  if ok then return true, ... end
  return false, (...), trace.text
end

-- In PUC Lua 5.1 xpcall() passes no arguments to the function.
local function bound(fn, ...)
  local arguments, count = { ... }, select("#", ...)
  if count == 0 then return fn end
  return function() return fn(unpack(arguments, 1, count)) end -- luacheck: std max
end

--- Calls a function like `coxpcall.pcall`. After an error, the third result is its traceback.
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

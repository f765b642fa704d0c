--- Protected calls that can be yielded across on every Lua.
--
-- In PUC Lua 5.1 a coroutine cannot yield inside pcall(). There the function runs in a coroutine of its own, and what it yields is
-- passed on; `protect.running` knows which coroutine that one stands for. Everywhere else this is pcall() and xpcall().

local protect = {}

local needs_coroutine = _VERSION == "Lua 5.1" and not rawget(_G, "jit")
local stands_for = setmetatable({}, { __mode = "k" })

--- The running coroutine, or nil in the main one. Inside `protect.pcall` it is the one that called it.
---@return thread?
function protect.running()
  local running, is_main = coroutine.running()
  if is_main then return nil end
  return stands_for[running] or running
end

local function relay(inner, ok, ...)
  if not ok then return false, (...), debug.traceback(inner, "") end
  if coroutine.status(inner) == "dead" then return true, ... end
  return relay(inner, coroutine.resume(inner, coroutine.yield(...)))
end

local function in_coroutine(fn, ...)
  local outer = protect.running()
  local inner = coroutine.create(function(...) return fn(...) end)
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

--- The same, and after an error its traceback as the third result.
function protect.traced(fn, ...)
  if needs_coroutine and protect.running() then return in_coroutine(fn, ...) end
  local trace = {}
  return with_trace(trace, xpcall(fn, function(value)
    trace.text = debug.traceback("", 2)
    return value
  end, ...))
end

return protect

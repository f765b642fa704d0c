--- Keeps an error in one callback from ending the whole server, because luv ends the process when a callback raises.

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

local safe_callback = {}

--- Writes a message on standard error.
function safe_callback.log(message)
  io.stderr:write("opensandbox-devserver: ", tostring(message), "\n")
end

--- Calls a function. An error is logged, and `on_error` is called.
---@param on_error? fun()
---@param fn function
---@return boolean ok
function safe_callback.call(on_error, fn, ...)
  local arguments, count = { ... }, select("#", ...)
  local ok, problem = xpcall(function() return fn(unpack(arguments, 1, count)) end, debug.traceback)
  if not ok then
    safe_callback.log(problem)
    if on_error then on_error() end
  end
  return ok
end

--- Returns the function as a callback that never raises.
---@param fn function
---@param on_error? fun()
---@return function
function safe_callback.wrap(fn, on_error)
  return function(...) safe_callback.call(on_error, fn, ...) end
end

return safe_callback

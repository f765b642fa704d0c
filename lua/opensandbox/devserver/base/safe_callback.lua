--- Keeps an error in one callback from ending the whole server: luv ends the process when a callback raises.

local unpack = rawget(table, "unpack") or rawget(_G, "unpack")

local guard = {}

--- Writes a message on standard error, where people look for what went wrong.
function guard.log(message)
  io.stderr:write("opensandbox-devserver: ", tostring(message), "\n")
end

--- Calls a function; an error is logged and handed to `on_error`.
-- @treturn boolean whether the call ended without an error
function guard.call(on_error, fn, ...)
  local arguments, count = { ... }, select("#", ...)
  local ok, problem = xpcall(function() return fn(unpack(arguments, 1, count)) end, debug.traceback)
  if not ok then
    guard.log(problem)
    if on_error then on_error() end
  end
  return ok
end

--- The function as a callback that never raises.
function guard.wrap(fn, on_error)
  return function(...) guard.call(on_error, fn, ...) end
end

return guard

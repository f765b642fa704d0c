--- A finalizer on every Lua: tables have no `__gc` in 5.1 and LuaJIT, `newproxy` does not exist after 5.1.
--
-- A forked child inherits the objects of its parent, and collects them at the latest when it exits. Their finalizers do nothing there,
-- because the sandboxes and requests are the parent's.

local core = require "opensandbox.core"

--- Returns a value that calls `fn` when it is collected, or when the state closes. Errors of `fn` are ignored, because no code can
--- receive them. Keep the value where the object is kept. `fn` must not refer to the object.
---@param fn fun()
---@return any
return function(fn)
  local process = core.process()
  local function finalize()
    if core.process() == process then pcall(fn) end
  end
  local newproxy = _G.newproxy
  if newproxy then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = finalize
    return proxy
  end
  return setmetatable({}, { __gc = finalize })
end

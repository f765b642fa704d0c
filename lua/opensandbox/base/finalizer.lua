--- A finalizer on every Lua: tables have no `__gc` in 5.1 and LuaJIT, `newproxy` does not exist after 5.1.

--- Returns a value that calls `fn` when it is collected, or when the state closes. Errors of `fn` are dropped: there is nobody to
--- tell. Keep the value where the object is kept; `fn` must not refer to the object.
---@param fn fun()
return function(fn)
  local function finalize() pcall(fn) end
  local newproxy = _G.newproxy
  if newproxy then
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = finalize
    return proxy
  end
  return setmetatable({}, { __gc = finalize })
end

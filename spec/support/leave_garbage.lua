--- Makes garbage that calls a function when it is collected, on every Lua. Errors of the function are the collector's.

---@param fn fun()
return function(fn)
  local newproxy = rawget(_G, "newproxy")
  if newproxy then
    getmetatable(newproxy(true)).__gc = fn
  else
    setmetatable({}, { __gc = fn })
  end
end

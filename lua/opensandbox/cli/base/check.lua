--- Like assert(), but it raises the error itself on every Lua: assert() of Lua 5.1 and 5.2 takes only strings.

---@param value any
---@param err any
---@return any ... its arguments
return function(value, err, ...)
  if value then return value, err, ... end
  error(err, 0)
end

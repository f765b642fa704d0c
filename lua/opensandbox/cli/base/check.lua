--- Like assert(), but it raises the error itself on every Lua: assert() of some takes only strings.

---@param value any
---@param err any
---@return any ... its arguments
return function(value, err, ...)
  if value then return value, err, ... end
  error(err, 0)
end

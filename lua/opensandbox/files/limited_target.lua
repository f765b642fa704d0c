--- A view of a file target with a time limit.

---@param target opensandbox.FileTarget
---@param limit opensandbox.Deadline
---@return opensandbox.FileTarget view all its calls end when the limit has passed, the lookup of the endpoint and commands included
return function(target, limit)
  if not limit.seconds then return target end
  return setmetatable({ client = target.client:within(limit), whole = target }, { __index = target })
end

--- Asserts that a check raises an error, which contains a part and names the operation "write".

local assert = require "luassert"

--- @tparam string part
-- @param callback with the arguments that follow
return function(part, callback, ...)
  local ok, problem = pcall(callback, ...)
  assert.is_false(ok)
  assert.equal("string", type(problem))
  assert.is_truthy(problem:find(part, 1, true), problem)
  assert.is_truthy(problem:find("write: ", 1, true), problem)
end

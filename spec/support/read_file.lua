--- The bytes of a file.

--- Returns them, or nil and the reason.
---@param path string
---@return string? bytes
---@return string? problem
return function(path)
  local file, problem = io.open(path, "rb")
  if not file then return nil, problem end
  local bytes = file:read("*a")
  file:close()
  return bytes
end

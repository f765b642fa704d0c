--- Programs of this machine.

local uv = require "luv"

--- Returns the path of the first of some programs that is installed, or nil.
---@param ... string names
---@return string?
return function(...)
  for _, name in ipairs { ... } do
    for directory in (os.getenv("PATH") or ""):gmatch("[^:]+") do
      local path = directory .. "/" .. name
      if uv.fs_access(path, "X") then return path end
    end
  end
end

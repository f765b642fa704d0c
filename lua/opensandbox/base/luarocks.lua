--- How LuaRocks installs a module for the Lua that runs. Without a version, LuaRocks takes the Lua that it runs in itself.

local luarocks = {}

--- Returns the command.
---@param module string name of a rock
---@return string
function luarocks.install(module)
  return ("luarocks --lua-version %s install %s"):format(_VERSION:match "%d+%.%d+", module)
end

return luarocks

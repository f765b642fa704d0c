--- Files that are loaded when they are first used, so that `require "opensandbox"` loads only what every script needs.

local lazy = {}

--- Returns a table of modules. Each module is loaded when its field is first read.
---@param names table<string, string> module names by field
---@return table<string, table>
function lazy.modules(names)
  return setmetatable({}, { __index = function(modules, field)
    local module = require(names[field])
    modules[field] = module
    return module
  end })
end

--- Gives a table fields whose values are made when they are first read.
---@generic T
---@param target T
---@param makers table<string, fun(): any> by field
---@return T target
function lazy.fields(target, makers)
  return setmetatable(target, { __index = function(_, field)
    local make = makers[field]
    if not make then return nil end
    local value = make()
    target[field] = value
    return value
  end })
end

return lazy

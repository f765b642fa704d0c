--- Files that are loaded when they are first used, so that `require "opensandbox"` loads only what every script needs.

local lazy = {}

local OWN_FILE = debug.getinfo(1, "S").source:gsub("^@", "")
local IS_EXHAUSTED = { [23] = true, [24] = true } -- ENFILE and EMFILE

--- Loads a module. `require` reports a file that it cannot open as missing, so this reports that there are too many open files.
---@param name string
---@return any module
function lazy.load(name)
  local ok, module = pcall(require, name)
  if ok then return module end
  local file, problem, code = io.open(OWN_FILE)
  if file then file:close() end
  error(IS_EXHAUSTED[code] and ("the module '%s' cannot be loaded: %s"):format(name, problem) or module, 0)
end

--- Returns a table of modules. Each module is loaded when its field is first read.
---@param names table<string, string> module names by field
---@return table<string, table>
function lazy.modules(names)
  return setmetatable({}, { __index = function(modules, field)
    local module = lazy.load(names[field])
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

--- Classes of the objects that people hold.
--
-- A method that is called with a dot instead of a colon, or by a misspelt name, raises an error at the caller's line that says so. Methods
-- and fields can come from other files, which are loaded when they are first used.

local each = require "opensandbox.base.each"
local lazy = require "opensandbox.base.lazy"
local options = require "opensandbox.base.options"

local class = {}

local MIN_SUGGESTED = 4 -- bytes: shorter names are near to too many others

local function results_of(_, ...) return ... end

-- Wraps a method so that it raises if its first argument is not an object of the class. The object is referenced until the method has
-- returned, because the finalizer of an object without other references could otherwise delete what the method works on.
local function wrapped(Class, name, key, method)
  return function(self, ...)
    if type(self) ~= "table" or not self[Class] then
      options.raise(name .. "." .. key, ("call it with a colon: %s:%s(...)"):format(name, key))
    end
    return results_of(self, method(self, ...))
  end
end

--- Makes the methods of a class raise a clear error if they are called with a dot, and hold their object while they run. Call this after
--- the methods are defined.
---@param Class table
---@param name string how people name an object of the class: "client", "sandbox.files"
---@return table Class
function class.check_colon(Class, name)
  Class[Class] = true -- marks its objects, and views of them
  local methods = {}
  for key, value in each(Class) do
    if type(value) == "function" and type(key) == "string" and key:sub(1, 1) ~= "_" then methods[key] = value end
  end
  for key, method in each(methods) do Class[key] = wrapped(Class, name, key, method) end
  return Class
end

-- The file and the function of each method that comes from another file.
local function index_of(methods)
  local index = {}
  for module, list in each(methods or {}) do
    for key, value in each(list) do
      index[type(key) == "number" and value or key] = { module = module, name = value }
    end
  end
  return index
end

--- Completes a class. Call this after the methods are defined.
---@param Class table
---@param definition table name (see check_colon); methods (by the module that they come from: a list of names, and entries `method = "function"` where the function has another name); fields (functions that make the value of a field, by its name)
---@return table Class
function class.define(Class, definition)
  local name, fields = definition.name, definition.fields or {}
  class.check_colon(Class, name)
  local elsewhere = index_of(definition.methods)
  local absent = {} -- names that are near to no method

  local function suggestion_for(key)
    local known = {}
    for _, names in ipairs { Class, elsewhere, fields } do
      for candidate in each(names) do
        if type(candidate) == "string" and candidate:sub(1, 1) ~= "_" then known[candidate] = true end
      end
    end
    return options.nearest(key, known)
  end

  function Class.__index(self, key)
    local value = Class[key]
    if value ~= nil or type(key) ~= "string" or key:byte() == 95 or absent[key] then return value end -- 95 is "_"
    local source = elsewhere[key]
    if source then
      Class[key] = wrapped(Class, name, key, lazy.load(source.module)[source.name])
      return Class[key]
    elseif fields[key] then
      self[key] = fields[key](self)
      return self[key]
    end
    local near = #key >= MIN_SUGGESTED and suggestion_for(key)
    if near then options.raise(name, ("there is no '%s' (did you mean '%s'?)"):format(key, near)) end
    absent[key] = true
  end

  return Class
end

return class

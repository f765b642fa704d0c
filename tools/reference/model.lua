--- The public interface of the library, from the annotations of its files: the module, the classes that it leads to, their methods.

local source = require "tools.reference.source"
local types = require "tools.reference.types"

local model = {}

---@class reference.Class
---@field name string "opensandbox.Sandbox"
---@field short string "Sandbox"
---@field variable string what examples call an object: "sandbox"
---@field doc reference.Doc
---@field file reference.File
---@field methods reference.Method[] its own
---@field fields reference.Entry[] its own, without internal ones
---@field parents string[]

---@class reference.Method
---@field name string
---@field fn reference.Function
---@field module string the module that it comes from

---@class reference.Model
---@field files table<string, reference.File> by module
---@field classes table<string, reference.Class> by name
---@field aliases table<string, reference.Doc> by name
---@field functions reference.Method[] of the module itself

local function is_internal(doc)
  return doc ~= nil and (doc.text[1] or ""):find("^Internal:") ~= nil
end

local function is_public(fn)
  return fn.name:sub(1, 1) ~= "_" and not is_internal(fn.doc)
end

-- Runs a table constructor and returns its value.
local function value_of(constructor)
  local load_text = loadstring or load -- luacheck: ignore 113
  return assert(load_text("return " .. constructor))()
end

-- Returns the text of a table constructor, which stands in the code or is the value of a local variable.
local function constructor_of(code, expression)
  if expression:find("^{") then return expression:match("^%b{}") end
  return code:match("\nlocal " .. expression .. " = (%b{})")
end

-- The methods that class.define adds from other files, in the order of the text: { name, module, function's name }.
local function methods_elsewhere(code, definition)
  local expression = definition:match("[{ ,]methods = ([%w_]+)") or definition:match("[{ ,]methods = (%b{})")
  local constructor = expression and constructor_of(code, expression)
  local list = {}
  if not constructor then return list end
  for module, names in constructor:gmatch('%["(opensandbox[%w_.]*)"%] = (%b{})') do
    local entries, aliases = value_of(names), {}
    for i, name in ipairs(entries) do
      list[#list + 1] = { name = name, module = module, original = name }
      entries[i] = nil
    end
    for name in pairs(entries) do aliases[#aliases + 1] = name end
    table.sort(aliases)
    for _, name in ipairs(aliases) do list[#list + 1] = { name = name, module = module, original = entries[name] } end
  end
  return list
end

local function public_fields(doc)
  local fields = {}
  for _, field in ipairs(doc.fields) do
    local is_hidden = field.text:find("^internal") or field.name and field.name:sub(1, 1) == "_"
    if not is_hidden then fields[#fields + 1] = field end
  end
  return fields
end

local function add_classes(self, file)
  for _, doc in ipairs(file.docs) do
    if doc.alias then self.aliases[doc.alias] = doc end
    local name = doc.class and doc.class.name
    if name then
      local short = name:match("[^.]+$")
      local class = self.classes[name] or { name = name, short = short, variable = short:lower(), methods = {}, fields = {},
        doc = doc, file = file, parents = doc.class.parents }
      -- A class can be declared in several files: its text stands in one of them.
      if #doc.text > 0 or doc.example then class.doc, class.file = doc, file end
      for _, field in ipairs(public_fields(doc)) do class.fields[#class.fields + 1] = field end
      self.classes[name] = class
    end
  end
end

local function add_method(class, method)
  for _, known in ipairs(class.methods) do
    if known.name == method.name then return end
  end
  class.methods[#class.methods + 1] = method
end

local function add_methods(self, file)
  local definition_pattern = "\nclass%.(%w+)%(([%w_]+), ([^\n]+)"
  for kind, variable, rest in file.code:gmatch(definition_pattern) do
    local class = self.classes[file.class_of[variable] or ""]
    if class and kind == "check_colon" then
      class.variable = rest:match('^"([%w_.]+)"') or class.variable
    elseif class and kind == "define" then
      local start = file.code:find("class.define(" .. variable .. ", {", 1, true)
      local definition = file.code:match("%b{}", start)
      class.variable = definition:match('name = "([%w_.]+)"') or class.variable
      for _, method in ipairs(methods_elsewhere(file.code, definition)) do
        local fn = self.files[method.module] and source.exported(self.files[method.module], method.original)
        if not fn then
          self.problems[#self.problems + 1] = ("%s: the method %s of %s is not in %s"):format(file.path, method.original,
            class.name, method.module)
        elseif is_public(fn) then
          add_method(class, { name = method.name, fn = fn, module = method.module })
        end
      end
    end
  end
  for _, fn in ipairs(file.functions) do
    local class = self.classes[fn.owner and file.class_of[fn.owner] or ""]
    local is_own = class and file.code:find("\nlocal " .. fn.owner .. " = ", 1, true)
    -- The functions of other files are methods only as class.define says.
    if is_own and fn.params[1] == "self" and is_public(fn) and not file.code:find("\nreturn " .. fn.owner .. "%s*$") then
      add_method(class, { name = fn.name, fn = fn, module = file.module })
    end
  end
end

-- The functions of the module: those that `init.lua` takes from another file, at once or when they are first used.
local function module_functions(self)
  local file, list = self.files.opensandbox, {}
  local modules = {}
  for name, module in file.code:gmatch('([%w_]+) = require "(opensandbox[%w_.]*)"') do modules[name] = module end
  for name, module in file.code:gmatch('\n  ([%w_]+) = "(opensandbox[%w_.]*)"') do modules["parts." .. name] = module end
  local function add(name, holder, original)
    local target = self.files[modules[holder] or ""]
    local fn = target and source.exported(target, original)
    if fn and is_public(fn) then list[#list + 1] = { name = name, fn = fn, module = target.module } end
  end
  for name, holder, original in file.code:gmatch("\n  ([%w_]+) = ([%w_]+)%.([%w_]+),") do add(name, holder, original) end
  for name, holder, original in file.code:gmatch("\n  ([%w_]+) = function%(%) return (parts%.[%w_]+)%.([%w_]+) end") do
    add(name, holder, original)
  end
  for name, variable in file.code:gmatch("\n  ([%w_]+) = ([%w_]+),\n") do
    for _, fn in ipairs(file.functions) do
      if not fn.owner and fn.name == variable then list[#list + 1] = { name = name, fn = fn, module = file.module } end
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- A method from another file can also be a field of its class, for editors. Its document is the function's.
local function drop_fields_of_methods(class, methods)
  local is_method, fields = {}, {}
  for _, method in ipairs(methods) do is_method[method.name] = true end
  for _, field in ipairs(class.fields) do
    if not is_method[field.name] then fields[#fields + 1] = field end
  end
  class.fields = fields
end

--- Makes the model.
---@param texts table<string, string> the files of the library, by path
---@return reference.Model
function model.new(texts)
  local self = { files = {}, classes = {}, aliases = {}, problems = {} }
  local paths = {}
  for path in pairs(texts) do paths[#paths + 1] = path end
  table.sort(paths)
  local files = {}
  for i, path in ipairs(paths) do
    files[i] = source.read(path, texts[path])
    self.files[files[i].module] = files[i]
  end
  for _, file in ipairs(files) do add_classes(self, file) end
  for _, file in ipairs(files) do add_methods(self, file) end
  self.functions = module_functions(self)
  for _, class in pairs(self.classes) do
    drop_fields_of_methods(class, class.name == "opensandbox" and self.functions or class.methods)
  end
  return self
end

--- Returns the types that a function names: of its parameters and its results.
---@param fn reference.Function
---@return string[]
function model.types_of(fn)
  local list = {}
  if not fn.doc then return list end
  for _, entry in ipairs(fn.doc.params) do
    if entry.name ~= "self" then list[#list + 1] = entry.type end
  end
  for _, entry in ipairs(fn.doc.returns) do list[#list + 1] = entry.type end
  return list
end

--- Returns the class itself and those that it inherits from, the nearest first.
---@param self reference.Model
---@param class reference.Class
---@return reference.Class[]
function model.lineage(self, class)
  local list = { class }
  for _, parent in ipairs(class.parents) do
    if self.classes[parent] then
      for _, one in ipairs(model.lineage(self, self.classes[parent])) do list[#list + 1] = one end
    end
  end
  return list
end

--- Returns the names of the classes that a class leads to: those of its fields and methods, and its parents'.
---@param self reference.Model
---@param class reference.Class
---@return string[]
function model.leads_to(self, class)
  local names = {}
  local function add(text)
    for _, name in ipairs(types.classes(text or "")) do names[#names + 1] = name end
  end
  for _, one in ipairs(model.lineage(self, class)) do
    for _, method in ipairs(one.methods) do
      for _, text in ipairs(model.types_of(method.fn)) do add(text) end
    end
    for _, field in ipairs(one.fields) do add(field.type) end
  end
  return names
end

return model

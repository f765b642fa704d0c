--- What the annotations lack: a public function, parameter, result, option or field without a document or an example.

local completeness = {}

local function mentions(code, name)
  return code ~= nil and code:find("%f[%w_]" .. name .. "%f[^%w_]") ~= nil
end

local function calls(code, name)
  return code ~= nil and code:find("[.:]" .. name .. "%f[^%w_]") ~= nil
end

local function check_function(add, page, method)
  local fn = method.fn
  local where = ("%s:%d: %s%s"):format(fn.file, fn.line, page.prefix, method.name)
  local doc = fn.doc
  if not doc or #doc.text == 0 then return add(where .. " has no document") end
  if not calls(doc.example, method.name) then add(where .. " has no example that calls it") end
  for i, name in ipairs(fn.params) do
    local is_object = i == 1 and page.prefix:sub(-1) == ":"
    local documented = is_object
    for _, entry in ipairs(doc.params) do documented = documented or entry.name == name end
    if not documented then add(("%s: the parameter '%s' has no document"):format(where, name)) end
  end
end

local function check_class(add, class)
  if #class.doc.text == 0 then add(("%s: %s has no document"):format(class.file.path, class.name)) end
  for _, field in ipairs(class.fields) do
    local where = ("%s: the field %s of %s"):format(class.file.path, field.name, class.name)
    if field.text == "" then add(where .. " has no document") end
    if not mentions(class.doc.example, field.name) then add(where .. " is not in the example of its class") end
  end
end

--- Returns the missing parts, one text each.
---@param self reference.Model
---@param list reference.Page[]
---@return string[]
function completeness.problems(self, list)
  local problems = {}
  local function add(text) problems[#problems + 1] = text end
  for _, text in ipairs(self.problems) do add(text) end
  local seen = {}
  for _, page in ipairs(list) do
    if page.class then check_class(add, page.class) end
    for _, method in ipairs(page.methods) do
      if not seen[method.fn] then check_function(add, page, method) end
      seen[method.fn] = true
    end
    for _, class in ipairs(page.records) do check_class(add, class) end
    for _, name in ipairs(page.aliases or {}) do
      local doc = self.aliases[name]
      if not doc or #doc.text == 0 or not doc.example then add(name .. " has no document with an example") end
      local known = {}
      for _, value in ipairs(doc and doc.values or {}) do
        if known[value.name] then add(("%s: %q stands there twice"):format(name, value.name)) end
        known[value.name] = true
        if value.text == "" then add(("%s: %q has no document"):format(name, value.name)) end
      end
    end
  end
  return problems
end

return completeness

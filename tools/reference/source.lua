--- Reads the annotations of one Lua file: what each block of `---` lines documents.

local types = require "tools.reference.types"

local source = {}

---@class reference.Doc a block of `---` lines
---@field text string[] its lines without tags and examples
---@field example? string the code of its example
---@field class? { name: string, parents: string[] }
---@field alias? string name of an alias
---@field fields reference.Entry[] of a class
---@field params reference.Entry[]
---@field returns reference.Entry[]
---@field values reference.Entry[] of an alias

---@class reference.Entry
---@field name? string
---@field optional? boolean
---@field type? string
---@field text string its description

---@class reference.Function
---@field owner? string the table that it is a field of, in its file
---@field name string
---@field params string[] names of its parameters
---@field doc? reference.Doc
---@field line integer
---@field file string

---@class reference.File
---@field path string
---@field module string
---@field header string[] the lines at its beginning
---@field docs reference.Doc[] that have a class or an alias
---@field class_of table<string, string> class names by local variable
---@field functions reference.Function[]
---@field code string the whole text

local function entry(text)
  local name, mark, rest = text:match("^([%w_.]+)(%??)%s+(.*)$")
  if not name then return { text = text } end
  local kind, description = types.split(rest)
  return { name = name, optional = mark == "?", type = kind, text = description }
end

local tags = {}

function tags.class(doc, rest)
  rest = rest:gsub("^%(%w+%)%s*", "")
  local name, after = rest:match("^([%w_.]+)(.*)$")
  doc.class = { name = name, parents = {} }
  local list = after:match("^:%s*(.*)$")
  while list do
    local parent
    parent, list = types.split(list)
    doc.class.parents[#doc.class.parents + 1] = parent
    after, list = list, list:match("^,%s*(.*)$")
  end
  after = after:gsub("^%s+", "")
  if after ~= "" then table.insert(doc.text, 1, after) end
end

function tags.field(doc, rest)
  if not rest:find("^%[") then doc.fields[#doc.fields + 1] = entry(rest) end
end

function tags.param(doc, rest) doc.params[#doc.params + 1] = entry(rest) end

tags["return"] = function(doc, rest)
  local kind, after = types.split(rest)
  local name, text = after:match("^([%a_][%w_]*)%s*(.*)$")
  if not name then name, text = after:match("^(%.%.%.)%s*(.*)$") end
  doc.returns[#doc.returns + 1] = { type = kind, name = name, text = text or after }
end

function tags.alias(doc, rest) doc.alias = rest:match("^[%w_.]+") end

local function new_doc()
  return { text = {}, fields = {}, params = {}, returns = {}, values = {} }
end

-- Adds one `---` line to a block.
local function add_line(doc, line)
  if doc.in_example then
    if line:find("^%s*```") then
      doc.in_example = false
    else
      doc.example[#doc.example + 1] = (line:gsub("^ ", ""))
    end
    return
  end
  local tag, rest = line:match("^@([%w_]+)%s*(.*)$")
  local value, meaning = line:match("^| *\"([^\"]+)\" *#?%s*(.*)$")
  if value then
    doc.values[#doc.values + 1] = { name = value, text = meaning }
  elseif tag then
    if tags[tag] then tags[tag](doc, rest) end
  elseif line:find("^ ?```lua") then
    doc.in_example, doc.example = true, doc.example or {}
  else
    doc.text[#doc.text + 1] = (line:gsub("^ ", ""))
  end
end

local function names_of(list)
  local names = {}
  for name in list:gmatch("[%w_.]+") do names[#names + 1] = name end
  return names
end

-- Returns the function that a line begins to define, or nil.
local function function_on(line)
  local owner, mark, name, list = line:match("^function ([%w_]+)([.:])([%w_]+)%((.-)%)")
  if owner then
    local params = names_of(list)
    if mark == ":" then table.insert(params, 1, "self") end
    return { owner = owner, name = name, params = params }
  end
  name, list = line:match("^local function ([%w_]+)%((.-)%)")
  if name then return { name = name, params = names_of(list) } end
end

local function finish(doc)
  while doc.text[#doc.text] == "" do table.remove(doc.text) end
  doc.example = doc.example and table.concat(doc.example, "\n")
  doc.in_example = nil
  return doc
end

--- Reads one file.
---@param path string
---@param code string its text
---@return reference.File
function source.read(path, code)
  local module = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
  local file = { path = path, module = module, docs = {}, class_of = {}, functions = {}, code = code }
  local doc, number = nil, 0
  for line in (code .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local comment = line:match("^%-%-%-(.*)$")
    if comment then
      doc = doc or new_doc()
      add_line(doc, comment)
    else
      if doc then
        finish(doc)
        if not file.header then file.header = doc.class and {} or doc.text end
        if doc.class or doc.alias then file.docs[#file.docs + 1] = doc end
      end
      local fn = function_on(line)
      local variable = line:match("^local ([%w_]+) =")
      if fn then
        fn.doc, fn.line, fn.file = doc, number, path
        file.functions[#file.functions + 1] = fn
      elseif variable and doc and doc.class then
        file.class_of[variable] = doc.class.name
      end
      doc = nil
    end
  end
  file.header = file.header or {}
  return file
end

--- Returns the function that a module returns under a name, or nil.
---@param file reference.File
---@param name string
---@return reference.Function?
function source.exported(file, name)
  local variable = file.code:match("\nreturn ([%w_]+)%s*$")
  local map = file.code:match("\nreturn (%b{})%s*$")
  local renamed = map and map:match("[{ ,]" .. name .. " = ([%w_]+)")
  for _, fn in ipairs(file.functions) do
    if variable and fn.owner == variable and fn.name == name then return fn end
    if renamed and not fn.owner and fn.name == renamed then return fn end
  end
end

return source

--- The reference as Markdown, a file for each page.

local model = require "tools.reference.model"

local markdown = {}

local NOTE = "<!-- Made by `make doc` from the annotations in lua/. Do not edit. -->\n"

local function slug(heading)
  return (heading:lower():gsub("[^%w _-]", ""):gsub(" ", "-"))
end

-- Escapes what Markdown would take as markup in a type.
local function escaped(text)
  return (text:gsub("[|*<>_%[%]]", "\\%0"))
end

-- Returns a type with links to the classes in it.
local function type_text(text, page, place)
  local out, position = {}, 1
  for first, name, last in text:gmatch("()(opensandbox%.%u[%w_]*)()") do
    out[#out + 1] = escaped(text:sub(position, first - 1))
    local target, short = place[name], name:match("[^.]+$")
    local is_object = target and target.class and target.class.name == name
    local file = target ~= page and target and target.file or ""
    local anchor = is_object and (file == "" and "#" .. slug(target.title) or "") or "#" .. slug(short)
    out[#out + 1] = target and ("[%s](%s%s)"):format(short, file, anchor) or escaped(short)
    position = last
  end
  out[#out + 1] = escaped(text:sub(position))
  return table.concat(out)
end

local function paragraph(out, lines)
  for _, line in ipairs(lines) do out[#out + 1] = line end
  if #lines > 0 then out[#out + 1] = "" end
end

local function example(out, code)
  if not code then return end
  out[#out + 1] = "```lua\n" .. code .. "\n```\n"
end

local function item(out, label, kind, text)
  out[#out + 1] = ("* %s%s%s"):format(label, kind ~= "" and " (" .. kind .. ")" or "", text ~= "" and ": " .. text or "")
end

local function field_item(out, entry, page, place)
  local kind = type_text(entry.type or "any", page, place)
  item(out, "`" .. entry.name .. "`", entry.optional and kind .. ", optional" or kind, entry.text)
end

local function signature(page, method)
  local names = {}
  for i, name in ipairs(method.fn.params) do
    local is_object = i == 1 and page.prefix:sub(-1) == ":"
    if not is_object then
      local optional = false
      for _, entry in ipairs(method.fn.doc and method.fn.doc.params or {}) do
        if entry.name == name then optional = entry.optional end
      end
      names[#names + 1] = optional and "[" .. name .. "]" or name
    end
  end
  return ("%s%s(%s)"):format(page.prefix, method.name, table.concat(names, ", "))
end

local function method_section(out, method, page, place)
  local doc = method.fn.doc or { text = {}, params = {}, returns = {} }
  out[#out + 1] = ("### %s%s\n\n`%s`\n"):format(page.prefix, method.name, signature(page, method))
  paragraph(out, doc.text)
  example(out, doc.example)
  local before = #out
  for i, entry in ipairs(doc.params) do
    local is_object = i == 1 and page.prefix:sub(-1) == ":" and (entry.name == "self" or entry.name == method.fn.params[1])
      and method.fn.params[1] == entry.name
    if not is_object then field_item(out, entry, page, place) end
  end
  for _, entry in ipairs(doc.returns) do
    item(out, "returns" .. (entry.name and " `" .. entry.name .. "`" or ""), type_text(entry.type, page, place), entry.text)
  end
  if #out > before then out[#out + 1] = "" end
end

local function fields(out, self, class, page, place)
  local before = #out
  for i, one in ipairs(model.lineage(self, class)) do
    for _, field in ipairs(one.fields) do
      -- A child class can describe a field of its parent again.
      local is_known = false
      for _, known in ipairs(i > 1 and class.fields or {}) do is_known = is_known or known.name == field.name end
      if not is_known and (i == 1 or #class.parents > 0 and one.methods[1]) then field_item(out, field, page, place) end
    end
  end
  if #out > before then out[#out + 1] = "" end
end

local function record_section(out, self, class, page, place)
  out[#out + 1] = ("### %s\n"):format(class.short)
  paragraph(out, class.doc.text)
  for _, parent in ipairs(class.parents) do
    out[#out + 1] = ("It has the fields of %s, too.\n"):format(type_text(parent, page, place))
  end
  example(out, class.doc.example)
  fields(out, self, class, page, place)
end

local function alias_section(out, doc)
  paragraph(out, doc.text)
  example(out, doc.example)
  for _, value in ipairs(doc.values) do item(out, "`" .. value.name .. "`", "", value.text) end
  out[#out + 1] = ""
end

local function render(self, page, place)
  local out = { NOTE, ("# %s\n"):format(page.title) }
  if page.intro then out[#out + 1] = page.intro .. "\n" end
  if page.class then
    paragraph(out, page.class.doc.text)
    example(out, page.class.doc.example)
    fields(out, self, page.class, page, place)
  end
  for _, name in ipairs(page.aliases or {}) do
    local doc = self.aliases[name]
    if doc then
      if page.class then out[#out + 1] = ("## %s\n"):format(name:match("[^.]+$")) end
      alias_section(out, doc)
    end
  end
  if #page.methods > 0 then
    out[#out + 1] = page.prefix:sub(-1) == ":" and "## Methods\n" or "## Functions\n"
    for _, method in ipairs(page.methods) do method_section(out, method, page, place) end
  end
  if #page.records > 0 then
    out[#out + 1] = "## Tables\n"
    for _, class in ipairs(page.records) do record_section(out, self, class, page, place) end
  end
  return (table.concat(out, "\n"):gsub("%s+$", "\n"))
end

local function index(list)
  local out = { NOTE, "# Reference\n" }
  for _, page in ipairs(list) do
    local names = {}
    for _, method in ipairs(page.methods) do
      names[#names + 1] = ("[%s](%s#%s)"):format(method.name, page.file, slug(page.prefix .. method.name))
    end
    out[#out + 1] = ("* **[%s](%s)**%s"):format(page.title, page.file, #names > 0 and ": " .. table.concat(names, ", ") or "")
  end
  return table.concat(out, "\n") .. "\n"
end

--- Returns the files of the reference.
---@param self reference.Model
---@param list reference.Page[]
---@param place table<string, reference.Page> by class name
---@return table<string, string> texts by path
function markdown.files(self, list, place)
  local texts = { ["doc/reference/README.md"] = index(list) }
  for _, page in ipairs(list) do texts["doc/reference/" .. page.file] = render(self, page, place) end
  return texts
end

return markdown

--- The reference as Vim's help: `:help opensandbox`.

local model = require "tools.reference.model"

local vimdoc = {}

local WIDTH = 78 -- columns, as Vim's own help

-- Adds a text, with line breaks.
local function wrapped(out, text, indent)
  local line, blank = indent, true
  for word in text:gmatch("%S+") do
    if not blank and #line + 1 + #word > WIDTH then
      out[#out + 1] = line
      line, blank = indent, true
    end
    line, blank = blank and line .. word or line .. " " .. word, false
  end
  if not blank then out[#out + 1] = line end
end

-- Adds the lines of a comment: paragraphs, and lists whose lines begin with "*".
local function paragraphs(out, lines, indent)
  local text = {}
  local function flush()
    if #text > 0 then wrapped(out, table.concat(text, " "), indent) end
    text = {}
  end
  for _, line in ipairs(lines) do
    if line == "" or line:find("^%* ") then flush() end
    if line == "" then out[#out + 1] = "" else text[#text + 1] = line end
  end
  flush()
end

local function example(out, code, indent)
  if not code then return end
  out[#out + 1] = ">lua"
  for line in (code .. "\n"):gmatch("(.-)\n") do out[#out + 1] = line == "" and "" or indent .. "    " .. line end
  out[#out + 1] = "<"
end

local function heading(out, text, tags)
  local right = {}
  for _, tag in ipairs(tags) do right[#right + 1] = "*" .. tag .. "*" end
  local labels = table.concat(right, " ")
  local space = WIDTH - #text - #labels
  if space < 1 then
    out[#out + 1] = (" "):rep(WIDTH - #labels) .. labels
    out[#out + 1] = text
  else
    out[#out + 1] = text .. (" "):rep(space) .. labels
  end
end

local function short_type(text)
  return (text:gsub("opensandbox%.(%u[%w_]*)", "|opensandbox.%1|"))
end

local function entry_lines(out, label, entry)
  local kind = entry.type and " (" .. short_type(entry.type) .. (entry.optional and ", optional" or "") .. ")" or ""
  wrapped(out, label .. kind .. (entry.text ~= "" and ": " .. entry.text or ""), "        ")
end

local function fields(out, list)
  for _, field in ipairs(list) do entry_lines(out, "{" .. field.name .. "}", field) end
end

local function method_section(out, page, method)
  local doc = method.fn.doc or { text = {}, params = {}, returns = {} }
  out[#out + 1] = ""
  local name = page.prefix .. method.name
  local tag = page.prefix == "opensandbox." and name .. "()" or "opensandbox-" .. name .. "()"
  heading(out, name .. "()", { tag })
  paragraphs(out, doc.text, "    ")
  example(out, doc.example, "    ")
  for _, entry in ipairs(doc.params) do
    local is_object = entry.name == method.fn.params[1] and page.prefix:sub(-1) == ":"
    if not is_object then entry_lines(out, "{" .. (entry.name or "...") .. "}", entry) end
  end
  for _, entry in ipairs(doc.returns) do entry_lines(out, "Returns" .. (entry.name and " " .. entry.name or ""), entry) end
end

local function page_section(out, self, page, number)
  out[#out + 1] = ("="):rep(WIDTH)
  local tags = { "opensandbox-" .. page.file:gsub("%.md$", "") }
  if page.class and page.class.name ~= "opensandbox" then tags[2] = page.class.name end
  heading(out, ("%d. %s"):format(number, page.title), tags)
  out[#out + 1] = ""
  if page.intro then wrapped(out, page.intro, "") end
  if page.class then
    paragraphs(out, page.class.doc.text, "")
    example(out, page.class.doc.example, "")
    for _, one in ipairs(model.lineage(self, page.class)) do fields(out, one.fields) end
  end
  for _, name in ipairs(page.aliases or {}) do
    local doc = self.aliases[name]
    if doc then
      out[#out + 1] = ""
      heading(out, name:match("[^.]+$"), { name })
      paragraphs(out, doc.text, "    ")
      example(out, doc.example, "    ")
      for _, value in ipairs(doc.values) do entry_lines(out, '"' .. value.name .. '"', value) end
    end
  end
  for _, method in ipairs(page.methods) do method_section(out, page, method) end
  for _, class in ipairs(page.records) do
    out[#out + 1] = ""
    heading(out, class.short, { class.name })
    paragraphs(out, class.doc.text, "    ")
    for _, parent in ipairs(class.parents) do
      wrapped(out, ("It has the fields of %s, too."):format(short_type(parent)), "    ")
    end
    example(out, class.doc.example, "    ")
    fields(out, class.fields)
  end
  out[#out + 1] = ""
end

--- Returns the help file.
---@param self reference.Model
---@param list reference.Page[]
---@return string
function vimdoc.text(self, list)
  local out = { "*opensandbox.txt*  Drive OpenSandbox from Lua", "" }
  heading(out, "OpenSandbox for Lua", { "opensandbox" })
  out[#out + 1] = ""
  wrapped(out, "Made by `make doc` from the annotations in lua/. Do not edit.", "")
  out[#out + 1] = ""
  for number, page in ipairs(list) do
    local left = ("%3d. %s"):format(number, page.title)
    local right = "|opensandbox-" .. page.file:gsub("%.md$", "") .. "|"
    out[#out + 1] = left .. (" "):rep(math.max(1, 44 - #left)) .. right
  end
  out[#out + 1] = ""
  for number, page in ipairs(list) do page_section(out, self, page, number) end
  out[#out + 1] = "vim:tw=78:ts=8:noet:ft=help:norl:"
  return table.concat(out, "\n") .. "\n"
end

return vimdoc

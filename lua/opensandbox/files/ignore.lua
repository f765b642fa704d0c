--- Patterns of names to ignore, as in a .gitignore file.

local ignore = {}

local Patterns = {}
Patterns.__index = Patterns

local classes = {
  alpha = "%a", digit = "%d", alnum = "%w", upper = "%u", lower = "%l", space = "%s", punct = "%p", cntrl = "%c", xdigit = "%x",
}

local function literal(char)
  return char:find("^%w$") and char or "%" .. char
end

-- Returns the Lua pattern of the bracket expression at a position, and where it ends. Returns nil if it is not closed.
local function bracket(text, at)
  local negated = text:find("^[!^]", at + 1)
  local i = at + (negated and 2 or 1)
  local out, first = {}, i
  while true do
    local char = text:sub(i, i)
    local class = text:match("^%[:(%l+):%]", i)
    if char == "" then return nil end
    if char == "]" and i > first then break end
    if class and classes[class] then
      out[#out + 1] = classes[class]
      i = i + #class + 4
    else
      if char == "\\" then
        i = i + 1
        char = text:sub(i, i)
      end
      local to = text:match("^%-([^%]])", i + 1)
      for byte = char:byte(), math.max(char:byte(), (to or char):byte()) do out[#out + 1] = literal(string.char(byte)) end
      i = i + (to and 3 or 1)
    end
  end
  return "[" .. (negated and "^" or "") .. table.concat(out) .. "]", i
end

-- Parses one segment of a path. Returns the parts between the "*", each with its Lua pattern and the number of bytes it matches.
local function segment(text)
  local parts, items, i = {}, {}, 1
  local function end_part()
    parts[#parts + 1] = { pattern = table.concat(items), size = #items }
    items = {}
  end
  while i <= #text do
    local char = text:sub(i, i)
    if char == "*" then
      end_part()
    elseif char == "?" then
      items[#items + 1] = "."
    else
      local class, last
      if char == "[" then class, last = bracket(text, i) end
      if char == "\\" and i < #text then
        i = i + 1
        char = text:sub(i, i)
      end
      items[#items + 1] = class or literal(char)
      i = last or i
    end
    i = i + 1
  end
  end_part()
  return parts
end

-- Returns whether the parts match a name. Each is taken where it matches first, so that the time does not grow with a power of the
-- name's length: names come from the sandbox.
local function matches_name(parts, name)
  local first, last = parts[1], parts[#parts]
  if #parts == 1 then return #name == first.size and name:find("^" .. first.pattern .. "$") ~= nil end
  if not name:find("^" .. first.pattern) then return false end
  local at = first.size + 1
  for i = 2, #parts - 1 do
    local _, found = name:find(parts[i].pattern, at)
    if not found then return false end
    at = found + 1
  end
  local tail = #name - last.size + 1
  return tail >= at and name:find("^" .. last.pattern .. "$", tail) ~= nil
end

-- Parses one line. Returns nil for an empty line and for a comment.
local function parse(line)
  line = line:gsub("\r$", "")
  while line:find(" $") and not line:find("\\ $") do line = line:sub(1, -2) end
  if line == "" or line:find("^#") then return nil end
  local rule = {}
  if line:find("^!") then
    rule.keep = true
    line = line:sub(2)
  end
  if line:find("/$") then
    rule.only_directories = true
    line = line:gsub("/+$", "")
  end
  if line == "" then return nil end
  if not line:find("/", 1, true) then
    rule.groups = { {}, { segment(line) } }
    if not rule.keep and not rule.only_directories and not line:find("[*?%[\\]") then rule.literal = line end
    return rule
  end
  rule.groups = { {} }
  for text in line:gmatch("[^/]+") do
    local group = rule.groups[#rule.groups]
    if text == "**" then rule.groups[#rule.groups + 1] = {} else group[#group + 1] = segment(text) end
  end
  return rule
end

-- Returns whether the segments of a group match the names from a position on.
local function matches_at(group, names, at)
  for i, parts in ipairs(group) do
    local name = names[at + i - 1]
    if not name or not matches_name(parts, name) then return false end
  end
  return true
end

-- Returns whether groups of segments, which were separated by "**", match a path. "**" matches any number of names; at the end it
-- matches at least one. Each group is taken where it matches first.
local function matches(groups, names)
  local first, last = groups[1], groups[#groups]
  if #groups == 1 then return #names == #first and matches_at(first, names, 1) end
  if not matches_at(first, names, 1) then return false end
  local at = #first + 1
  for i = 2, #groups - 1 do
    while at <= #names and not matches_at(groups[i], names, at) do at = at + 1 end
    if at > #names then return false end
    at = at + #groups[i]
  end
  if #last == 0 then return at <= #names end
  local tail = #names - #last + 1
  return tail >= at and matches_at(last, names, tail)
end

local function split(path)
  local names = {}
  for name in path:gmatch("[^/]+") do names[#names + 1] = name end
  return names
end

--- Returns whether a path is ignored, or nil if no pattern matches it. The last pattern that matches decides. Ignored parents are
--- not considered.
---@param path string relative to the directory of the patterns
---@param is_directory boolean
---@return boolean? ignored
function Patterns:verdict(path, is_directory)
  local names = split(path)
  for i = #self.rules, 1, -1 do
    local rule = self.rules[i]
    if (is_directory or not rule.only_directories) and matches(rule.groups, names) then return not rule.keep end
  end
  return nil
end

--- Returns a function that returns whether a path is ignored, by itself or with one of its parents.
---@return fun(path: string, is_directory: boolean): boolean
function Patterns:filter()
  if #self.rules == 0 then return function() return false end end
  local directories = {}
  local function ignored(path, is_directory)
    if is_directory and directories[path] ~= nil then return directories[path] end
    local parent = path:match("^(.*)/")
    local verdict = parent and ignored(parent, true) or self:verdict(path, is_directory) or false
    if is_directory then directories[path] = verdict end
    return verdict
  end
  return ignored
end

--- Returns the base names that are ignored in every directory, whatever the other patterns are.
---@return string[]
function Patterns:literal_names()
  local names = {}
  for _, rule in ipairs(self.rules) do
    if rule.keep then return {} end
    names[#names + 1] = rule.literal
  end
  return names
end

--- Parses patterns such as `*.o`, `build/`, `/top`, `a/**/b` and `!keep`, each as a line of a .gitignore file.
---@param lines string[]
---@return table patterns
function ignore.new(lines)
  local rules = {}
  for _, line in ipairs(lines) do rules[#rules + 1] = parse(line) end
  return setmetatable({ rules = rules }, Patterns)
end

--- Parses the text of a .gitignore file.
---@param text string
---@return table patterns
function ignore.parse(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return ignore.new(lines)
end

return ignore

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

-- Returns the Lua pattern of one segment of a path. `*` matches any byte, because a segment holds no "/".
local function segment(text)
  local out, i = { "^" }, 1
  while i <= #text do
    local char = text:sub(i, i)
    if char == "*" then
      if out[#out] ~= ".*" then out[#out + 1] = ".*" end
    elseif char == "?" then
      out[#out + 1] = "."
    else
      local class, last
      if char == "[" then class, last = bracket(text, i) end
      if char == "\\" and i < #text then
        i = i + 1
        char = text:sub(i, i)
      end
      out[#out + 1] = class or literal(char)
      i = last or i
    end
    i = i + 1
  end
  return table.concat(out) .. "$"
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
    rule.segments = { "**", segment(line) }
    if not rule.keep and not rule.only_directories and not line:find("[*?%[\\]") then rule.literal = line end
    return rule
  end
  rule.segments = {}
  for text in line:gmatch("[^/]+") do
    rule.segments[#rule.segments + 1] = text == "**" and text or segment(text)
  end
  return rule
end

-- Returns whether segments[i..] match names[j..]. "**" matches any number of names; at the end it matches at least one.
local function matches(segments, i, names, j)
  while segments[i] and segments[i] ~= "**" do
    if not names[j] or not names[j]:find(segments[i]) then return false end
    i, j = i + 1, j + 1
  end
  if not segments[i] then return names[j] == nil end
  if not segments[i + 1] then return names[j] ~= nil end
  for k = j, #names do
    if matches(segments, i + 1, names, k) then return true end
  end
  return false
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
    if (is_directory or not rule.only_directories) and matches(rule.segments, 1, names, 1) then return not rule.keep end
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

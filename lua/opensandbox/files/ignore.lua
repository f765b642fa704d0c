--- Patterns of what to leave out, as in a .gitignore file.

local ignore = {}

local Patterns = {}
Patterns.__index = Patterns

local classes = {
  alpha = "%a", digit = "%d", alnum = "%w", upper = "%u", lower = "%l", space = "%s", punct = "%p", cntrl = "%c", xdigit = "%x",
}

local function literal(char)
  return char:find("^%w$") and char or "%" .. char
end

-- The Lua pattern of a bracket expression that begins at `at`, and where it ends; nil when it does not end.
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

-- The Lua pattern of one step of a path. `*` may stand for any byte there: there is no "/" in it.
local function step(text)
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

-- One line: nil for an empty one and a comment.
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
    rule.steps = { "**", step(line) }
    if not rule.keep and not rule.only_directories and not line:find("[*?%[\\]") then rule.plain = line end
    return rule
  end
  rule.steps = {}
  for part in line:gmatch("[^/]+") do
    rule.steps[#rule.steps + 1] = part == "**" and part or step(part)
  end
  return rule
end

-- Whether steps[i..] match names[j..]. "**" stands for any number of names; at the end for at least one.
local function matches(steps, i, names, j)
  while steps[i] and steps[i] ~= "**" do
    if not names[j] or not names[j]:find(steps[i]) then return false end
    i, j = i + 1, j + 1
  end
  if not steps[i] then return names[j] == nil end
  if not steps[i + 1] then return names[j] ~= nil end
  for k = j, #names do
    if matches(steps, i + 1, names, k) then return true end
  end
  return false
end

local function split(path)
  local names = {}
  for name in path:gmatch("[^/]+") do names[#names + 1] = name end
  return names
end

--- Whether a name is left out; nil when no pattern is about it. The last pattern that matches decides. What lies in a directory that is
--- left out is not asked for here.
---@param path string relative to where the patterns stand
---@param is_directory boolean
---@return boolean? ignored
function Patterns:verdict(path, is_directory)
  local names = split(path)
  for i = #self.rules, 1, -1 do
    local rule = self.rules[i]
    if (is_directory or not rule.only_directories) and matches(rule.steps, 1, names, 1) then return not rule.keep end
  end
  return nil
end

--- A function that tells whether a path is left out, by itself or with a directory above it.
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

--- The base names that are left out wherever they are, whatever else the patterns say.
---@return string[]
function Patterns:plain_names()
  local names = {}
  for _, rule in ipairs(self.rules) do
    if rule.keep then return {} end
    names[#names + 1] = rule.plain
  end
  return names
end

--- Reads patterns: `*.o`, `build/`, `/top`, `a/**/b`, `!keep`, each as a line of a .gitignore file.
---@param lines string[]
---@return table patterns
function ignore.new(lines)
  local rules = {}
  for _, line in ipairs(lines) do rules[#rules + 1] = parse(line) end
  return setmetatable({ rules = rules }, Patterns)
end

--- The same from the text of a .gitignore file.
---@param text string
function ignore.parse(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
  return ignore.new(lines)
end

return ignore

--- Glob patterns for the base names of files: `*`, `?`, `[a-z]`, `[^a]`, `[!a]`, `\x`, and in the extended form `{a,b}` and `!(a|b)`.

local glob = {}

local CHARACTER = "[%z\1-\127\192-\255][\128-\191]*"

local function characters(text)
  local list = {}
  for character in text:gmatch(CHARACTER) do list[#list + 1] = character end
  return list
end

local parse_sequence

local function syntax_error() error("syntax error in pattern", 0) end

-- Parses alternatives up to `closing`. They begin at `position`.
local function parse_alternatives(source, position, separator, closing)
  local alternatives = {}
  repeat
    local tokens
    tokens, position = parse_sequence(source, position, separator, closing)
    alternatives[#alternatives + 1] = tokens
    if not source[position] then syntax_error() end
    position = position + 1
  until source[position - 1] == closing
  return alternatives, position
end

local function parse_set(source, position)
  local set = { kind = "set" }
  if source[position] == "^" or source[position] == "!" then
    set.negated = true
    position = position + 1
  end
  local first = true
  while source[position] ~= "]" or first do
    local function next_character()
      if source[position] == "\\" then position = position + 1 end
      local character = source[position]
      if not character then syntax_error() end
      position = position + 1
      return character
    end
    local low = next_character()
    local high = low
    if source[position] == "-" and source[position + 1] ~= "]" then
      position = position + 1
      high = next_character()
    end
    set[#set + 1] = { low, high }
    first = false
  end
  return set, position + 1
end

function parse_sequence(source, position, separator, closing)
  local tokens = {}
  while source[position] and source[position] ~= separator and source[position] ~= closing do
    local character = source[position]
    local token
    position = position + 1
    if source.extended and character == "*" and #tokens == 0 and source[position] == "*" and source[position + 1] == "/" then
      position = position + 2 -- any directories, and a base name has none
    elseif character == "*" then
      token = { kind = "any" }
    elseif character == "?" then
      token = { kind = "one" }
    elseif character == "[" then
      token, position = parse_set(source, position)
    elseif source.extended and character == "{" then
      token = { kind = "choice" }
      token.alternatives, position = parse_alternatives(source, position, ",", "}")
    elseif source.extended and character == "!" and source[position] == "(" then
      token = { kind = "not" }
      token.alternatives, position = parse_alternatives(source, position + 1, "|", ")")
    else
      if character == "\\" then
        character, position = source[position], position + 1
        if not character then syntax_error() end
      end
      token = { kind = "literal", character = character }
    end
    tokens[#tokens + 1] = token
  end
  return tokens, position
end

local function in_set(set, character)
  local found = false
  for _, range in ipairs(set) do
    if character >= range[1] and character <= range[2] then found = true end
  end
  return found ~= (set.negated or false)
end

local match

-- Returns whether one of the alternatives matches `name` from `from` to before `to`.
local function matches_any(alternatives, name, from, to)
  for _, tokens in ipairs(alternatives) do
    if match(tokens, 1, name, from, function(position) return position == to end) then return true end
  end
  return false
end

-- Matches tokens from `index` on at `position`. `accept` decides about the position where they end.
function match(tokens, index, name, position, accept)
  local token = tokens[index]
  if not token then return accept(position) end
  local function rest(at) return match(tokens, index + 1, name, at, accept) end
  local character = name[position]
  if token.kind == "any" or token.kind == "not" then
    for to = position, #name + 1 do
      if (token.kind == "any" or not matches_any(token.alternatives, name, position, to)) and rest(to) then
        return true
      end
    end
    return false
  elseif token.kind == "choice" then
    for _, alternative in ipairs(token.alternatives) do
      if match(alternative, 1, name, position, rest) then return true end
    end
    return false
  end
  local fits = character and (token.kind == "one" or (token.kind == "set" and in_set(token, character))
    or character == token.character)
  return fits and rest(position + 1) or false
end

--- Compiles a pattern.
---@param pattern string
---@param extended boolean the pattern may hold `{a,b}` and `!(a|b)`, and begin with `**/`, as in the files API of the sandbox
---@return (fun(name: string): boolean)? matches
---@return string? problem
function glob.compile(pattern, extended)
  local source = characters(pattern)
  source.extended = extended
  local ok, tokens = pcall(parse_sequence, source, 1)
  if not ok then return nil, tokens end
  return function(text)
    local name = characters(text)
    return match(tokens, 1, name, 1, function(position) return position == #name + 1 end)
  end
end

return glob

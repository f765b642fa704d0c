--- Types as annotations write them: where one ends, and which classes it names.

local types = {}

local skip_type -- defined below, because types nest

-- Returns the position behind a text in brackets that begins at `position`.
local function skip_brackets(text, position)
  local open = text:sub(position, position)
  local close = ({ ["("] = ")", ["{"] = "}", ["<"] = ">", ["["] = "]" })[open]
  local _, last = text:find("^%b" .. open .. close, position)
  return last and last + 1
end

-- Returns the position behind the results of a function type, which begin at the colon.
local function skip_results(text, position)
  local after = text:match("^:%s*()", position)
  while after do
    local last = skip_type(text, after)
    if not last then return position end
    position = last
    after = text:match("^,%s*()", position)
  end
  return position
end

-- Returns the position behind a type without "|", or nil if none begins at `position`.
local function skip_single(text, position)
  local last
  if text:find("^[({]", position) then
    last = skip_brackets(text, position)
  elseif text:find('^"', position) then
    last = text:match('^"[^"]*"()', position)
  elseif text:find("^fun%(", position) then
    last = skip_results(text, skip_brackets(text, position + 3))
  else
    last = text:match("^%.%.%.[%w_]*()", position) or text:match("^[%a_][%w_.]*%*?()", position)
      or text:match("^%-?%d+()", position)
    if last and text:find("^<", last) then last = skip_brackets(text, last) end
  end
  while last do
    local following = text:match("^%?()", last) or text:match("^%[%]()", last)
    if not following then break end
    last = following
  end
  return last
end

function skip_type(text, position)
  local last = skip_single(text, position)
  local after = last and text:match("^|()", last)
  while after do
    last = skip_single(text, after) or last
    after = text:match("^|()", last)
  end
  return last
end

--- Splits a text into the type at its beginning and the rest.
---@param text string
---@return string type
---@return string rest
function types.split(text)
  local last = skip_type(text, 1) or 1
  return text:sub(1, last - 1), (text:sub(last):gsub("^%s+", ""))
end

--- Returns the names of the classes in a type, in their order.
---@param text string
---@return string[]
function types.classes(text)
  local names = {}
  for name in text:gmatch("opensandbox%.%u[%w_]*") do names[#names + 1] = name end
  return names
end

return types

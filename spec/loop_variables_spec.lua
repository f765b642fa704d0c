--- No file assigns to the variable of a `for` loop, which Lua 5.5 refuses to compile: a number, or the first name of a generic `for`.

local sources = require "spec.support.sources"

-- Splits code into names, numbers, strings (which are empty here), and other characters; "==" and the like are one token.
local function tokens_of(code)
  local tokens, line, position = {}, 1, 1
  while position <= #code do
    local newline = code:match("^\n", position)
    local token = newline or code:match("^%s", position) or code:match("^[%a_][%w_]*", position)
      or code:match("^%d[%w.]*", position) or code:match("^[=~<>]=", position) or code:match("^%.+", position)
      or code:sub(position, position)
    if newline then line = line + 1 elseif not token:find("^%s") then tokens[#tokens + 1] = { text = token, line = line } end
    position = position + #token
  end
  return tokens
end

local KEYWORDS = {}
for word in ([[
  and break do else elseif end false for function if in local nil not or repeat return then true until while
]]):gmatch("%a+") do KEYWORDS[word] = true end

local function is_name(text)
  return text ~= nil and text:find("^[%a_]") ~= nil and not KEYWORDS[text]
end

-- Returns the places where a text assigns to a loop variable, as "line: name".
local function violations(text)
  local tokens, found = tokens_of(sources.code(text)), {}
  local blocks = { {} } -- each has its names: true for a loop variable, false for any other; `table` marks a constructor
  local pending -- the names of a loop or of a function, for the block that begins next
  local function top() return blocks[#blocks] end
  local function push(names)
    blocks[#blocks + 1], pending = names or pending or {}, nil
  end
  local function pop() blocks[#blocks] = nil end
  local function at(index) return tokens[index] and tokens[index].text end

  -- Reads names from a place on, and returns them and the place after them. Attributes such as <close> are skipped.
  local function names_from(index)
    local names = {}
    while is_name(at(index)) do
      names[#names + 1] = at(index)
      index = index + 1
      if at(index) == "<" then index = index + 3 end
      if at(index) ~= "," then break end
      index = index + 1
    end
    return names, index
  end

  local function is_loop_variable(name)
    for depth = #blocks, 1, -1 do
      if blocks[depth][name] ~= nil then return blocks[depth][name] end
    end
    return false
  end

  local function check_assignment(index)
    local target = index - 1
    while is_name(at(target)) do
      local before = at(target - 1)
      if before ~= "." and before ~= ":" and is_loop_variable(at(target)) then
        found[#found + 1] = ("%d: %s"):format(tokens[target].line, at(target))
      end
      if before ~= "," then return end
      target = target - 2
    end
  end

  local index = 1
  while at(index) do
    local token = at(index)
    local follows = index + 1
    if token == "for" then
      local names
      names, follows = names_from(index + 1)
      pending = {}
      for position, name in ipairs(names) do pending[name] = position == 1 end
      if at(follows) == "=" then follows = follows + 1 end
    elseif token == "function" then
      while at(follows) ~= "(" do follows = follows + 1 end
      local names
      names, follows = names_from(follows + 1)
      local parameters = {}
      for _, name in ipairs(names) do parameters[name] = false end
      push(parameters)
    elseif token == "local" and at(index + 1) == "function" then
      top()[at(index + 2)] = false
    elseif token == "local" then
      local names
      names, follows = names_from(index + 1)
      for _, name in ipairs(names) do top()[name] = false end
      if at(follows) == "=" then follows = follows + 1 end
    elseif token == "do" or token == "then" or token == "repeat" then
      push()
    elseif token == "{" then
      push { [0] = "table" }
    elseif token == "elseif" or token == "end" or token == "until" or token == "}" then
      pop()
    elseif token == "else" then
      pop()
      push()
    elseif token == "=" and top()[0] ~= "table" then
      check_assignment(index)
    end
    index = follows
  end
  return found
end

describe("no file assigns to a loop variable", function()
  for _, directory in ipairs { "lua", "spec", "bench", "examples", "tools", "types" } do
    it("of " .. directory, function()
      local found = {}
      for path, text in pairs(sources.read(directory)) do
        for _, place in ipairs(violations(text)) do found[#found + 1] = path .. ":" .. place end
      end
      assert.same({}, found)
    end)
  end

  it("where such an assignment would be found", function()
    for _, text in ipairs {
      "for i = 1, 2 do\ni = i + 1 end", "for k, v in pairs(t) do\nk = 1 end", "for k in f do if x then y()\nx, k = 1, 2 end end",
      "for k in f do local function g()\nk = 1 end end", "for k in f do local t = { k = 1, f = function()\nk = 2 end } end",
      "for k in f do do local k; k = 1 end\nk = 2 end", "for k in f do repeat\nk = 2 until x end",
      "for k in f do if a then elseif b then\nk = 1 else k() end end",
    } do
      local found = violations(text)
      assert.equal(1, #found, text)
      assert.matches("^2: [ik]$", found[1])
    end
  end)

  it("where it is something else", function()
    for _, text in ipairs {
      "for k, v in pairs(t) do v = 1 end", "for k in f do t.k = 1 end", "for k in f do local k = k; k = 1 end",
      "for k in f do g { k = 1 } end", "for k in f do local function g(k) k = 1 end end", "for k in f do end k = 1",
      "for k in f do if k == 1 then g('k = 1') end -- k = 1\nend",
      "for k in f do while x do x = k end x = function(k) k = 2 end end",
      "for k in f do for k = 1, 2 do g(k) end end",
    } do assert.same({}, violations(text), text) end
  end)
end)

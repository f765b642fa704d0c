--- Checks of arguments and option tables.
--
-- A mistake of the caller raises, at the caller's line: the first line outside this library, however deep inside the check is.

local options = {}

local library = debug.getinfo(1, "S").source:match("^(.*)base[/\\]options%.lua$") or "=opensandbox"

-- The level, as `error` counts from the function that calls `raise`, of the code that called the library.
local function caller_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 3 end
    if info.what ~= "C" and info.what ~= "tail" and info.source:sub(1, #library) ~= library then return level - 1 end
    level = level + 1
  end
end

--- Raises an error about an argument, at the line that called the library.
---@param op string
---@param text string
function options.raise(op, text)
  error(op .. ": " .. text, caller_level())
end

local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

local function closest(name, known)
  local best, best_distance
  for candidate in pairs(known) do
    local d = distance(name, candidate)
    if d <= math.max(1, math.floor(#name / 3)) and (not best or d < best_distance or (d == best_distance and candidate < best)) then
      best, best_distance = candidate, d
    end
  end
  return best
end

local function describe(value)
  if type(value) == "string" then return ("%q"):format(#value > 40 and value:sub(1, 40) .. "..." or value) end
  return type(value) == "number" and tostring(value) or "a " .. type(value)
end

-- What an option may be: each test gives true, or the words for what was expected.
local tests = {
  any = function() return true end,
  string = function(v) return type(v) == "string" or "a string" end,
  text = function(v) return (type(v) == "string" and v ~= "" and not v:find("%z")) or "a string that is not empty" end,
  boolean = function(v) return type(v) == "boolean" or "true or false" end,
  table = function(v) return type(v) == "table" or "a table" end,
  callable = function(v)
    local meta = getmetatable(v)
    return type(v) == "function" or (type(meta) == "table" and meta.__call ~= nil) or "a function"
  end,
  seconds = function(v)
    return (type(v) == "number" and v > 0 and v < 1e9) or "a number of seconds greater than 0"
  end,
  ["seconds or 0"] = function(v)
    return (type(v) == "number" and v >= 0 and v < 1e9) or "a number of seconds, 0 or greater"
  end,
  ["seconds or false"] = function(v)
    return v == false or (type(v) == "number" and v > 0 and v < 1e9) or "a number of seconds greater than 0, or false for no limit"
  end,
  count = function(v)
    return (type(v) == "number" and v >= 0 and v % 1 == 0 and v < 2 ^ 53) or "a whole number, 0 or greater"
  end,
  list = function(v)
    if type(v) ~= "table" then return "a list of strings" end
    local length = 0
    for _ in pairs(v) do length = length + 1 end
    for i = 1, length do
      if type(v[i]) ~= "string" then return "a list of strings" end
    end
    return true
  end,
  strings = function(v)
    if type(v) ~= "table" then return "a table of strings" end
    for name, value in pairs(v) do
      if type(name) ~= "string" or type(value) ~= "string" then return "a table of strings, by name" end
    end
    return true
  end,
}
-- Environment variables. The system would take "A=B" = "c" for A = "B=c".
tests.variables = function(v)
  local verdict = tests.strings(v)
  if verdict ~= true then return verdict end
  for name, value in pairs(v) do
    if name == "" or name:find("[=%z]") or value:find("%z") then
      return "a table of variables, whose names have no '=' and are not empty, without NUL bytes"
    end
  end
  return true
end
tests["function"] = tests.callable

--- Checks one argument. `what` is its name in messages, `test` a name of the list above.
function options.argument(op, what, value, test)
  local verdict = tests[test](value)
  if verdict ~= true then
    options.raise(op, ("%s must be %s, not %s"):format(what, verdict, value == nil and "nil" or describe(value)))
  end
  return value
end

--- Checks a name that becomes one step of a URL's path, where "." and ".." would mean another route.
function options.identifier(op, what, value)
  options.argument(op, what, value, "text")
  if value == "." or value == ".." then options.raise(op, ("%s must not be %q"):format(what, value)) end
  return value
end

--- Checks a name that becomes one step of the path of an endpoint's URL. Proxies on the way decode it, and take some characters for
--- what they mean in a URL: the answer would be about another name.
---@param instead string what to do where the name is refused
function options.segment(op, what, value, instead)
  options.identifier(op, what, value)
  local found = value:match("[/?#%%\\%c]")
  if found then
    options.raise(op, ("%s holds %q, which does not pass through proxies in the path of a URL: %s"):format(what, found, instead))
  end
  return value
end

--- Checks the number of a TCP port.
function options.port(op, port)
  options.argument(op, "the port", port, "count")
  if port < 1 or port > 65535 then options.raise(op, "the port must be between 1 and 65535, not " .. port) end
  return port
end

--- Checks an option table against `known` (name -> test) and returns it, or an empty one for nil. An unknown name raises.
---@param op string
---@param given? table
---@param known table<string, string>
---@return table
function options.check(op, given, known)
  if given == nil then return {} end
  options.argument(op, "options", given, "table")
  for name, value in pairs(given) do
    local test = known[name]
    if not test then
      local near = type(name) == "string" and closest(name, known)
      local names = {}
      for candidate in pairs(known) do names[#names + 1] = candidate end
      table.sort(names)
      options.raise(op, ("unknown option '%s'%s"):format(tostring(name),
        near and (" (did you mean '%s'?)"):format(near) or "; known are " .. table.concat(names, ", ")))
    end
    options.argument(op, "option '" .. name .. "'", value, test)
  end
  return given
end

--- A new list with the items of another.
---@param list? any[]
---@return any[]
function options.copy(list)
  local copy = {}
  for i, item in ipairs(list or {}) do copy[i] = item end
  return copy
end

--- A new table with the entries of all given; later ones win.
function options.merge(...)
  local merged = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do merged[name] = value end
  end
  return merged
end

return options

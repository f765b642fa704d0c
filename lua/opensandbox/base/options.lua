--- Checks of arguments and option tables.
--
-- A mistake of the caller raises an error at the caller's line: the first line outside this library, however deep the check is. A function
-- that makes a tail call has no line any more. In a coroutine that runs nothing else of the caller, the error has no position.
-- A check returns the value to use, which can differ from the given one: "10m" becomes 600, and a number in a table of strings becomes
-- a string.

local each = require "opensandbox.base.each"
local lazy = require "opensandbox.base.lazy"
local numbers = require "opensandbox.base.numbers"
local tables = require "opensandbox.base.tables"
local url = require "opensandbox.base.url"

-- Files that are loaded when a check first needs them.
local parts = lazy.modules { time = "opensandbox.base.time" }

local options = {}

local library = debug.getinfo(1, "S").source:match("^(.*)base[/\\]options%.lua$") or "=opensandbox"

local MAX_SHOWN = 40 -- bytes of a string in a message

-- Returns the level, as error() counts from the function that calls `raise`, of the code that called the library; 0 when there is none.
local function caller_level()
  local level = 3
  while true do
    local info = debug.getinfo(level, "S")
    if not info then return 0 end
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

-- Returns the number of edits between two names: an additional, missing or other character, or two neighbours in the wrong order.
local function edit_distance(a, b)
  local before, row = nil, {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local new = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      new[j] = math.min(row[j] + 1, new[j - 1] + 1, row[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        new[j] = math.min(new[j], before[j - 2] + 1)
      end
    end
    before, row = row, new
  end
  return row[#b]
end

--- Returns the known name that a misspelt one is nearest to.
---@param name string
---@param known table<string, any> by name
---@return string? nil when none is near
function options.nearest(name, known)
  local best, best_distance
  local most = math.max(1, math.floor(#name / 3))
  for candidate in each(known) do
    if math.abs(#candidate - #name) <= most then
      local d = edit_distance(name, candidate)
      if d <= most and (not best or d < best_distance or (d == best_distance and candidate < best)) then
        best, best_distance = candidate, d
      end
    end
  end
  return best
end

local function quoted(text)
  return '"' .. (#text > MAX_SHOWN and text:sub(1, MAX_SHOWN) .. "..." or text):gsub("[%c\"\\]", function(c)
    return ("\\%03d"):format(c:byte())
  end) .. '"'
end

local function describe(value)
  local kind = type(value)
  if kind == "string" then return quoted(value) end
  if kind == "number" then return numbers.format(value) end
  return (kind == "nil" or kind == "boolean") and tostring(value) or "a " .. kind
end

-- The types of options and arguments. Each function returns the value to use, or nil, the description of the expected value, and perhaps
-- the culprit: { entry, value } if one entry of a table is wrong, { found } to describe the value in other words.
local types = {}

local function simple(is_right, expected)
  return function(value)
    if is_right(value) then return value end
    return nil, expected
  end
end

local function is_of(kind)
  return function(value) return type(value) == kind end
end

function types.any(value) return value end

types.string = simple(is_of "string", "a string")
types.boolean = simple(is_of "boolean", "true or false")
types.table = simple(is_of "table", "a table")

local function is_nonempty_string(value)
  return type(value) == "string" and value ~= "" and not value:find("%z")
end

-- A string that is not empty. A NUL byte is named, because only its place in the value would show it otherwise.
local function nonempty_string(expected)
  return function(value)
    if is_nonempty_string(value) then return value end
    return nil, type(value) == "string" and value ~= "" and "a string without NUL bytes" or expected
  end
end

types["nonempty string"] = nonempty_string "a string that is not empty"

-- The caller has handled the list.
types["command line"] = nonempty_string "a string that is not empty, or a list of a program and its arguments"

types["function"] = simple(function(value)
  local meta = getmetatable(value)
  return type(value) == "function" or (type(meta) == "table" and meta.__call ~= nil)
end, "a function")

types.natural = simple(numbers.is_natural, "a whole number, 0 or greater")

local MAX_SECONDS = 1e9

--- A time: a number of seconds, or a text like "90s", "10m" or "2h".
--- ```lua
--- local result = assert(sandbox:run("make test", { timeout = "10m" }))
--- opensandbox.sleep(0.5)
--- ```
---@alias opensandbox.Duration number|string

local function seconds_type(lowest, expected)
  return function(value)
    local seconds = type(value) == "string" and parts.time.parse_duration(value) or value
    if type(seconds) == "number" and seconds < MAX_SECONDS and (seconds > 0 or seconds == lowest) then return seconds end
    return nil, expected
  end
end

local DURATION = "a number of seconds greater than 0, or a duration like \"90s\", \"10m\" or \"2h\""

types.seconds = seconds_type(nil, DURATION)
types["seconds or 0"] = seconds_type(0, "a number of seconds, 0 or greater, or a duration like \"90s\", \"10m\" or \"2h\"")
types["seconds or false"] = function(value)
  if value == false then return false end
  local seconds, expected = types.seconds(value)
  return seconds, expected and expected .. ", or false for no limit"
end

-- A string, or the text of a number: Lua makes strings of numbers everywhere else, too.
local function entry_text(value)
  if type(value) == "string" then return value end
  return type(value) == "number" and numbers.format(value) or nil
end

types.text = function(value)
  local text = entry_text(value)
  if text then return text end
  return nil, "a string"
end

-- Returns the table itself, or a copy in which numbers have become strings.
local function with_texts(given, name_of)
  local copy
  for key, value in each(given) do
    local text = entry_text(value)
    if not text then return nil, "a string", { entry = name_of(key), value = value } end
    if text ~= value then
      if not copy then
        copy = {}
        for k, v in each(given) do copy[k] = v end
      end
      copy[key] = text
    end
  end
  return copy or given
end

types["string list"] = function(value)
  if type(value) ~= "table" then return nil, "a list of strings" end
  local count, highest = 0, 0
  for key in each(value) do
    if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
      return nil, "a list of strings", { found = "one with the key " .. describe(key) }
    end
    count, highest = count + 1, math.max(highest, key)
  end
  if highest > count then
    local missing = 1
    while value[missing] ~= nil do missing = missing + 1 end
    return nil, "a string", { entry = "item " .. missing }
  end
  return with_texts(value, function(key) return "item " .. numbers.format(key) end)
end

types["string map"] = function(value)
  if type(value) ~= "table" then return nil, "a table of strings" end
  for name in each(value) do
    if type(name) ~= "string" then
      return nil, "a table of strings, by name", { found = "one with the key " .. describe(name) }
    end
  end
  return with_texts(value, function(name) return "entry " .. quoted(name) end)
end

-- Environment variables. The system would take "A=B" = "c" for A = "B=c".
types.environment = function(value)
  local texts, expected, culprit = types["string map"](value)
  if not texts then return nil, expected, culprit end
  for name, text in each(texts) do
    if name == "" or name:find("[=%z]") or text:find("%z") then
      return nil, "a table of variables, whose names have no '=' and are not empty, without NUL bytes",
        { found = "one with the variable " .. quoted(name) }
    end
  end
  return texts
end

--- Checks one argument.
---@param op string
---@param what string the argument's name in messages
---@param value any
---@param kind string a name of the types above
---@return any value the value to use
function options.argument(op, what, value, kind)
  local result, expected, culprit = types[kind](value)
  if not expected then return result end
  if culprit and culprit.entry then what, value = ("%s: %s"):format(what, culprit.entry), culprit.value end
  options.raise(op, ("%s must be %s, not %s"):format(what, expected, culprit and culprit.found or describe(value)))
end

--- Checks a name that becomes one segment of a URL's path, where "." and ".." would select another route.
---@param value any
---@return string
function options.path_segment(op, what, value)
  options.argument(op, what, value, "nonempty string")
  if not url.is_segment(value) then options.raise(op, ("%s must not be %q"):format(what, value)) end
  return value
end

--- Checks a name that becomes one segment of the path of an endpoint's URL. Proxies decode the path, and some characters would then
--- separate segments or begin a query.
---@param instead string what to do if the name is refused
---@return string
function options.proxy_safe_segment(op, what, value, instead)
  options.path_segment(op, what, value)
  local found = value:match("[/?#%%\\%c]")
  if found then
    options.raise(op, ("%s holds %s, which does not pass through proxies in the path of a URL: %s"):format(
      what, quoted(found), instead))
  end
  return value
end

--- Checks the number of a TCP port.
---@param op string
---@param port any
---@param what? string its name in messages
---@return integer
function options.port(op, port, what)
  what = what or "the port"
  options.argument(op, what, port, "natural")
  if port < 1 or port > 65535 then options.raise(op, what .. " must be between 1 and 65535, not " .. numbers.format(port)) end
  return port
end

local function raise_unknown(op, name, known)
  local near = type(name) == "string" and options.nearest(name, known)
  local names = tables.sorted_keys(known)
  options.raise(op, ("unknown option '%s'%s"):format(tostring(name),
    near and (" (did you mean '%s'?)"):format(near) or "; known are " .. table.concat(names, ", ")))
end

--- Checks an option table. An unknown name raises.
---@param op string
---@param given? table
---@param known table<string, string> type by name
---@return table checked the given table, or a copy with the values to use; an empty one for nil
function options.check(op, given, known)
  if given == nil then return {} end
  options.argument(op, "options", given, "table")
  local checked = given
  for name, value in each(given) do
    local kind = known[name]
    if not kind then raise_unknown(op, name, known) end
    local result = options.argument(op, "option '" .. name .. "'", value, kind)
    if result ~= value then
      if checked == given then
        checked = setmetatable({}, getmetatable(given))
        for key, item in each(given) do checked[key] = item end
      end
      checked[name] = result
    end
  end
  return checked
end

local call_options = { timeout = "seconds" }

--- Checks the options of a call that has only a time limit.
---@param op string
---@param given? { timeout?: opensandbox.Duration }
---@return number? seconds
function options.timeout(op, given)
  return options.check(op, given, call_options).timeout
end

return options

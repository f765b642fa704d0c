--- The file of variables that execd gives to every command of a sandbox: lines `NAME=value`, `#` before a comment.
--
-- A value in single quotes is taken as it is, over several lines too. In any other, `$NAME` and `${NAME}` are expanded;
-- in double quotes, `\` begins an escape.

local uv = require "luv"

local variables = {}

local LIMIT = 1024 * 1024   -- bytes of the file that are read

--- Where the file is inside a sandbox. Commands find it in `$EXECD_ENVS`.
variables.PATH = "/run/opensandbox/.env"

local ESCAPES = { n = "\n", r = "\r", t = "\t" }

local function expand(text, known)
  local function value(name) return known[name] or "" end
  return (text:gsub("%${([%a_][%w_]*)}", value):gsub("%$([%a_][%w_]*)", value))
end

-- A double-quoted text. What is escaped is expanded piece by piece, so that no piece runs into the next.
local function unescape(text, known)
  local parts = {}
  for plain, escaped in (text .. "\\"):gmatch("([^\\]*)\\(.?)") do
    parts[#parts + 1] = expand(plain, known) .. (ESCAPES[escaped] or escaped)
  end
  return table.concat(parts)
end

-- The value that begins at `from`, and where what follows it begins.
local function value_at(text, from, known)
  local value, after = text:match("^'([^']*)'()", from)
  if value then return value, after end
  if text:sub(from, from) == '"' then
    local position = from + 1
    while text:sub(position, position) ~= '"' do
      position = position + (text:sub(position, position) == "\\" and 2 or 1)
      if position > #text then break end
    end
    if position <= #text then return unescape(text:sub(from + 1, position - 1), known), position + 1 end
  end
  value, after = text:match("^([^\r\n]*)()", from)
  return expand(value:match("^(.-)%s*$"), known), after
end

--- Takes the text of such a file apart.
-- @param known variables that values may name, beside those before them in the file
-- @treturn table the variables by name; of two lines with one name, the last counts
function variables.parse(text, known)
  local found = setmetatable({}, { __index = known })
  local position = 1
  while true do
    position = text:match("^%s*()", position)
    if position > #text then break end
    local name, from = text:match("^([%a_][%w_]*)[ \t]*=[ \t]*()", position)
    if name then found[name], position = value_at(text, from, found) end
    position = text:match("^[^\n]*()", position)
  end
  return setmetatable(found, nil)
end

--- Reads such a file; where there is none, there are no variables. A pipe in its place is not waited for.
-- @param path on this machine
function variables.read(path, known)
  local fd = uv.fs_open(path, uv.constants.O_RDONLY + uv.constants.O_NONBLOCK, 0)
  if not fd then return {} end
  local text = uv.fs_fstat(fd).type == "file" and uv.fs_read(fd, LIMIT, 0) or ""
  uv.fs_close(fd)
  return variables.parse(text, known)
end

return variables

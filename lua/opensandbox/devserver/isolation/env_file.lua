--- The file of variables that execd gives to every command of a sandbox: lines `NAME=value`, `#` before a comment.
--
-- A value in single quotes is read as it is, over several lines too. In all other values, `$NAME` and `${NAME}` are expanded; in
-- double quotes, `\` begins an escape. The execd of server 1.1.1 reads it so; that of August 2026 keeps quotes.

local uv = require "luv"

local env_file = {}

local MAX_SIZE = 1024 * 1024 -- bytes of the file that are read

--- The path of the file in a sandbox. Commands have it in `$EXECD_ENVS`.
env_file.PATH = "/run/opensandbox/.env"

local ESCAPES = { n = "\n", r = "\r", t = "\t" }

local function expand(text, known)
  local function value(name) return known[name] or "" end
  return (text:gsub("%${([%a_][%w_]*)}", value):gsub("%$([%a_][%w_]*)", value))
end

-- Reads a double-quoted text. The pieces between escapes are expanded one by one, so that an escape ends a name.
local function unescape(text, known)
  local parts = {}
  for plain, escaped in (text .. "\\"):gmatch("([^\\]*)\\(.?)") do
    parts[#parts + 1] = expand(plain, known) .. (ESCAPES[escaped] or escaped)
  end
  return table.concat(parts)
end

-- Returns the value that begins at `from`, and the position behind it.
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

--- Parses the text of such a file.
---@param text string
---@param known table<string, string> variables that values may name, besides those of earlier lines
---@return table<string, string> variables of two lines with one name, the last counts
function env_file.parse(text, known)
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

--- Reads such a file. A missing one has no variables, and neither has a pipe in its place.
---@param path string on this machine
---@param known table<string, string>
---@return table<string, string> variables
function env_file.read(path, known)
  local fd = uv.fs_open(path, uv.constants.O_RDONLY + uv.constants.O_NONBLOCK, 0)
  if not fd then return {} end
  local text = uv.fs_fstat(fd).type == "file" and uv.fs_read(fd, MAX_SIZE, 0) or ""
  uv.fs_close(fd)
  return env_file.parse(text, known)
end

return env_file

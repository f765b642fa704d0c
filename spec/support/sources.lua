--- The project's own Lua files, for the specs that hold rules about all of them.

local uv = require "luv"

local sources = {}

--- Reads all Lua files below a directory of the clone.
---@return table<string, string> texts by path
function sources.read(directory)
  local texts = {}
  local function visit(path)
    local handle = assert(uv.fs_scandir(path))
    local name, kind = uv.fs_scandir_next(handle)
    while name do
      local below = path .. "/" .. name
      if kind == "directory" then
        visit(below)
      elseif name:find("%.lua$") then
        local file = assert(io.open(below, "rb"))
        texts[below] = file:read("*a")
        file:close()
      end
      name, kind = uv.fs_scandir_next(handle)
    end
  end
  visit(directory)
  return texts
end

--- Returns the code of a text: without comments, and without the contents of strings if `keep_strings` is not set. Lines stay lines.
---@param text string
---@param keep_strings? boolean
---@return string
function sources.code(text, keep_strings)
  local out, position = {}, 1
  local function lines_of(part) return (part:gsub("[^\n]", "")) end
  while true do
    local start, _, mark = text:find("([%-\"'%[])", position)
    if not start then break end
    out[#out + 1] = text:sub(position, start - 1)
    local level = text:match("^%-%-%[(=*)%[", start) or (mark == "[" and text:match("^%[(=*)%[", start))
    local last
    if level then
      _, last = text:find("]" .. level .. "]", start, true)
      last = last or #text
      local part = text:sub(start, last)
      out[#out + 1] = (mark == "[" and keep_strings) and part or (mark == "[" and '""' or "") .. lines_of(part)
    elseif text:sub(start, start + 1) == "--" then
      last = (text:find("\n", start, true) or #text + 1) - 1
    elseif mark == '"' or mark == "'" then
      last = start
      repeat
        last = text:find("[\\" .. mark .. "\n]", last + 1) or #text
        local escaped = text:sub(last, last) == "\\"
        if escaped then last = last + 1 end
      until not escaped
      out[#out + 1] = keep_strings and text:sub(start, last) or mark .. mark
    else
      last = start
      out[#out + 1] = mark
    end
    position = last + 1
  end
  out[#out + 1] = text:sub(position)
  return table.concat(out)
end

return sources

--- Which spec files run, how their tests are divided, and in which order.

local uv = require "luv"

local selection = {}

-- The files that take longest, for a tree in which nothing has run yet.
local LONG = {
  ["spec/files/directories_spec.lua"] = true, ["spec/files/hostile_sandbox_spec.lua"] = true, ["spec/hosts_spec.lua"] = true,
  ["spec/leaks_spec.lua"] = true, ["spec/playground_spec.lua"] = true, ["spec/pool/kills_spec.lua"] = true,
  ["spec/roundtrip/command_directories_spec.lua"] = true, ["spec/roundtrip/file_names_spec.lua"] = true,
  ["spec/terminal_recordings_spec.lua"] = true, ["spec/devserver/isolated_recordings_spec.lua"] = true,
  ["spec/devserver/terminal_recordings_spec.lua"] = true,
}

local function kind(path)
  local stat = uv.fs_stat(path)
  return stat and stat.type, stat and stat.size
end

local function add(list, path)
  local entries = assert(uv.fs_scandir(path))
  while true do
    local name = uv.fs_scandir_next(entries)
    if not name then break end
    local below = path .. "/" .. name
    local type = kind(below)
    if type == "directory" then
      add(list, below)
    elseif type == "file" and name:find("_spec%.lua$") then
      list[#list + 1] = below
    end
  end
end

--- The spec files among files and below directories, each once, sorted; nil and the reason when a path does not exist.
function selection.find(paths)
  local list, found, unique = {}, {}, {}
  for _, path in ipairs(paths) do
    path = path:gsub("(.)/+$", "%1")
    local type = kind(path)
    if not type then return nil, path .. " does not exist" end
    if type == "directory" then add(list, path) else list[#list + 1] = path end
  end
  for _, path in ipairs(list) do
    if not found[path] then unique[#unique + 1] = path end
    found[path] = true
  end
  table.sort(unique)
  return unique
end

-- Checks whether a file has tests that run while no other file does.
local function has_alone(path)
  local file = assert(io.open(path, "rb"))
  local found = file:read("*a"):find("#alone", 1, true)
  file:close()
  return found ~= nil
end

--- The seconds that files took when they last ran, by path.
function selection.read_seconds(path)
  local seconds, file = {}, io.open(path, "r")
  if file then
    for line in file:lines() do
      local number, name = line:match("^(%S+) (.+)$")
      seconds[name or ""] = tonumber(number)
    end
    file:close()
  end
  return seconds
end

--- Stores the seconds. Another runner in the same tree may do so at the same time; then one of the two wins.
function selection.write_seconds(path, seconds)
  local names, temporary = {}, ("%s.%d"):format(path, uv.os_getpid())
  for name in pairs(seconds) do names[#names + 1] = name end
  table.sort(names)
  local file = io.open(temporary, "w")
  if not file then return end -- without a build directory the order is by size
  for _, name in ipairs(names) do file:write(("%.2f %s\n"):format(seconds[name], name)) end
  file:close()
  os.rename(temporary, path)
end

--- Divides files into runs: of their tests that run beside other files, and of those that run alone.
--- @return table[] shared with `file`, `name` (for people, and for what it took) and `options` (of busted); those that took longest come
--- first, before them those that never ran, the long ones and then by size, because a long one that begins last would keep the others waiting
--- @return table[] alone the same, in the order of the files
function selection.divide(files, seconds)
  local shared, alone, size = {}, {}, {}
  for _, file in ipairs(files) do
    local run = { file = file, name = file, options = {} }
    shared[#shared + 1] = run
    size[run] = select(2, kind(file)) or 0
    if has_alone(file) then
      run.options[1] = "--exclude-tags=alone"
      alone[#alone + 1] = { file = file, name = file .. " (alone)", options = { "--tags=alone" } }
    end
  end
  table.sort(shared, function(a, b)
    local left, right = seconds[a.name] or math.huge, seconds[b.name] or math.huge
    if left ~= right then return left > right end
    if LONG[a.name] ~= LONG[b.name] then return LONG[a.name] == true end
    if size[a] ~= size[b] then return size[a] > size[b] end
    return a.name < b.name
  end)
  return shared, alone
end

return selection

--- The C core of a clone that was built with `make` and installed nowhere, as plugin managers leave it: found beside the Lua files.
--
-- It must be required before anything that requires `opensandbox.core`, which is then loaded as if it stood on package.cpath. Gives the
-- file that the core was loaded from, where it is known.

local NAME = "opensandbox.core"

-- The clone that this file lies in; nil when it is installed.
local root = debug.getinfo(1, "S").source:match("^@(.-)lua[/\\]opensandbox[/\\]intree%.lua$")
local abi = rawget(_G, "jit") and "jit" or _VERSION:match("%d+%.%d+")
local lua = "lua" .. abi

local function readable(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- The file that require() takes the core from.
local function on_cpath()
  for template in package.cpath:gmatch("[^;]+") do
    local path = template:gsub("%?", (NAME:gsub("%.", "/")))
    if readable(path) then return path end
  end
end

-- The file, or false and what to do.
local function load()
  local path = not package.loaded[NAME] and on_cpath() or nil
  local ok, problem = pcall(require, NAME)
  if ok then return path or on_cpath() or true end
  if not root then
    if path then return false, problem end
    return false, ("its C core is not on package.cpath: install it, with LuaRocks or `make install LUA=%s`"):format(lua)
  end
  local built = root .. "build/" .. abi .. "/opensandbox/core.so"
  if not readable(built) then
    return false, ("its C core is not built for this Lua: run `make LUA=%s` in %s"):format(lua, root == "" and "." or root)
  end
  local open
  open, problem = package.loadlib(built, "luaopen_opensandbox_core")
  if not open then return false, ("its C core cannot be loaded (run `make clean` and `make LUA=%s`): %s"):format(lua, problem) end
  package.loaded[NAME] = open(NAME, built)
  return built
end

local path, problem = load()
if not path then
  -- Lua 5.1 and LuaJIT would take the next require() for a loop, and not say this again.
  package.loaded["opensandbox"], package.loaded["opensandbox.intree"] = nil, nil
  error("opensandbox: " .. problem, 0)
end
return path

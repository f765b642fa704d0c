--- Loads the C core. If it is not on package.cpath, the core of this clone is loaded, which `make` has built: plugin managers leave a
--- clone and install nothing.
--
-- It must be required before every file that requires `opensandbox.core`. Its value is the path of the core, or true if that is unknown.

local MODULE = "opensandbox.core"

-- The directory of the clone with this file; nil if the library is installed.
local root = debug.getinfo(1, "S").source:match("^@(.-)lua[/\\]opensandbox[/\\]intree%.lua$")
local abi = rawget(_G, "jit") and "jit" or _VERSION:match("%d+%.%d+")
local lua = "lua" .. abi

local function readable(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

-- Returns the file from which require() loads the core.
local function on_cpath()
  for template in package.cpath:gmatch("[^;]+") do
    local path = template:gsub("%?", (MODULE:gsub("%.", "/")))
    if readable(path) then return path end
  end
end

-- Returns the file, or false and a problem with its remedy.
local function load()
  local path = not package.loaded[MODULE] and on_cpath() or nil
  local ok, problem = pcall(require, MODULE)
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
  package.loaded[MODULE] = open(MODULE, built)
  return built
end

local path, problem = load()
if not path then
  -- Without this, Lua 5.1 and LuaJIT would report a loop for the next require() instead of this problem.
  package.loaded["opensandbox"], package.loaded["opensandbox.intree"] = nil, nil
  error("opensandbox: " .. problem, 0)
end
return path

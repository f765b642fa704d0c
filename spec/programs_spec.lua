--- The programs in bin/ where they are started from a clone, or where something that they need is missing.

local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local PROGRAMS = { "opensandbox", "opensandbox-devserver" }

-- Runs a program with module paths of its own. Returns its exit code, output and errors.
local function run(path, arguments, lua_path, lua_cpath)
  local env = process.module_paths()
  env.LUA_PATH, env.LUA_CPATH = lua_path, lua_cpath
  local argv = { process.lua(), path }
  for _, argument in ipairs(arguments) do argv[#argv + 1] = argument end
  return process.run({ argv = argv, env = env }, 20)
end

for _, name in ipairs(PROGRAMS) do
  describe("the program " .. name, function()
    it("works in a clone without LUA_PATH, and says what to do if the core is not built", function()
      local _, out, err = run("bin/" .. name, { "--version" }, ";;", ";;")
      assert.truthy(out:find("^" .. name:gsub("%-", "%%-") .. " %d") or err:find("run `make LUA=", 1, true), err)
    end)

    it("says that the library is not installed for the Lua that runs it", function()
      local directory = temporary.directory()
      assert(uv.fs_mkdir(directory .. "/bin", 448))
      local path = directory .. "/bin/" .. name
      local file = assert(io.open(path, "wb"))
      assert(file:write((assert(read_file("bin/" .. name)))))
      assert(file:close())
      local code, out, err = run(path, { "--version" }, directory .. "/?.lua", directory .. "/?.so")
      temporary.remove(directory)
      assert.same({ 1, "" }, { code, out })
      assert.equal(("%s: %s runs this program, and the library is not installed for it: install the Lua that you want, then the "
        .. "library again\n"):format(name, _VERSION), err)
    end)
  end)
end

it("the development server names the package of luv where that is missing", function()
  local core = {}
  for template in package.cpath:gmatch("[^;]+") do
    if template:find("/build/", 1, true) then core[#core + 1] = template end
  end
  for _, command in ipairs { { "opensandbox-devserver" }, { "opensandbox", "dev" } } do
    local code, _, err = run("bin/" .. command[1], { command[2] }, package.path, table.concat(core, ";"))
    assert.equal(1, code)
    assert.truthy(err:find("needs the Lua module luv: install it, on Debian and Ubuntu with 'apt-get", 1, true), err)
    assert.truthy(err:find(("luarocks --lua-version %s install luv"):format(_VERSION:match "%d%.%d"), 1, true), err)
    assert.is_nil(err:find("traceback", 1, true), err)
  end
end)

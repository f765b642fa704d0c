--- The rockspecs: they list what there is, and the one of the release is the same as the one of the newest sources.

local find_program = require "spec.support.find_program"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local sources = require "spec.support.sources"
local uv = require "luv"
local version = require "opensandbox.version"

local RELEASE = ("rockspec/opensandbox-%s-1.rockspec"):format(version)

-- Returns the fields of a rockspec, which is a Lua program without an environment.
local function fields(path)
  local text, env = assert(read_file(path)), {}
  local chunk
  if setfenv then -- luacheck: ignore 113
    chunk = setfenv(assert(loadstring(text, "@" .. path)), env) -- luacheck: ignore 113
  else
    chunk = assert(load(text, "@" .. path, "t", env))
  end
  chunk()
  return env
end

describe("the rockspec", function()
  local scm = fields("rockspec/opensandbox-scm-1.rockspec")

  it("lists each Lua file of the library under its module's name, and nothing else", function()
    local expected = {}
    for path in pairs(sources.read("lua")) do
      expected[path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")] = path
    end
    local listed = {}
    for name, path in pairs(scm.build.modules) do
      if type(path) == "string" then listed[name] = path end
    end
    assert.same(expected, listed)
  end)

  it("lists each C file", function()
    local listed, count = {}, 0
    for _, path in ipairs(scm.build.modules["opensandbox.core"].sources) do listed[path] = true end
    local handle = assert(uv.fs_scandir("src"))
    local name = uv.fs_scandir_next(handle)
    while name do
      if name:find("%.c$") then
        count = count + 1
        assert.is_true(listed["src/" .. name], name)
      end
      name = uv.fs_scandir_next(handle)
    end
    assert.equal(count, #scm.build.modules["opensandbox.core"].sources)
  end)

  it("lists programs and directories that exist", function()
    for _, path in ipairs(scm.build.install.bin) do assert.truthy(uv.fs_stat(path), path) end
    for _, path in ipairs(scm.build.copy_directories) do assert.truthy(uv.fs_stat(path), path) end
  end)

  it("of the release differs in its version and its source only", function()
    local release = fields(RELEASE)
    assert.equal(version .. "-1", release.version)
    assert.equal("v" .. version, release.source.tag)
    release.version, release.source.tag, release.source.branch = scm.version, nil, scm.source.branch
    assert.same(scm, release)
    assert.truthy(assert(read_file("CHANGELOG.md")):find("\n## " .. version .. " ", 1, true))
  end)

  if find_program("luarocks") then
    it("passes luarocks lint, like the other", function()
      for _, path in ipairs { "rockspec/opensandbox-scm-1.rockspec", RELEASE } do
        local child = process.start { argv = { "luarocks", "lint", path } }
        assert.equal(0, child:wait(60), child:stderr_text())
        child:stop()
      end
    end)
  else
    pending("is not checked by luarocks lint, because luarocks is not installed")
  end
end)

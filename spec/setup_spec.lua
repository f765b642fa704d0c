--- `.ci/setup`: which packages it installs where, with stand-ins for the programs of Debian.

local find_program = require "spec.support.find_program"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"

describe("the set-up", function()
  local directory

  local function program(name, script)
    local path = directory .. "/" .. name
    local file = assert(io.open(path, "w"))
    assert(file:write("#!/bin/sh\n" .. script))
    assert(file:close())
    assert(uv.fs_chmod(path, 493)) -- 0755
  end

  before_each(function()
    directory = temporary.directory()
    for _, name in ipairs { "grep", "sed" } do assert(uv.fs_symlink(find_program(name), directory .. "/" .. name)) end
    program("id", "echo 0\n")
    program("dpkg-query", "exit 1\n") -- nothing is installed
    program("apt-get", "echo \"apt-get $*\"\n")
  end)
  after_each(function() temporary.remove(directory) end)

  -- Returns the packages that it installs. `apt_cache` is the script of apt-cache, with the name of a package in $2.
  local function packages(apt_cache, ...)
    program("apt-cache", apt_cache)
    local child = process.start { argv = { "/bin/sh", ".ci/setup", ... }, env = { PATH = directory } }
    child:close_input()
    assert.equal(0, child:wait(20), child:stderr_text())
    local text = child:stderr_text()
    child:stop()
    local list = text:match("apt%-get install [^\n]-%-recommends ([^\n]+)")
    assert.truthy(list, text)
    return " " .. list .. " "
  end

  it("installs the LuaJIT that nginx needs where there are two", function()
    local list = packages("echo \"Package: $2\"\n", "build", "luajit")
    assert.truthy(list:find(" luajit2 libluajit2-5.1-dev ", 1, true), list)
  end)

  it("installs the only LuaJIT where that also provides the names of the other one", function()
    local list = packages("case $2 in *luajit2*) ;; *) echo \"Package: $2\" ;; esac\n", "build", "luajit")
    assert.truthy(list:find(" luajit libluajit-5.1-dev ", 1, true), list)
    assert.is_nil(list:find("luajit2", 1, true), list)
  end)

  it("installs what README's lines after `make demo` run", function()
    local list = packages("echo \"Package: $2\"\n", "demo", "lua5.4")
    for _, name in ipairs { "lua5.4", "liblua5.4-dev", "lua-cjson", "lua-luv", "lua-argparse", "bubblewrap" } do
      assert.truthy(list:find(" " .. name .. " ", 1, true), list)
    end
  end)
end)

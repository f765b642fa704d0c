--- `make install`, `make uninstall` and `make -s env`, with the Lua that runs the tests and with one that pretends to be another version.

local find_program = require "spec.support.find_program"
local intree = require "opensandbox.intree"
local process = require "spec.support.process"
local read_file = require "spec.support.read_file"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local version = require "opensandbox.version"

-- The file of the core, as the Makefile calls it; nil if it is unknown.
local CORE = type(intree) == "string" and intree:gsub("^" .. uv.cwd():gsub("%p", "%%%0") .. "/", "") or nil
local OWN = rawget(_G, "jit") and "5.1" or _VERSION:match("%d+%.%d+")
local OTHER = "5.9" -- a version that does not exist

local directory, other_lua

setup(function()
  directory = temporary.directory()
  -- Modules of the pretended version are compatible, because the same interpreter loads them.
  other_lua = directory .. "/lua" .. OTHER
  local file = assert(io.open(other_lua, "w"))
  file:write(([[#!/bin/sh
exec %s -e '_VERSION, jit = "Lua %s", nil' "$@"
]]):format(find_program(process.lua()) or process.lua(), OTHER))
  file:close()
  assert(uv.fs_chmod(other_lua, 493)) -- 0755
end)

teardown(function() temporary.remove(directory) end)

-- Runs a program without what a make around the tests has set. Returns its exit code, and its output followed by its errors.
local function run(argv, env)
  env = env or {}
  for _, name in ipairs { "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "LUA" } do env[name] = env[name] or false end
  local code, output, errors = process.run({ argv = argv, env = env }, 60)
  return code, output .. errors
end

-- Runs make for a Lua. The core that the tests use counts as built for both.
local function make(target, lua)
  local build = CORE:gsub("/opensandbox/core%.so$", "")
  return run { "make", "-s", "-o", CORE, "BUILD=" .. build, "PREFIX=" .. directory .. "/prefix", "LUA=" .. lua, target }
end

local function program(name) return directory .. "/prefix/bin/" .. name end

local function first_line(path) return (read_file(path) or ""):match("[^\n]*") end

local function has_modules(of)
  local path = directory .. "/prefix/%s/lua/" .. of .. "/opensandbox/%s"
  return uv.fs_access(path:format("share", "init.lua"), "R") and uv.fs_access(path:format("lib", "core.so"), "R") or false
end

-- Runs the installed program with a Lua, and with the modules that are installed for one version alone.
local function program_says(lua, of)
  local prefix = directory .. "/prefix"
  local env = process.module_paths() -- what loading the core needs, with other paths
  env.LUA_PATH = ("%s/share/lua/%s/?.lua;%s/share/lua/%s/?/init.lua;;"):format(prefix, of, prefix, of)
  env.LUA_CPATH = ("%s/lib/lua/%s/?.so;;"):format(prefix, of)
  return run({ lua, program "opensandbox", "--version" }, env)
end

describe("installing", function()
  if not CORE or not find_program "make" then return pending("no make here") end

  it("for a second Lua leaves the modules of the first, and the program works with both", function()
    assert.same({ 0, "" }, { make("install", process.lua()) })
    assert.is_true(has_modules(OWN))
    assert.equal("#!/usr/bin/env " .. process.lua():match("[^/]*$"), first_line(program "opensandbox"))

    assert.same({ 0, "" }, { make("install", other_lua) })
    assert.same({ true, true }, { has_modules(OWN), has_modules(OTHER) })
    assert.equal("#!/usr/bin/env lua" .. OTHER, first_line(program "opensandbox"))
    for lua, of in pairs { [process.lua()] = OWN, [other_lua] = OTHER } do
      local code, text = program_says(lua, of)
      assert.equal(0, code, text)
      assert.truthy(text:find(version, 1, true), text)
    end

    -- The program belongs to the Lua that was installed last.
    assert.same({ 0, "" }, { make("uninstall", process.lua()) })
    assert.same({ false, true }, { has_modules(OWN), has_modules(OTHER) })
    assert.truthy(read_file(program "opensandbox-devserver"))
    assert.same({ 0, "" }, { make("uninstall", other_lua) })
    assert.is_false(has_modules(OTHER))
    assert.same({}, temporary.names(directory .. "/prefix/bin"))
  end)
end)

describe("make -s env", function()
  if not CORE or not find_program "make" then return pending("no make here") end

  it("prints paths with which the Lua finds the tree", function()
    local code, text = make("env", process.lua())
    assert.equal(0, code, text)
    local script = [[io.write(require("opensandbox.version"), " ", (require("opensandbox.intree")))]]
    local env = process.module_paths() -- what loading the core needs, without the paths
    env.LUA_PATH, env.LUA_CPATH = false, false
    code, text = run({ "sh", "-c", text .. '\n"$0" -e "$1"', process.lua(), script }, env)
    assert.same({ 0, version .. " " .. uv.cwd() .. "/" .. CORE }, { code, text })
  end)

  it("is an error with a remedy, and prints no path, when the Lua is not installed", function()
    local code, text = run { "make", "-s", "LUA=lua" .. OTHER, "env" }
    assert.is_true(code ~= 0)
    assert.is_nil(text:find("export", 1, true), text)
    assert.truthy(text:find("lua" .. OTHER .. " does not run: install it", 1, true), text)
    assert.truthy(text:find("setup-build", 1, true), text)
  end)
end)

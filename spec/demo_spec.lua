--- examples/demo.sh: it starts the development server and waits for its exports, with a stand-in for Lua.

local find_program = require "spec.support.find_program"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"

-- The server of the stand-in writes its exports, or fails; the program prints the exported variables.
local LUA = [[#!/bin/sh
case $1 in
  */opensandbox-devserver)
    [ -z "$FAILS" ] || exit 1
    echo "export OPEN_SANDBOX_DOMAIN=http://127.0.0.1:1"; echo "export OPEN_SANDBOX_API_KEY=key"
    exec sleep 20 ;;
  *) echo "$1 $OPEN_SANDBOX_DOMAIN $OPEN_SANDBOX_API_KEY" ;;
esac
]]

describe("the demo", function()
  local directory

  setup(function()
    directory = temporary.directory()
    local file = assert(io.open(directory .. "/lua", "w"))
    assert(file:write(LUA))
    assert(file:close())
    assert(uv.fs_chmod(directory .. "/lua", 493)) -- 0755
  end)
  teardown(function() temporary.remove(directory) end)

  local function demo(fails)
    local env = { LUA = directory .. "/lua", PATH = os.getenv "PATH", TMPDIR = directory, FAILS = fails }
    env.OPEN_SANDBOX_DOMAIN = false
    return process.run({ argv = { find_program "sh", "examples/demo.sh" }, env = env }, 20)
  end

  it("waits for the exports of the server, however late their file is opened, and leaves nothing", function()
    for _ = 1, 40 do -- which of the two shells is first is chance
      local code, out, err = demo()
      assert.same({ 0, "examples/quickstart.lua http://127.0.0.1:1 key\n", "" }, { code, out, err })
    end
    assert.same({ "lua" }, temporary.names(directory))
  end)

  it("ends when the server does not start", function()
    assert.same({ 1, "", "the development server did not start\n" }, { demo "yes" })
    assert.same({ "lua" }, temporary.names(directory))
  end)
end)

--- `opensandbox cp`: files and directories both ways, standard streams, the names of targets, and the progress at a terminal.

local process = require "spec.support.process"
local program = require "spec.support.program"
local temporary = require "spec.support.temporary"
local uv = require "luv"

describe("opensandbox cp", function()
  local server, id, directory

  setup(function()
    server = process.devserver { grace = 0.1 }
    id = program.check(server, { "create", "python:3.12", "--lifetime", "1h" }):gsub("\n", "")
  end)
  teardown(function() server:stop() end)
  before_each(function() directory = temporary.directory() end)
  after_each(function()
    program.check(server, { "exec", "-n", id, "--", "rm -rf ./tmp/t; mkdir ./tmp/t" })
    temporary.remove(directory)
  end)

  local function write(name, content)
    local file = assert(io.open(directory .. "/" .. name, "wb"))
    file:write(content)
    file:close()
    return directory .. "/" .. name
  end

  local function read(name)
    local file = assert(io.open(directory .. "/" .. name, "rb"))
    local content = file:read("*a")
    file:close()
    return content
  end

  local function cp(from, to)
    return program.check(server, { "cp", from, to })
  end

  local function remote(script)
    return program.check(server, { "exec", "-n", "--exact", id, "--", script })
  end

  it("copies a file in and out, byte for byte", function()
    local bytes = ("\0\255\r\n"):rep(50000)
    cp(write("in", bytes), id .. ":/tmp/t/file")
    cp(id .. ":/tmp/t/file", directory .. "/out")
    assert.is_true(bytes == read "out")
  end)

  it("copies a directory in and out", function()
    assert(uv.fs_mkdir(directory .. "/tree", 448))
    assert(uv.fs_mkdir(directory .. "/tree/sub", 448))
    write("tree/a", "1")
    write("tree/sub/b", "2")
    cp(directory .. "/tree", id .. ":/tmp/t/new")
    assert.equal("12", remote "cat ./tmp/t/new/a ./tmp/t/new/sub/b")
    cp(id .. ":/tmp/t/new", directory .. "/back")
    assert.equal("12", read "back/a" .. read "back/sub/b")
  end)

  it("keeps the name in an existing directory, and takes the contents of '.'", function()
    cp(write("name", "1"), id .. ":/tmp/t")
    cp(directory .. "/name", id .. ":/tmp/t/made/")
    assert.equal("11", remote "cat ./tmp/t/name ./tmp/t/made/name")
    assert(uv.fs_mkdir(directory .. "/tree", 448))
    write("tree/a", "2")
    cp(directory .. "/tree", id .. ":/tmp/t")
    cp(directory .. "/tree/.", id .. ":/tmp/t")
    assert.equal("22", remote "cat ./tmp/t/tree/a ./tmp/t/a")
    cp(id .. ":/tmp/t/tree", directory .. "/")
    cp(id .. ":/tmp/t/name", directory .. "/tree/")
    assert.equal("1", read "tree/name")
  end)

  it("copies from standard input and to standard output", function()
    local bytes = ("0123456789\0\n"):rep(100000)
    program.check(server, { "cp", "-", id .. ":/tmp/t/file" }, { stdin = bytes })
    assert.is_true(bytes == cp(id .. ":/tmp/t/file", "-"))
  end)

  it("names what is wrong", function()
    for _, case in ipairs {
      { 2, "one of FROM and TO is SANDBOX:PATH", "a", "b" }, { 2, "one of FROM and TO is SANDBOX:PATH", "x:/a", "y:/b" },
      { 2, "has no path", id .. ":", "b" }, { 1, directory .. "/nope", directory .. "/nope", id .. ":/tmp/t/x" },
      { 1, "/tmp/t/nope does not exist in the sandbox", id .. ":/tmp/t/nope", directory .. "/x" },
    } do
      local result = program.run(server, { "cp", case[3], case[4] })
      assert.equal(case[1], result.code, result.err)
      assert.truthy(result.err:find(case[2], 1, true), result.err)
    end
    assert.same({}, temporary.names(directory))
  end)

  it("shows its progress at a terminal, also at a narrow one, and removes it", function()
    write("big", ("x"):rep(30 * 1024 * 1024))
    local terminal = program.terminal(server, { "cp", directory .. "/big", id .. ":/tmp/t/big" }, { columns = 40 })
    local code, _, text = terminal:wait()
    terminal:close()
    assert.equal(0, code, text)
    assert.truthy(text:find("big [", 1, true) and text:find("%", 1, true), text)
    for line in text:gmatch("[^\r\n]+") do assert.is_true(#line:gsub("\27%[K", "") < 40, line) end
    assert.truthy(text:find("\r\27%[K$"), text)
    assert.equal("31457280\n", remote "wc -c <./tmp/t/big")
  end)
end)

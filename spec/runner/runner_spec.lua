--- The runner of the tests: several files at a time, each in a process of its own; nothing that goes wrong in one is lost.

local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local wait_until = require "spec.support.wait_until"

local directory

before_each(function()
  directory = temporary.directory()
end)
after_each(function()
  temporary.remove(directory)
end)

local function path_of(name) return directory .. "/" .. name end

local function write(name, text)
  local path = path_of(name)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

-- A spec with one test, or more if the body ends it and begins another; `tag` is written for ALONE.
local function write_test(name, body, tag)
  local source = "local uv = require 'luv'\nlocal DIRECTORY = %q\nit('test of %s', function()\n%s\nend)\n"
  write(name, (source:format(directory, name, body):gsub("ALONE", tag or "ALONE")))
end

local function start(...)
  local argv = { process.lua(), "spec/run.lua", ... }
  argv[#argv + 1] = directory
  local env = process.module_paths()
  env.TMPDIR = directory -- so that files that the runner leaves there are noticed
  return process.start { argv = argv, env = env }
end

local function run(...)
  local child = start(...)
  local code = child:wait(60)
  local output = child:output() .. child:stderr_text()
  child:stop()
  return code, output
end

local function has(output, ...)
  for _, part in ipairs { ... } do assert.truthy(output:find(part, 1, true), part .. " is missing in:\n" .. output) end
end

-- A process that was killed may exist for a moment longer.
local function assert_gone(command)
  wait_until(function() return #process.running(command) == 0 end, command .. " runs")
end

local function content(name)
  local file = io.open(path_of(name), "r")
  local text = file and file:read("*a")
  if file then file:close() end
  return text
end

-- For specs: the file NAME notes when a test begins and when it has ended.
local NOTING = [[
  local function note(text)
    local file = assert(io.open(DIRECTORY .. "/notes", "a"))
    file:write(text, " ")
    file:close()
  end
  local function notes()
    local file = io.open(DIRECTORY .. "/notes")
    local text = file and file:read("*a") or ""
    if file then file:close() end
    return text
  end
  -- Waits until the others have noted something.
  local function wait_for(pattern)
    for _ = 1, 2000 do
      if notes():find(pattern) then return end
      uv.sleep(5)
    end
    error("the notes are " .. notes())
  end
]]

describe("the runner of the tests", function()
  it("counts all tests, and prints the failures last and in full", function()
    write_test("a_spec.lua", "assert.equal(1, 1)")
    write_test("b_spec.lua", "assert.equal('this', 'that')")
    write_test("c_spec.lua", "error('raised')")
    write_test("d_spec.lua", "pending('not yet')")
    write("not_one.lua", "error('not a spec')")
    local code, output = run()
    assert.equal(1, code)
    has(output, "ok  ", "FAIL", "test of b_spec.lua", "that", "raised", "test of d_spec.lua: ", "not yet")
    assert.truthy(output:find("Failure %-> [^\n]*b_spec.lua.*\n1 success / 1 failure / 1 error / 1 pending : [%d.]+ seconds\n$"),
      output)
  end)

  it("exits with 0 when nothing failed", function()
    write_test("a_spec.lua", "")
    write_test("b_spec.lua", "")
    local code, output = run()
    assert.equal(0, code)
    has(output, "\n2 successes / 0 failures / 0 errors / 0 pending")
  end)

  it("runs several files at a time, as many as it may", function()
    for _, name in ipairs { "a", "b", "c" } do
      write_test(name .. "_spec.lua", NOTING .. "note('begun') wait_for('begun begun begun')")
    end
    assert.equal(0, (run("--jobs=3")))
    os.remove(path_of("notes"))
    for _, name in ipairs { "a", "b", "c" } do
      write_test(name .. "_spec.lua", NOTING .. "note('begun') uv.sleep(50) note('over')")
    end
    assert.equal(0, (run("--jobs=1")))
    assert.equal("begun over begun over begun over ", content("notes"))
  end)

  it("runs tests alone that ask for it, after the others", function()
    for _, name in ipairs { "a", "c" } do write_test(name .. "_spec.lua", NOTING .. "note('begun') uv.sleep(50) note('over')") end
    write_test("b_spec.lua", NOTING .. [[note('begun') uv.sleep(50) note('over')
      end)
      it('measures ALONE', function()
    ]] .. NOTING .. "note('alone') uv.sleep(50) note('done')", "#" .. "alone") -- in two words, or this file would have such tests
    local code, output = run("--jobs=3")
    assert.equal(0, code)
    assert.truthy(content("notes"):find("^begun [^a]*over alone done $"), content("notes"))
    has(output, "b_spec.lua (alone)", "\n4 successes")
    code, output = run("--jobs=3", "--noalone")
    assert.equal(0, code)
    assert.is_nil(output:find("(alone)", 1, true))
    has(output, "\n3 successes")
  end)

  it("names the file and the test that do not end, and stops all that they started", function()
    write_test("a_spec.lua", [[
      local child = assert(uv.spawn("sleep", { args = { "1000.25" } }, function() end))
      uv.sleep(1000000)
    ]])
    write_test("b_spec.lua", "")
    local code, output = run("--limit=1")
    assert.equal(1, code)
    has(output, "a_spec.lua", 'It was stopped after 1 s in the test "test of a_spec.lua".', "1 success / 0 failures / 1 error")
    assert_gone("sleep 1000.25")
  end)

  it("notices a process that dies, or exits before its tests are over", function()
    write_test("a_spec.lua", "uv.kill(uv.os_getpid(), 'sigkill')")
    write_test("b_spec.lua", "os.exit(0)")
    write("c_spec.lua", "this is not Lua")
    local code, output = run()
    assert.equal(1, code)
    has(output, 'It was killed by signal 9 in the test "test of a_spec.lua".',
      'It exited with code 0 before its tests were over in the test "test of b_spec.lua".', "0 successes / 0 failures / 3 errors")
  end)

  it("notices what a file leaves running, or in its TMPDIR", function()
    write_test("a_spec.lua", [[assert(uv.spawn("sleep", { args = { "1000.75" } }, function() end))]])
    write_test("b_spec.lua", [[assert(io.open(os.getenv("TMPDIR") .. "/forgotten", "w")):close()]])
    local code, output = run()
    assert.equal(1, code)
    has(output, "It left processes running:\n", "sleep 1000.75", "It left in its TMPDIR: forgotten",
      "2 successes / 0 failures / 2 errors")
    assert_gone("sleep 1000.75")
  end)

  it("runs files in which something failed a second time when that is wanted, and says so", function()
    write_test("a_spec.lua", NOTING .. "local text = notes() note('tried') assert.equal('tried ', text)")
    write_test("b_spec.lua", "error('always')")
    local code, output = run("--retry")
    assert.equal(1, code)
    assert.truthy(output:find("ok  [^\n]*a_spec.lua   passed at the second try\n"), output)
    assert.truthy(output:find("FAIL[^\n]*b_spec.lua   failed twice\n"), output)
    has(output, "\n1 success / 0 failures / 1 error / 0 pending")
  end)

  it("stops all that it started when it is interrupted", function()
    for _, name in ipairs { "a", "b" } do
      write_test(name .. "_spec.lua", NOTING .. [[
        local child = assert(uv.spawn("sleep", { args = { "1000.5" } }, function() end))
        note('begun')
        uv.sleep(1000000)
      ]])
    end
    for signal, number in pairs { sigint = 2, sigterm = 15, sighup = 1 } do
      local child = start("--jobs=2")
      local deadline = uv.hrtime() + 30e9
      while content("notes") ~= "begun begun " and uv.hrtime() < deadline do uv.sleep(5) end
      child:kill(signal)
      assert.equal(128 + number, (child:wait(20)), signal)
      child:stop()
      assert_gone("sleep 1000.5")
      os.remove(path_of("notes"))
    end
  end)

  it("passes busted's options on", function()
    write_test("a_spec.lua", "")
    write("b_spec.lua", "it('one', function() end) it('other', function() error('not wanted') end)")
    local code, output = run("--output=TAP", "--filter=one")
    assert.equal(0, code)
    has(output, "ok 1 - one\n", "1 success / 0 failures")
  end)
end)

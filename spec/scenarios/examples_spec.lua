--- The examples that run programs of people: the grader, the judge with input, the matrix of images, in the ways that each can end.

local process = require "spec.support.process"
local Fixture = require "spec.support.fixture"
local program = require "spec.support.program"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local fixture, scratch

setup(function()
  fixture = Fixture.new()
  scratch = temporary.directory()
end)
teardown(function()
  fixture:close()
  temporary.remove(scratch)
end)

describe("examples/grade.lua", function()
  it("tells those that pass from those that fail, that do not end, and that are not there", function()
    for name, script in pairs { good = "cat data; exit 0", bad = "echo trouble; exit 3", endless = "sleep 60" } do
      assert(uv.fs_mkdir(scratch .. "/" .. name, 448))
      for file, content in pairs { check = script, data = "in the sandbox\n" } do
        local handle = assert(io.open(("%s/%s/%s"):format(scratch, name, file), "w"))
        handle:write(content)
        handle:close()
      end
    end
    local env = process.module_paths()
    env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY, env.TIME_LIMIT = fixture.server.url, fixture.server.key, "1"
    local argv = { process.lua(), "examples/grade.lua" }
    for _, name in ipairs { "good", "bad", "endless", "missing" } do argv[#argv + 1] = scratch .. "/" .. name end
    for _, argument in ipairs { "--", "sh", "check" } do argv[#argv + 1] = argument end
    local child = process.start { argv = argv, env = env }
    assert.equal(1, child:wait(60), child:stderr_text())
    local output = child:output()
    for _, pattern in ipairs { "/good +[%d.]+ s  passed\n", "/bad +[%d.]+ s  failed with 3\n",
      "/endless +[%d.]+ s  did not end in 1 s\n", "/missing +[%d.]+ s  not graded: [^\n]*No such file",
      "== [^\n]*/bad\ntrouble\n" } do
      assert.truthy(output:find(pattern), output)
    end
    assert.is_nil(output:find("in the sandbox", 1, true))
    child:stop()
    assert.same({}, assert(fixture.client:list_sandboxes { metadata = { job = "grade" } }))
  end)
end)

local function write(path, content)
  local handle = assert(io.open(path, "w"))
  handle:write(content)
  handle:close()
end

-- Runs an example against a development server, by default the fixture's. Returns its exit code and its output.
local function run(argv, variables, server)
  server = server or fixture.server
  local env = process.module_paths()
  env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server.url, server.key
  for name, value in pairs(variables or {}) do env[name] = value end
  table.insert(argv, 1, process.lua())
  return process.run({ argv = argv, env = env }, 60)
end

describe("examples/judge.lua", function()
  it("gives a point for each case whose output is right, and names the others", function()
    local cases = scratch .. "/cases"
    assert(uv.fs_mkdir(cases, 448))
    write(cases .. "/small.in", "3\n1\n2\n")
    write(cases .. "/small.out", "1\n2\n3\n")
    write(cases .. "/empty.in", "")
    write(cases .. "/empty.out", "")
    write(scratch .. "/right.sh", "sort -n")
    write(scratch .. "/wrong.sh", "cat")
    write(scratch .. "/endless.sh", "read line && sort -n || sleep 60")
    write(scratch .. "/killed.sh", "kill -9 $$")
    local argv = { "examples/judge.lua", cases }
    for _, name in ipairs { "right", "wrong", "endless", "killed", "missing" } do
      argv[#argv + 1] = ("%s/%s.sh"):format(scratch, name)
    end
    argv[#argv + 1], argv[#argv + 2] = "--", "sh"
    local code, output, problems = run(argv, { TIME_LIMIT = "1" })
    assert.equal(1, code, problems)
    for _, pattern in ipairs { "/right.sh +2/2  \n", "/wrong.sh +1/2  small: wrong output\n",
      "/endless.sh +0/2  empty: no end in 1 s", "/killed.sh +0/2  empty: failed with killed, small: failed with killed\n",
      "/missing.sh +not judged: [^\n]*No such file" } do
      assert.truthy(output:find(pattern), output)
    end
    assert.same({}, assert(fixture.client:list_sandboxes { metadata = { job = "judge" } }))
  end)

  it("finds the programs where commands see this machine's directories", function()
    local cases, server = scratch .. "/one case", process.devserver { grace = 0.2, isolation = "none" }
    finally(function() server:stop() end)
    assert(uv.fs_mkdir(cases, 448))
    write(cases .. "/small.in", "3\n1\n2\n")
    write(cases .. "/small.out", "1\n2\n3\n")
    write(scratch .. "/sorts.sh", "sort -n")
    local code, output, problems = run({ "examples/judge.lua", cases, scratch .. "/sorts.sh", "--", "sh" }, nil, server)
    assert.equal(0, code, output .. problems)
    assert.truthy(output:find "/sorts.sh +1/1")
  end)
end)

describe("examples/matrix.lua", function()
  it("runs the command in each image, shows the output with labels, and says where it failed", function()
    local project = scratch .. "/project"
    assert(uv.fs_mkdir(project, 448))
    write(project .. "/.gitignore", "*.o\n")
    write(project .. "/main.o", "")
    write(project .. "/check.sh", "ls; echo \"$CI\"; exit 3\n")
    local code, output, problems = run { "examples/matrix.lua", project, "one:1", "two:2", "--", "sh", "check.sh" }
    assert.equal(1, code, problems)
    for _, image in ipairs { "one:1", "two:2" } do
      assert.truthy(output:find(image .. " +| check.sh\n"), output)
      assert.truthy(output:find(image .. " +| true\n"), output)
      assert.truthy(output:find(image .. " +[%d.]+ s  failed with 3\n"), output)
    end
    assert.is_nil(output:find("main.o", 1, true))
    code, output = run { "examples/matrix.lua", project, "one:1", "--", "true" }
    assert.equal(0, code)
    assert.truthy(output:find("one:1 +[%d.]+ s  passed\n"), output)
  end)
end)

describe("examples/quickstart.lua", function()
  it("draws its progress bars at a terminal, and writes no carriage return elsewhere", function()
    local code, output, problems = run { "examples/quickstart.lua" }
    assert.equal(0, code, problems)
    assert.truthy(output:find("downloaded the result\n", 1, true), output)
    assert.is_nil(output:find("\r", 1, true), output)
    local terminal = program.terminal(fixture.server, nil, { argv = { process.lua(), "examples/quickstart.lua" } })
    local terminal_code, _, text = terminal:wait()
    terminal:close()
    assert.equal(0, terminal_code, text)
    assert.truthy(text:find("\r             download [##############################] 100%", 1, true), text)
  end)
end)

--- The example that grades submissions, in the three ways that one can end.

local process = require "spec.support.process"
local Fixture = require "spec.support.fixture"
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

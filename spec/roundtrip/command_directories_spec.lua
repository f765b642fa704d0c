--- Odd names of directories and files arrive as they are where commands, sessions and code run. The names are in bodies, which the server's
--- proxy does not read, so that its way is not tried with each.

local odd = require "spec.roundtrip.odd"

local fixture, ways

setup(function() fixture, ways = odd.start() end)
teardown(function() fixture:close() end)

local function base(path) return path:match("[^/]*$") end

-- Each is called as odd.try_names does.
local on_directories = {
  ["run and start, in that directory"] = function(way, path)
    assert(way.files:mkdir(path))
    assert.equal(0, assert(way.sandbox:run("echo x > ran", { cwd = path })).exit_code)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert.equal(0, assert(assert(way.sandbox:start("echo y > started", { cwd = path })):wait { timeout = 20 }).exit_code)
    assert.equal("y\n", assert(way.files:read(path .. "/started")))
  end,

  ["run, as an argument of a list"] = function(way, path)
    assert(way.files:write(path, "catted\n"))
    assert.equal("catted\n", assert(way.sandbox:run({ "cat", "--", "." .. path }, { cwd = "/" })).stdout)
  end,

  ["wait_for_file"] = function(way, path)
    assert(way.files:write(path, "x"))
    assert(way.sandbox:wait_for_file(fixture.root .. path, { timeout = 10 }))
  end,

  ["session, made there, and run there"] = function(way, path)
    local session = assert(way.sandbox:session { cwd = path })
    assert.equal(0, assert(session:run("echo x > ran")).exit_code)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert(way.files:mkdir(path .. "/" .. base(path)))
    assert.equal(0, assert(session:run("echo y > again", { cwd = path .. "/" .. base(path) })).exit_code)
    assert.equal("y\n", assert(way.files:read(path .. "/" .. base(path) .. "/again")))
    assert(session:close())
  end,

  ["code, made there"] = function(way, path)
    local code = assert(way.sandbox:code("bash", { cwd = path }))
    assert.is_nil(assert(code:run("echo x > ran")).error)
    assert.equal("x\n", assert(way.files:read(path .. "/ran")))
    assert(code:close())
  end,

}

local function open_session(way, path)
  local session = assert(way.sandbox:isolated { workspace = path, mode = "rw" })
  assert.equal(0, assert(session:run("echo x > ran")).exit_code)
  assert.equal("x\n", assert(session.files:read(path .. "/ran")))
  assert.equal(path, assert(session:info()).workspace.path)
  assert(session:close())
end

describe("odd names of files:", function()
  for operation, try in pairs(on_directories) do
    it(operation, function() odd.try_names(operation, try, ways[odd.DIRECTLY]) end)
  end

  it("an isolated session, with this workspace", function()
    if not ways[odd.ISOLATED] then return pending(fixture.unisolated) end
    odd.try_names("a workspace", open_session, ways[odd.DIRECTLY])
  end)
end)

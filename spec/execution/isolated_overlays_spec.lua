--- Isolated sessions with several directories, and without a workspace.

local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

describe("an isolated session with overlays", function()
  local server, reason, client, sandbox, session

  setup(function()
    server, reason = process.isolated_devserver { grace = 0.05, args = { "--newest-execd" } }
    if not server then return end
    client = opensandbox.new(server.url, server.key)
    sandbox = assert(client:create { image = "any", extensions = { ["bootstrap.execd.isolation"] = "enable" } })
  end)
  teardown(function()
    if not server then return end
    client:close()
    server:stop()
  end)
  before_each(function()
    if not server then return end
    assert(sandbox:run("rm -rf /keep /work /data; mkdir -p /keep /work/sub /data"))
    assert(sandbox:run("echo k > /keep/k; echo a > /work/sub/a; echo d > /data/d"))
  end)
  after_each(function()
    if session then assert(session:close()) end
    session = nil
  end)

  local function test(title, body)
    it(title, function()
      if not server then return pending(reason) end
      body()
    end)
  end

  local function output(code) return assert(session:run(code)).stdout end
  local function names(path) return assert(sandbox:run("ls " .. path)).stdout end

  test("keeps the changes of each directory where its mode says", function()
    session = assert(sandbox:isolated {
      workspace = "/keep",
      overlays = { { path = "/work" }, { path = "/work/sub", mode = "ro" }, { path = "/data", persist = false } },
    })
    assert.equal("/keep\nk\na\nd\n", output("pwd; cat /keep/k /work/sub/a /data/d"))
    assert(session:run("echo n > /keep/n; echo o > /work/o; echo m > /data/m"))
    assert.equal("d\nm\n", output("ls /data"))
    assert.equal("o\nsub\n", output("ls /work"))
    assert.matches("Read%-only file system", output("echo x > /work/sub/b"))
    -- The files API reads all but the changes in memory, and writes where they last.
    assert.equal("n\n", assert(session.files:read("/keep/n")))
    assert.equal("o\n", assert(session.files:read("/work/o")))
    assert.equal("d\n", assert(session.files:read("/data/d")))
    assert.is_false(session.files:exists("/data/m"))
    assert(session.files:write("/keep/from-api", "1"))
    assert(session.files:write("/work/from-api", "2"))
    assert.equal("12\n", output("cat /keep/from-api /work/from-api; echo"))
    for _, path in ipairs { "/data/x", "/work/sub/x" } do
      local _, err = session.files:write(path, "x")
      assert.same({ "state", "read_only" }, { err.kind, err.code })
    end
    local _, err = session.files:read("/etc/passwd")
    assert.equal("outside_workspace", err.code)

    assert(session:close())
    session = nil
    assert.equal("from-api\nk\nn\n", names("/keep"))
    assert.equal("sub\n", names("/work"))
    assert.equal("d\n", names("/data"))
  end)

  test("does without a workspace: the shell starts in the first of them", function()
    session = assert(sandbox:isolated { overlays = { { path = "/work/", mode = "rw" }, { path = "/data/../data" } } })
    assert.equal("/work\n", output("pwd"))
    assert(session:run("echo w > here; echo x > /data/x"))
    assert.equal("w\n", assert(session.files:read("here")))
    assert.equal("w\n", assert(sandbox.files:read("/work/here")))
    assert.equal("x\n", assert(session.files:read("/data/x")))
    local found = {}
    for _, info in ipairs(assert(session.files:search("/data"))) do found[#found + 1] = info.path end
    assert.same({ "/data/d", "/data/x" }, found)
    local info = assert(session:info())
    assert.is_nil(info.workspace)
    assert.same({ { path = "/work", mode = "rw" }, { path = "/data", mode = "overlay" } }, info.overlays)
    local _, err = session.files:move("/work/here", "/data/there")
    assert.is_truthy(err) -- they are file systems of their own
    assert(session:start("sleep 0.1"))
  end)

  test("has the same directories for who attaches to it", function()
    session = assert(sandbox:isolated { overlays = { { path = "/work", mode = "rw" }, { path = "/data" } } })
    local again = sandbox:isolated { id = session.id }
    assert(again.files:write("/data/x", "y"))
    assert.equal("y", assert(session.files:read("/data/x")))
    assert.is_nil((again.files:read("/keep/k")))
  end)

  test("takes whole directories up and down", function()
    session = assert(sandbox:isolated { overlays = { { path = "/work", mode = "rw" }, { path = "/data", mode = "rw" } } })
    local from, to = temporary.directory(), temporary.directory()
    temporary.file("content", from)
    assert.equal(1, assert(session.files:upload_dir(from, "/data/tree")).files)
    assert.equal(1, assert(session.files:download_dir("/data/tree", to)).files)
    assert.same(temporary.names(from), temporary.names(to))
    temporary.remove(from)
    temporary.remove(to)
  end)

  test("starts no run in the background where its first directory keeps no file", function()
    session = assert(sandbox:isolated { overlays = { { path = "/work", persist = false } } })
    assert.equal("a\n", output("cat sub/a"))
    local _, err = session:start("true")
    assert.same({ 400, "isolated:start" }, { err.status, err.op })
  end)

  test("raises for directories that execd refuses", function()
    local many = {}
    for i = 1, 17 do many[i] = { path = "/work/" .. i } end
    for message, overlays in pairs {
      ["overlay 2 is for \"/work\", as a directory before it"] = { { path = "/work" }, { path = "/work/" } },
      ["overlay 1 is for \"/keep\", as a directory before it"] = { { path = "/x/../keep" } },
      ["a session has 16 directories at most"] = many,
      ["overlay 1 has 'persist', which only the mode \"overlay\" has"] = { { path = "/work", mode = "rw", persist = true } },
    } do
      assert.error_matches(function() sandbox:isolated { workspace = "/keep", overlays = overlays } end, message, 1, true)
    end
  end)
end)

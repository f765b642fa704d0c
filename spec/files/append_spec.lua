--- Appending to a file: the bytes come after what exists, whatever they are, and nothing else stays in the sandbox.

local Fixture = require "spec.support.fixture"
local opensandbox = require "opensandbox"
local temporary = require "spec.support.temporary"
local wait_until = require "spec.support.wait_until"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local fixture, sandbox, files

setup(function()
  fixture = Fixture.new()
  sandbox = fixture.sandbox
  files = sandbox.files
end)
teardown(function() fixture:close() end)

-- Temporary files are removed without waiting.
local function nothing_left()
  wait_until(function()
    return assert(sandbox:run("ls -a ./tmp | grep -c opensandbox-", { cwd = "/" })).stdout == "0\n"
  end, "a temporary file stayed in the sandbox")
end

local function read(path) return assert(files:read(path)) end

describe("files:append", function()
  it("appends, and creates the file and its directories", function()
    assert.is_true(files:append("/work/a/b/log", "one\n"))
    assert.is_true(files:append("/work/a/b/log", "two\n"))
    assert.equal("one\ntwo\n", read "/work/a/b/log")
    assert.is_true(files:append("/work/a/b/log", ""))
    assert.equal("one\ntwo\n", read "/work/a/b/log")
    nothing_left()
  end)

  it("takes bytes of any kind and size, from handles and functions, and keeps the mode of the file", function()
    local bytes = ("\0\255\r\n%$x"):rep(300000)
    assert(files:write("/work/data", "begin", { mode = "0640" }))
    local done
    assert(files:append("/work/data", bytes, { on_progress = function(count) done = count end }))
    assert.equal(#bytes, done)
    local pieces = { "p", "q", "r" }
    assert(files:append("/work/data", function() return table.remove(pieces, 1) end))
    local local_path = temporary.file("from a handle")
    local handle = assert(io.open(local_path, "rb"))
    assert(files:append("/work/data", handle))
    handle:close()
    temporary.remove(local_path)
    assert.equal("begin" .. bytes .. "pqrfrom a handle", read "/work/data")
    assert.equal("0640", assert(files:stat("/work/data")).mode)
    nothing_left()
  end)

  it("takes every path", function()
    for _, path in ipairs { "/work/$HOME a", "/work/it's -n", "/work/-rf", "/top", "relative/one" } do
      assert(files:append(path, "x"))
      assert(files:append(path, "y"))
      assert.equal("xy", read(path), path)
    end
  end)

  it("loses nothing of many appends at the same time", function()
    local tasks = {}
    for i = 1, 12 do tasks[i] = opensandbox.spawn(function() assert(files:append("/work/many", ("line %02d\n"):format(i))) end) end
    for _, task in ipairs(tasks) do task:wait() end
    local seen = {}
    for line in read("/work/many"):gmatch("[^\n]+") do seen[#seen + 1] = line end
    table.sort(seen)
    assert.equal(12, #seen)
    assert.same({ "line 01", "line 12" }, { seen[1], seen[12] })
  end)

  it("reports why it failed, and leaves no temporary file", function()
    assert(files:mkdir("/work/directory"))
    local ok, err = files:append("/work/directory", "x")
    assert.is_nil(ok)
    assert.same({ "state", "append_failed", "files:append" }, { err.kind, err.code, err.op })
    assert.truthy(err.message:find("/work/directory", 1, true), err.message)
    local raised, message = pcall(files.append, files, "/work/x", function() error("no content", 0) end)
    assert.same({ false, "no content" }, { raised, message })
    assert.is_false((files:exists("/work/x")))
    nothing_left()
  end)

  it("is for the files of isolated sessions whose shell sees the same files", function()
    local isolating = fixture:create { extensions = { ["bootstrap.execd.isolation"] = "enable" } }
    for _, mode in ipairs { "rw", "overlay" } do
      local session, err = isolating:isolated { workspace = { path = "/work", mode = mode } }
      if not session then return pending("no isolation here: " .. tostring(err)) end
      local ok
      ok, err = session.files:append("/work/log", "one\n")
      if mode == "rw" then
        assert(ok, tostring(err))
        assert(session.files:append("/work/log", "two\n"))
        assert.equal("one\ntwo\n", assert(session.files:read("/work/log")))
      else
        assert.is_nil(ok)
        assert.same({ "state", "unsupported" }, { err.kind, err.code })
      end
      session:close()
    end
  end)

  it("raises for wrong arguments before anything is sent", function()
    for _, wrong in ipairs {
      { "", "x" }, { "/a", nil }, { "/a", {} }, { "/a", "x", { mode = "0644" } }, { "/a", "x", { timeout = 0 } },
    } do
      local ok, message = pcall(files.append, files, wrong[1], wrong[2], wrong[3])
      assert.is_false(ok)
      assert.truthy(message:find("files:append: ", 1, true), message)
    end
  end)
end)

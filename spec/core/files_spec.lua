--- Local files, as far as Lua's own library does not know them.

local core = require "opensandbox.core"
local temporary = require "spec.support.temporary"

describe("core", function()
  local directory

  before_each(function() directory = temporary.directory() end)
  after_each(function() temporary.remove(directory) end)

  local function write(name, bytes)
    local file = assert(io.open(directory .. "/" .. name, "wb"))
    file:write(bytes)
    file:close()
    return directory .. "/" .. name
  end

  it("has stat and lstat with the same results, and a link's target", function()
    local path = write("file", "12345")
    assert(core.chmod(path, 416)) -- 0640
    assert(core.utime(path, 1000000000.5))
    assert.same({ "file", 5, 416, 1000000000 }, { core.stat(path) })
    assert.same({ "file", 5, 416, 1000000000 }, { core.lstat(path) })
    assert(core.symlink("file", directory .. "/link"))
    assert.same({ "file", 5, 416, 1000000000 }, { core.stat(directory .. "/link") })
    local kind, size, _, _, target = core.lstat(directory .. "/link")
    assert.same({ "symlink", 4, "file" }, { kind, size, target })
    assert.equal("directory", (core.stat(directory)))
    assert.equal("device", (core.stat("/dev/null")))
    for _, name in ipairs { "stat", "lstat" } do
      local nothing, message, code = core[name](directory .. "/missing")
      assert.same({ nil, "No such file or directory", "ENOENT" }, { nothing, message, code })
    end
  end)

  it("refuses times that no file can have, without raising", function()
    local path = write("file", "")
    for _, seconds in ipairs { 1e300, -1e300, 0 / 0, 1 / 0 } do
      local ok, message = core.utime(path, seconds)
      assert.is_nil(ok)
      assert.is_string(message)
    end
    core.utime(path, 2 ^ 52) -- the file system decides
    assert.is_true(core.utime(path, -1))
  end)

  it("computes what cksum prints", function()
    local state = core.cksum(core.cksum(0, "12345"), "6789")
    assert.equal(930766865, core.cksum_final(state, 9))
    assert.equal(4294967295, core.cksum_final(0, 0))
    assert.has_error(function() core.cksum(-1, "") end)
    assert.has_error(function() core.cksum_final(0, 2 ^ 53) end)
  end)
end)

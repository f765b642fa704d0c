--- The files of a sandbox are opened without waiting, whatever the sandbox puts in their place.

local uv = require "luv"
local filesystem = require "opensandbox.devserver.execd.filesystem"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"

describe("filesystem.open", function()
  local directory

  before_each(function() directory = temporary.directory() end)
  after_each(function() temporary.remove(directory) end)

  local function is_pipe(path, flags)
    local fd, _, code = filesystem.open(path, flags, 384)
    assert.is_nil(fd)
    return filesystem.is_pipe { code = code }
  end

  it("reports a named pipe, whether or not it has another end", function()
    local path = directory .. "/pipe"
    assert(process.run { argv = { "mkfifo", path } })
    assert.is_true(is_pipe(path, "r"))
    assert.is_true(is_pipe(path, "w"))
    local other = assert(uv.fs_open(path, "r+", 0))
    assert.is_true(is_pipe(path, "r"))
    assert.is_true(is_pipe(path, "w"))
    uv.fs_close(other)
  end)

  it("creates, truncates and reads files, and returns the errors of the system", function()
    local path = directory .. "/file"
    assert.is_false(is_pipe(path, "r"))
    for _, text in ipairs { "some text", "less" } do
      local fd = assert(filesystem.open(path, "w", 384))
      assert(uv.fs_write(fd, text, 0))
      uv.fs_close(fd)
    end
    local fd = assert(filesystem.open(path, "r", 0))
    assert.equal("less", uv.fs_read(fd, 100, 0))
    assert.equal(384, uv.fs_fstat(fd).mode % 512)
    uv.fs_close(fd)
    assert.is_false(is_pipe(directory, "w"))
  end)
end)

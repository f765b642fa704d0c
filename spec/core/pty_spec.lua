--- Pseudo-terminals of the core.

local uv = require "luv"
local core = require "opensandbox.core"

local PATH = "/dev/ptmx"

describe("a pseudo-terminal", function()
  if not uv.fs_access(PATH, "RW") then return pending("there is no " .. PATH) end

  it("connects its two sides, and ends a line as a terminal does", function()
    local master, slave = assert(core.open_pty(PATH))
    uv.fs_write(slave, "out\n", -1)
    assert.equal("out\r\n", uv.fs_read(master, 100, -1))
    uv.fs_write(master, "in\n", -1)
    assert.equal("in\n", uv.fs_read(slave, 100, -1))
    assert.equal("in\r\n", uv.fs_read(master, 100, -1)) -- its echo
    uv.fs_close(slave)
    assert.is_nil((uv.fs_read(master, 100, -1)))
    uv.fs_close(master)
  end)

  it("has a size that can be set", function()
    local master, slave = assert(core.open_pty(PATH))
    local tty = uv.new_tty(slave, true)
    for _, size in ipairs { { 132, 43 }, { 1, 1 }, { 65535, 65535 } } do
      assert.is_true(core.resize_pty(master, size[1], size[2]))
      assert.same(size, { tty:get_winsize() })
    end
    tty:close()
    uv.run("nowait")
    uv.fs_close(master)
  end)

  it("is not inherited by programs", function()
    local master, slave = assert(core.open_pty(PATH))
    local found
    local out = uv.new_pipe(false)
    local child = uv.spawn("sh", {
      args = { "-c", ("[ -e /dev/fd/%d ] || [ -e /dev/fd/%d ] || echo none"):format(master, slave) }, stdio = { nil, out },
    }, function() end)
    out:read_start(function(_, data) found = found or data or "ended" end)
    while not found do uv.run("once") end
    assert.equal("none\n", found)
    out:close()
    child:close()
    uv.run("nowait")
    uv.fs_close(master)
    uv.fs_close(slave)
  end)

  it("reports what is wrong", function()
    local fd, message, code = core.open_pty("/no/such")
    assert.same({ nil, "ENOENT" }, { fd, code })
    assert.is_string(message)
    assert.is_nil((core.open_pty("/dev/null")))
    assert.is_nil((core.resize_pty(-1, 80, 24)))
    local file = assert(uv.fs_open("/dev/null", "r", 0))
    assert.is_nil((core.resize_pty(file, 80, 24)))
    uv.fs_close(file)
    for _, size in ipairs { { 0, 1 }, { 1, 0 }, { -1, 1 }, { 65536, 1 }, { 1, 65536 } } do
      assert.has_error(function() core.resize_pty(0, size[1], size[2]) end)
    end
    assert.has_error(function() core.open_pty() end)
  end)
end)

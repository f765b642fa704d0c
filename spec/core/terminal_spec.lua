--- The core's functions for the program: standard streams, the terminal, signals.

local core = require "opensandbox.core"
local process = require "spec.support.process"
local uv = require "luv"

local function pipe()
  local ends = assert(uv.pipe({}, {}))
  return ends.read, ends.write
end

describe("the core's standard streams", function()
  it("write every byte, and report a pipe that nobody reads without a signal", function()
    local reader, writer = pipe()
    assert.is_true(core.write(writer, "a\0b"))
    assert.equal("a\0b", core.read(reader))
    uv.fs_close(reader)
    local ok, message, name = core.write(writer, "x")
    assert.is_nil(ok)
    assert.equal("string", type(message))
    assert.equal("EPIPE", name)
    uv.fs_close(writer)
  end)

  it("are read up to their end, which is an empty string", function()
    local reader, writer = pipe()
    uv.fs_close(writer)
    assert.equal("", core.read(reader))
    uv.fs_close(reader)
    local bytes, _, name = core.read(reader)
    assert.is_nil(bytes)
    assert.equal("E9", name)
  end)

  it("are waited for, several at a time", function()
    local first, to_first = pipe()
    local second, to_second = pipe()
    assert.same({}, core.wait_readable({ first, second }, 0))
    core.write(to_second, "x")
    assert.same({ [second] = true }, core.wait_readable({ first, second }, 10))
    uv.fs_close(to_first)
    assert.same({ [first] = true, [second] = true }, core.wait_readable({ first, second }, 10))
    for _, fd in ipairs { first, second, to_second } do uv.fs_close(fd) end
    local begin = core.now()
    assert.same({}, core.wait_readable({}, 0.05))
    assert.is_true(core.now() - begin >= 0.049)
  end)

  it("raise for wrong arguments", function()
    local many = {}
    for index = 1, 17 do many[index] = 0 end
    assert.has_error(function() core.wait_readable(many, 0) end)
    assert.has_error(function() core.wait_readable({ "x" }, 0) end)
    assert.has_error(function() core.wait_readable(0, 0) end)
    assert.has_error(function() core.write(1) end)
  end)
end)

describe("a terminal", function()
  local master, slave

  before_each(function() master, slave = assert(core.open_pty("/dev/ptmx")) end)
  after_each(function()
    uv.fs_close(master)
    uv.fs_close(slave)
  end)

  it("is told from other files, and has a size", function()
    assert.is_true(core.is_terminal(slave))
    core.resize_pty(master, 120, 30)
    assert.same({ 120, 30 }, { core.terminal_size(slave) })
    local reader, writer = pipe()
    assert.is_false(core.is_terminal(reader))
    assert.is_nil((core.terminal_size(reader)))
    assert.is_nil((core.raw_mode(reader)))
    uv.fs_close(reader)
    uv.fs_close(writer)
  end)

  it("passes every key in raw mode, without echo, until it is restored", function()
    local raw = assert(core.raw_mode(slave))
    core.write(master, "\3\r\26")
    assert.equal("\3\r\26", core.read(slave))
    core.write(slave, "\n")
    assert.equal("\n", core.read(master)) -- no echo before it, and no "\r"
    raw:restore()
    raw:restore()
    core.write(master, "a\r")
    assert.equal("a\n", core.read(slave))
    assert.equal("a\r\n", core.read(master))
  end)

  it("is restored by the collector", function()
    local raw = core.raw_mode(slave)
    assert.truthy(raw)
    raw = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    core.write(slave, "\n")
    assert.equal("\r\n", core.read(master))
  end)
end)

describe("signals", function()
  local function script(text, env)
    local changes = process.module_paths()
    for name, value in pairs(env or {}) do changes[name] = value end
    return process.start { env = changes, argv = { process.lua(), "-e", 'local core = require "opensandbox.core"\n' .. text } }
  end

  it("make a descriptor readable, in their order, and end the process only then by the signal", function()
    local child = script [[
      local fd = core.catch_signals("TERM", "WINCH")
      print "ready"
      io.stdout:flush()
      local names = {}
      while #names < 2 do
        core.wait_readable({ fd }, 10)
        local name = core.next_signal()
        while name do
          names[#names + 1] = name
          print(name)
          io.stdout:flush()
          name = core.next_signal()
        end
      end
      core.die_by_signal("TERM")
    ]]
    assert.equal("ready", child:read_line())
    child:kill("sigwinch")
    assert.equal("WINCH", child:read_line())
    child:kill("sigterm")
    assert.equal("TERM", child:read_line())
    local _, signal = child:wait()
    assert.equal(15, signal)
    child:stop()
  end)

  it("stay ignored if they were ignored", function()
    local env = process.module_paths()
    local child = process.start { env = env, argv = { "sh", "-c", "trap '' HUP; exec " .. process.lua() .. [[ -e '
      local core = require "opensandbox.core"
      local fd = core.catch_signals("HUP", "TERM")
      print "ready"
      io.stdout:flush()
      core.wait_readable({ fd }, 10)
      print(core.next_signal())
    ']] } }
    assert.equal("ready", child:read_line())
    child:kill("sighup")
    child:kill("sigterm")
    assert.equal("TERM", child:read_line())
    child:stop()
  end)

  it("have their default action again, which the lua program has changed, unless they are ignored", function()
    local text = [[
      local core = require "opensandbox.core"
      assert(core.default_signal("INT") and core.default_signal("TERM"))
      print "ready"
      io.stdout:flush()
      core.wait_readable({}, 2)
      print "alive"
    ]]
    local child = script(text)
    assert.equal("ready", child:read_line())
    child:kill("sigint")
    assert.equal(2, select(2, child:wait()))
    assert.equal("", child:stderr_text())
    child:stop()
    child = process.start { env = process.module_paths(), argv = { "sh", "-c", "trap '' TERM; exec " .. process.lua() .. " -e '"
      .. text .. "'" } }
    assert.equal("ready", child:read_line())
    child:kill("sigterm")
    assert.equal("alive", child:read_line())
    child:stop()
  end)

  it("have names", function()
    assert.has_error(function() core.default_signal("KILL") end)
    assert.has_error(function() core.catch_signals("KILL") end)
    assert.has_error(function() core.die_by_signal("9") end)
    assert.is_nil(core.next_signal())
  end)
end)

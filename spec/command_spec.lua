--- Commands in the background: a handle on one, from the process that started it and from another.

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local Fixture = require "spec.support.fixture"

describe("a command in the background", function()
  local client, sandbox, fixture

  setup(function()
    fixture = Fixture.new()
    client, sandbox = fixture.client, fixture.sandbox
  end)
  teardown(function() fixture:close() end)

  it("has started when start returns, and goes on by itself", function()
    local command = assert(sandbox:start("sleep 0.3; until test -e tmp/go; do sleep 0.02; done; echo done > tmp/mark; exit 7"))
    assert.is_true(assert(command:status()).running)
    assert(sandbox.files:write("/tmp/go", ""))
    local ended = assert(command:wait())
    assert.same({ command.id, 7, "exit status 7" }, { ended.id, ended.exit_code, ended.error })
    assert.is_nil(ended.signal)
    assert.is_true(ended.duration >= 0.25 and ended.duration < 10)
    assert.is_false(assert(command:status()).running)
    assert.equal("done\n", assert(sandbox.files:read("/tmp/mark")))
  end)

  it("gives its output while it runs, both streams in order, and then how it ended", function()
    local command = assert(sandbox:start("echo one; sleep 0.2; echo two >&2; sleep 0.2; printf three; exit 3"))
    local texts, last = {}, nil
    for event in command:events() do
      last = event
      if event.type == "output" then texts[#texts + 1] = event.text end
    end
    assert.equal("one\ntwo\nthree", table.concat(texts))
    assert.is_true(#texts >= 2)
    assert.same({ "exit", 3 }, { last.type, last.exit_code })
  end)

  it("gives whole characters, and the bytes of one that is never completed at the end", function()
    local command = assert(sandbox:start("printf 'caf\\303'; sleep 0.3; printf '\\251 ok\\303'"))
    local pieces = {}
    for event in command:events() do
      if event.type == "output" then pieces[#pieces + 1] = event.text end
    end
    assert.equal("caf\195\169 ok\195", table.concat(pieces))
    for i = 1, #pieces - 1 do assert.is_nil(pieces[i]:find("[\194-\244]$"), pieces[i]) end
  end)

  it("that writes more than fits in memory is followed piece by piece", function()
    local command = assert(sandbox:start("head -c 100000000 /dev/zero; echo end"))
    assert(command:wait { timeout = 60 })
    collectgarbage()
    local before = process.rss()
    local size, largest, most, last = 0, 0, 0, nil
    local events = command:events()
    local event = assert(events:next())
    while event do
      if event.text then
        size, largest, last = size + #event.text, math.max(largest, #event.text), event.text:sub(-4)
        assert.equal(size, event.cursor)
      end
      event = nil -- luacheck: ignore 311
      collectgarbage() -- what earlier tests held decides when Lua would do it by itself
      if before then most = math.max(most, process.rss().current) end
      event = events:next()
    end
    assert.same({ 100000004, "end\n" }, { size, last })
    assert.is_true(largest < 20 * 1024 * 1024)
    if before then assert.is_true(most - before.current < 64 * 1024, ("%d KiB more"):format(most - before.current)) end
  end)

  it("can be followed from a cursor, and by another handle on the same id", function()
    local command = assert(sandbox:start({ "sh", "-c", "echo one; echo two" }))
    assert(command:wait())
    local same = sandbox:command(command.id)
    local text, cursor = same:logs()
    assert.same({ "one\ntwo\n", 8 }, { text, cursor })
    assert.same({ "", 8 }, { same:logs(8) })
    local events = same:events { cursor = 4 }
    assert.same({ type = "output", text = "two\n", cursor = 8 }, events:next())
    assert.equal("exit", events:next().type)
    assert.is_nil(events:next())
    local other = assert(assert(client:connect(sandbox.id)):command(command.id):wait())
    assert.equal(0, other.exit_code)
  end)

  it("ends when it is killed, and killing it again is no error", function()
    local command = assert(sandbox:start("exec sleep 100"))
    assert(command:kill())
    local ended = assert(command:wait { timeout = 5 })
    assert.same({ -1, "terminated" }, { ended.exit_code, ended.signal })
    assert(command:kill())
  end)

  it("is ended by its own timeout", function()
    local ended = assert(assert(sandbox:start("exec sleep 100", { timeout = 0.2 })):wait())
    assert.same({ -1, "killed" }, { ended.exit_code, ended.signal })
  end)

  it("goes on when the waiting for it ends", function()
    local command = assert(sandbox:start("sleep 100"))
    local _, err = command:wait { timeout = 0.1 }
    assert.same({ "timeout", "wait_timeout", "command:wait" }, { err.kind, err.code, err.op })
    assert.is_true(assert(command:status()).running)
    assert(command:kill())
  end)

  it("is waited for beside others in tasks", function()
    local meet = "touch tmp/met%d; until test -e tmp/met1 -a -e tmp/met2 -a -e tmp/met3; do sleep 0.02; done; exit %d"
    local ended = opensandbox.map({ 1, 2, 3 }, function(code)
      return assert(assert(sandbox:start(meet:format(code, code))):wait { timeout = 60 }).exit_code
    end)
    assert.same({ 1, 2, 3 }, ended)
  end)

  it("is an error at once when execd does not know it", function()
    local unknown = sandbox:command("0123456789abcdef")
    local began = core.now()
    for _, name in ipairs { "status", "logs", "wait", "kill" } do
      local value, err = unknown[name](unknown)
      assert.is_nil(value)
      assert.same({ "http", "command:" .. name }, { err.kind, err.op })
    end
    local ok, raised = pcall(function() for _ in unknown:events() do end end) -- luacheck: ignore 542
    assert.is_false(ok)
    assert.equal("command:events", raised.op)
    assert.is_true(core.now() - began < 1)
    assert.has_error(function() sandbox:command("") end)
    assert.has_error(function() sandbox:start("x", { on_stdout = print }) end)
  end)
end)

describe("a command that execd has started but does not know yet", function()
  it("is asked for again, for a moment", function()
    local server = fault_server.start [[
      local asked = 0
      return function(request, connection)
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, { ["Content-Type"] = "application/json" },
            '{"endpoint":"' .. request.headers.host .. '"}')
        elseif request.method == "POST" then
          connection:start(200, { ["Content-Type"] = "text/event-stream" })
          connection:event { type = "init", text = "c1", timestamp = 1 }
          connection:event { type = "execution_complete", timestamp = 2 }
          return connection:finish()
        end
        asked = asked + 1
        if asked <= 3 then
          return connection:respond(404, { ["Content-Type"] = "application/json" },
            '{"code":"INVALID_REQUEST_BODY","message":"command not found: c1"}')
        end
        connection:respond(200, { ["Content-Type"] = "application/json" }, '{"id":"c1","running":false,"exit_code":5}')
      end
    ]]
    local client = opensandbox.new(server.url, "", { retry = false })
    local sandbox = assert(client:connect("sb", { wait = false }))
    local command = assert(sandbox:start("true"))
    assert.equal(5, assert(command:wait()).exit_code)
    client:close()
    server:stop()
  end)
end)

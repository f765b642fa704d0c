--- The events of a command one by one, and that nothing of it is left when the loop ends early.

local Fixture = require "spec.support.fixture"
local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local fixture, sandbox

setup(function()
  fixture = Fixture.new()
  sandbox = fixture.sandbox
end)
teardown(function() fixture:close() end)

-- Reads a stream to its end. Returns its texts by stream, and the last event.
local function read_all(stream)
  local texts = { stdout = "", stderr = "" }
  local event = assert(stream:next())
  while event.type ~= "exit" do
    texts[event.type] = texts[event.type] .. event.text
    event = assert(stream:next())
  end
  local after, err = stream:next()
  assert.is_nil(after)
  assert.is_nil(err)
  return texts, event
end

-- A command that runs until it is stopped, and writes its process id to a file.
local function endless(name)
  return ("echo $$ > ./tmp/%s; while :; do echo tick; sleep 0.05; done"):format(name)
end

local function is_running(name)
  local result = assert(sandbox:run(("kill -0 \"$(cat ./tmp/%s)\""):format(name)))
  return result.exit_code == 0
end

local function assert_stops(name)
  local began = core.now()
  while is_running(name) do
    assert.is_true(core.now() - began < 15, "the command still runs")
    opensandbox.sleep(0.05)
  end
end

describe("sandbox:stream", function()
  it("has the output of both streams and how the command ended", function()
    local texts, last = read_all(sandbox:stream("echo one; echo two >&2; echo; printf three; exit 3"))
    assert.same({ stdout = "one\n\nthree\n", stderr = "two\n" }, texts)
    assert.same({ "exit", 3, "string", nil }, { last.type, last.exit_code, type(last.id), last.timed_out })
    assert.is_true(last.duration >= 0 and last.duration < 10)
  end)

  it("is an iterator of a for loop, and yields output while the command runs", function()
    local types, first_at = {}, nil
    local began = core.now()
    for event in sandbox:stream("echo first; sleep 0.4; echo second") do
      if not first_at then first_at = core.now() - began end
      types[#types + 1] = event.type .. " " .. tostring(event.text or event.exit_code)
    end
    assert.same({ "stdout first\n", "stdout second\n", "exit 0" }, types)
    assert.is_true(core.now() - began - first_at > 0.25)
  end)

  it("starts the command with the first step, and checks the arguments before", function()
    local stream = sandbox:stream("echo x > ./tmp/started")
    assert.is_false((sandbox.files:exists("/tmp/started")))
    read_all(stream)
    assert.is_true((sandbox.files:exists("/tmp/started")))
    for _, wrong in ipairs { { on_stdout = print }, { capture = "exact" }, { timeout = "soon" }, { gid = 5 } } do
      local ok, message = pcall(sandbox.stream, sandbox, "true", wrong)
      assert.is_false(ok)
      assert.truthy(message:find("^[^\n]*sandbox:stream: "), message)
    end
    assert.has_error(function() sandbox:stream("") end)
  end)

  it("takes the options of run: a list, stdin, env, cwd, a timeout, durable", function()
    local texts = read_all(sandbox:stream({ "cat", "-" }, { stdin = "from stdin\n" }))
    assert.equal("from stdin\n", texts.stdout)
    texts = read_all(sandbox:stream("echo $STAGE; pwd", { env = { STAGE = "two" }, cwd = "/tmp" }))
    assert.truthy(texts.stdout:find("^two\n[^\n]*/tmp\n$"), texts.stdout)
    texts = read_all(sandbox:stream("echo out; echo err >&2", { durable = true }))
    assert.same({ stdout = "out\nerr\n", stderr = "" }, texts)
    local _, last = read_all(sandbox:stream("sleep 30", { timeout = "300ms" }))
    assert.same({ "exit", -1, true }, { last.type, last.exit_code, last.timed_out })
  end)

  it("holds little, and loses nothing, when the reader is slow", function()
    local bytes = 40 * 1000 * 1000
    local stream = sandbox:stream(("yes %s | head -c %d"):format(("x"):rep(999), bytes))
    assert(stream:next())
    opensandbox.sleep(1)
    collectgarbage()
    local before, most, size = process.rss(), 0, 0
    local event = assert(stream:next())
    while event.type ~= "exit" do
      size = size + #event.text
      if before and size % 1000000 == 0 then
        collectgarbage() -- what earlier tests held decides when Lua would do it by itself
        most = math.max(most, process.rss().current)
      end
      event = assert(stream:next())
    end
    assert.equal(bytes - 1000, size)
    if not before then return end -- another system
    assert.is_true(most - before.current < 16 * 1024 * 1024, ("it grew by %d bytes"):format(most - before.current))
  end)
end)

describe("a stream that is left early", function()
  it("stops its command when it is closed", function()
    local stream = sandbox:stream(endless "closed")
    assert.equal("tick\n", assert(stream:next()).text)
    assert.is_true(stream:close())
    local event, err = stream:next()
    assert.is_nil(event)
    assert.same({ "closed", "sandbox:stream" }, { err.kind, err.op })
    assert_stops "closed"
    assert.is_true(stream:close())
  end)

  it("stops its command when the loop ends by break or by an error", function()
    for event in sandbox:stream(endless "broken") do
      if event.text == "tick\n" then break end
    end
    local ok, message = pcall(function()
      for _ in sandbox:stream(endless "raised") do error("enough", 0) end
    end)
    assert.same({ false, "enough" }, { ok, message })
    collectgarbage() -- before Lua 5.4 nothing else tells that a loop has ended
    collectgarbage()
    assert_stops "broken"
    assert_stops "raised"
  end)

  it("stops its command when it is collected", function()
    do
      local stream = sandbox:stream(endless "collected")
      assert(stream:next())
    end
    collectgarbage()
    collectgarbage()
    assert_stops "collected"
  end)

  it("stops its command when the task that reads is cancelled", function()
    local reader = opensandbox.spawn(function()
      local stream = sandbox:stream("echo $$ > ./tmp/cancelled; echo ready; sleep 60")
      assert(stream:next())
      return stream:next()
    end)
    assert(sandbox:wait_for_file("./tmp/cancelled"))
    opensandbox.sleep(0.2)
    reader:cancel()
    local event, err = reader:wait()
    assert.is_nil(event)
    assert.equal("cancelled", err.kind)
    assert_stops "cancelled"
  end)

  it("stops its command when the client is closed, in time", function()
    local other = fixture:another_client()
    local again = assert(other:connect(sandbox.id))
    local stream = again:stream(endless "client")
    assert(stream:next())
    local began = core.now()
    other:close()
    assert.is_true(core.now() - began < 4)
    local event, err = stream:next()
    while event do event, err = stream:next() end
    assert.equal("closed", err.kind)
    assert_stops "client"
  end)

  it("was never begun: nothing is sent", function()
    local server = fault_server.start [[return function(request, connection) connection:respond(500, {}, "") end]]
    local other = opensandbox.new(server.url, nil, { retry = false })
    local silent = assert(other:connect("s", { wait = false }))
    assert.is_true(silent:stream("true"):close())
    silent:stream("true") -- luacheck: ignore
    collectgarbage()
    assert.equal(0, #server:requests())
    other:close()
    server:stop()
  end)
end)

describe("a stream that breaks", function()
  it("returns the error with what had arrived, and raises it in a loop", function()
    local server = fault_server.start [[
      return function(request, connection)
        if request.path:find("/endpoints/", 1, true) then
          return connection:respond(200, { ["Content-Type"] = "application/json" },
            json.encode { endpoint = request.headers.host .. "/execd" })
        elseif request.path ~= "/execd/command" then
          return connection:respond(404, {}, '{"code":"X","message":"command not found: c1"}')
        end
        connection:start(200, { ["Content-Type"] = "text/event-stream" })
        connection:event { type = "init", text = "c1", timestamp = 1 }
        connection:event { type = "stdout", text = "half", timestamp = 2 }
        connection:after(50, connection.reset)
      end
    ]]
    local other = opensandbox.new(server.url, nil, { retry = false })
    local broken = assert(other:connect("s", { wait = false }))
    local stream = broken:stream("true")
    assert.same({ type = "stdout", text = "half\n" }, stream:next())
    local event, err = stream:next()
    assert.is_nil(event)
    assert.same({ "stream", "sandbox:stream", "half\n" }, { err.kind, err.op, err.result.stdout })
    assert.is_nil((stream:next()))
    local seen = 0
    local ok, raised = pcall(function()
      for _ in broken:stream("true") do seen = seen + 1 end
    end)
    assert.same({ false, 1, "stream" }, { ok, seen, raised.kind })
    other:close()
    server:stop()
  end)

  it("raises the error of a reader function that is its input", function()
    local stream = sandbox:stream("cat", { stdin = function() error("no input", 0) end })
    local ok, message = pcall(stream.next, stream)
    assert.same({ false, "no input" }, { ok, message })
  end)
end)

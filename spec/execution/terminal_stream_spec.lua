--- A terminal over connections that are cut, and over an execd that loses output at the exit.
--
-- OPENSANDBOX_TEST_CUTS and OPENSANDBOX_TEST_EXITS raise the numbers of both.

local cutting_relay = require "spec.support.cutting_relay"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

require("opensandbox.loop").use("spec", "plain") -- the helpers have loaded luv

local CUTS = tonumber(os.getenv("OPENSANDBOX_TEST_CUTS")) or 40
local EXITS = tonumber(os.getenv("OPENSANDBOX_TEST_EXITS")) or 10

-- A sandbox whose execd is reached through a relay.
local function through(client, sandbox, relay)
  local handle = assert(sandbox:handle())
  local execd = handle.endpoints["44772"]
  execd.url = execd.url:gsub(":%d+", ":" .. relay.port, 1)
  return assert(client:connect(handle, { wait = false }))
end

local function port_of(client, sandbox)
  return assert(client:discover_execd(sandbox.id)).port
end

-- All output of a session so far, as another client sees it.
local function whole_output(client, sandbox, session_id)
  local execd = assert(client:discover_execd(sandbox.id))
  local viewer = assert(client:connect_pty_session(execd, session_id, { viewer = true }))
  local _, bytes = viewer:receive(20)
  viewer:close()
  return bytes:sub(10)
end

describe("a terminal whose connections are cut", function()
  local server, client, sandbox
  setup(function()
    server = process.devserver { grace = 0.2 }
    client = opensandbox.new(server.url, server.key)
    sandbox = assert(client:create { image = "python:3.12" })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function log()
    return assert(sandbox:run "cat log").stdout
  end

  -- Types lines, and makes sure that each one arrives once. A program echoes them, and writes them to a log.
  local Typist = {}
  Typist.__index = Typist

  function Typist:wait_for(wanted)
    local from = #self.text
    while not self.text:find(wanted, math.max(from - #wanted, 1), true) do
      local bytes, err = self.terminal:read(30)
      if not bytes then return nil, err end
      self.text = self.text .. bytes
    end
    return true
  end

  function Typist:try(line)
    local ok, err = self.terminal:write(line .. "\n")
    if ok then ok, err = self:wait_for("got " .. line .. "\r\n") end
    if ok then return true end
    assert.equal("input_unsure", err.code, tostring(err))
    self.unsure = self.unsure + 1
    return false
  end

  -- What was typed before a line that arrived has arrived, or never will.
  function Typist:type(line)
    if self:try(line) then return end
    repeat self.barriers = self.barriers + 1 until self:try("barrier " .. self.barriers) -- each is new, so that none is taken for another
    if log():find("\n" .. line .. "\n", 1, true) then return end
    return self:type(line)
  end

  it("loses and doubles no byte of output, types nothing twice, and starts its command once", function()
    local relay = cutting_relay.start { port = port_of(client, sandbox), seed = 7, cuts = CUTS, bytes = 900, ms = 60 }
    local terminal = assert(through(client, sandbox, relay):terminal { command = "stty -echo; echo start >>log; echo ready; "
      .. "while IFS= read -r line; do echo \"$line\" >>log; echo \"got $line\"; done; exit 9" })
    local typist = setmetatable({ terminal = terminal, text = "", unsure = 0, barriers = 0 }, Typist)
    assert.is_true(typist:wait_for "ready\r\n" or typist:wait_for "ready\r\n")
    local count, lines = 0, { "start" }
    while relay.cuts() < CUTS do
      count = count + 1
      lines[#lines + 1] = "line " .. count
      typist:type(lines[#lines])
    end
    local record = whole_output(client, sandbox, terminal.session_id)
    local found = assert(record:find(typist.text, 1, true), "the output differs from execd's record")
    assert.equal(#record, found + #typist.text - 1)
    local seen = {}
    for line in log():gmatch("[^\n]+") do
      if not line:find("barrier", 1, true) then seen[#seen + 1] = line end
    end
    assert.same(lines, seen)
    assert.is_true(terminal:write "\4")
    assert.equal(9, terminal:wait { timeout = 30 })
    terminal:close()
    relay.stop()
    if CUTS > 40 then print(("%d cuts, %d lines, %d of them unsure"):format(CUTS, count, typist.unsure)) end
  end)

  it("receives all of a long output, and its exit code", function()
    local relay = cutting_relay.start { port = port_of(client, sandbox), seed = 11, cuts = CUTS, bytes = 800000, ms = 100 }
    local pieces = {}
    local terminal = assert(through(client, sandbox, relay):terminal { command = "stty raw; i=0; "
      .. "while [ $i -lt 30 ]; do seq 1 5000; sleep 0.02; i=$((i + 1)); done; exit 77",
      on_output = function(bytes) pieces[#pieces + 1] = bytes end })
    assert.equal(77, terminal:wait { timeout = 120 })
    local numbers = {}
    for number = 1, 5000 do numbers[number] = number .. "\n" end
    assert.is_true(table.concat(numbers):rep(30) == table.concat(pieces))
    assert.is_true(relay.cuts() > 3)
    terminal:close()
    relay.stop()
  end)

  it("reports a sandbox that has gone meanwhile", function()
    local relay = cutting_relay.start { port = port_of(client, sandbox), seed = 3, cuts = 0, bytes = 1, ms = 1 }
    local mine = assert(client:create { image = "python:3.12" })
    local terminal = assert(through(client, mine, relay):terminal { command = "echo kept; sleep 1000" })
    opensandbox.sleep(0.2)
    assert.is_true(mine:kill())
    relay.stop()
    assert.equal("kept\r\n", terminal:read())
    local bytes, err = terminal:read(30)
    assert.is_nil(bytes)
    assert.same({ "state", "sandbox_gone", "terminal:read" }, { err.kind, err.code, err.op })
  end)
end)

describe("a terminal whose place execd keeps for a connection that was cut", function()
  it("takes the place over, and that of no other client", function()
    local server = fault_server.start [[
      local CONNECTED = websocket.frame("text", '{"type":"connected","session_id":"x","mode":"pty"}')
      return function(request, connection)
        local json_type = { ["Content-Type"] = "application/json" }
        if request.path == "/pty" then
          state.token = request.body:match("033_(%x+)")
          connection:respond(201, json_type, '{"session_id":"x"}')
        elseif request.method == "DELETE" then
          connection:respond(200, {}, "")
        elseif not request.path:find("/ws", 1, true) then
          connection:respond(200, json_type, '{"session_id":"x","running":true,"output_offset":30}')
        elseif state.is_taken and not request.path:find("takeover=1", 1, true) then
          connection:respond(409, json_type, '{"code":"ALREADY_CONNECTED","message":"already connected"}')
        elseif state.is_taken then
          websocket.accept(request, connection, { with = CONNECTED .. websocket.frame("binary", "\1back") })
        else
          state.is_taken = true
          local mark = "\27_" .. state.token .. "\27\\"
          websocket.accept(request, connection, { with = CONNECTED .. websocket.frame("binary", "\1" .. mark) })
          connection:close()
        end
      end
    ]]
    local client = opensandbox.new(server.url, "k", { retry = false })
    local handle = { id = "s", url = client.url, endpoints = { ["44772"] = { url = server.url, headers = {} } } }
    local sandbox = assert(client:connect(handle, { wait = false }))
    local terminal = assert(sandbox:terminal())
    assert.equal("back", terminal:read(20))
    local other, err = sandbox:terminal { id = terminal.id }
    assert.is_nil(other)
    assert.same({ "state", "ALREADY_CONNECTED" }, { err.kind, err.code })
    terminal:close()
    client:close()
    server:stop()
  end)
end)

describe("an execd that loses output at the exit", function()
  local server, client, sandbox
  setup(function()
    server = process.devserver { grace = 0.2, args = { "--lose-output-at-exit" } }
    client = opensandbox.new(server.url, server.key)
    sandbox = assert(client:create { image = "python:3.12" })
  end)
  teardown(function()
    client:close()
    server:stop()
  end)

  local function command(code)
    return ("head -c 100000 /dev/zero | tr '\\0' x; exit %d"):format(code)
  end

  it("loses it on a plain connection", function()
    local execd = assert(client:discover_execd(sandbox.id))
    local id = assert(client:create_pty_session(execd, { command = command(3) }))
    local connection = assert(client:connect_pty_session(execd, id))
    local size, exit = 0, nil
    for kind, bytes in function() return connection:receive(20) end do
      if kind == "binary" then size = size + #bytes - 1 else exit = bytes:match("exit_code\":(%d+)") or exit end
    end
    assert.equal("3", exit)
    assert.is_true(size < 100000)
    assert.is_true(client:delete_pty_session(execd, id))
  end)

  it("loses none of a terminal's", function()
    local missing, wrong = 0, 0
    for run = 1, EXITS do
      local code, size = run % 200, 0
      local terminal = assert(sandbox:terminal { command = command(code) })
      for bytes in terminal:output() do size = size + #bytes end
      missing = missing + 100000 - size
      if terminal:wait { timeout = 20 } ~= code then wrong = wrong + 1 end
      assert.is_true(terminal:close())
    end
    assert.same({ 0, 0 }, { missing, wrong })
    if EXITS > 10 then print(("%d exits, %d bytes missing, %d wrong codes"):format(EXITS, missing, wrong)) end
  end)
end)

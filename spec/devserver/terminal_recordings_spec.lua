--- Terminals of the development server answer as those of the execd of August 2026 did when they were recorded.
--
-- A recorded session is played at its pace: what a client sent is sent when everything that it had received before has arrived, and not
-- earlier after the step before than in the recording.

local execd_client = require "spec.support.execd_client"
local json = require "opensandbox.base.json"
local process = require "spec.support.process"
local recorded_client = require "spec.support.recorded_client"
local recordings = require "spec.support.recordings"
local uv_loop = require "spec.support.uv_loop"
local websocket_client = require "spec.support.websocket_client"

local server, reason, sandbox

setup(function()
  server, reason = process.isolated_devserver { grace = 0.05 }
  if server then sandbox = execd_client.sandbox(server) end
end)
teardown(function()
  if server then server:stop() end
end)

local REPLAY = 3 -- channel

local MASKS = {
  { "%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x", "<uuid>" },
  { " +sleep %.1", "" }, -- bash 5.3 names the command that a signal ended
  { "bash%-%d%.%d[#$] ", "bash# " }, { "%[1%] %d+", "[1] <pid>" }, { "pid=%d+", "pid=<pid>" }, { "run%-no%-%d+", "run-no-<n>" },
  { "/dev/pts/%d+", "/dev/pts/<n>" },
}

local function mask(text)
  for _, one in ipairs(MASKS) do text = text:gsub(one[1], one[2]) end
  return text
end

-- Offsets depend on the width of process ids, so that only the one at the beginning is compared.
local function offset_of(payload)
  return payload:sub(2, 9) == ("\0"):rep(8) and "at the beginning" or "later"
end

-- The frames that a client received, in a form that can be compared. Output of a channel is joined, because where it is cut is chance;
-- and it is compared apart from the other frames, because its place among them is chance, too.
local function comparable(frames)
  local other, output = {}, {}
  for _, frame in ipairs(frames) do
    local channel = frame.opcode == "binary" and frame.payload:byte()
    if channel == REPLAY then
      if not output[channel] then other[#other + 1] = "replay " .. offset_of(frame.payload) end
      output[channel] = (output[channel] or "") .. frame.payload:sub(10)
    elseif channel then
      output[channel] = (output[channel] or "") .. frame.payload:sub(2)
    elseif frame.opcode == "text" then
      local value = json.decode(frame.payload)
      if value.session_id then value.session_id = mask(value.session_id) end
      other[#other + 1] = value
    elseif frame.opcode ~= "ping" then
      other[#other + 1] = { frame.opcode, frame.code or "no code", frame.code and frame.payload:sub(3) or frame.payload }
    end
  end
  for channel, text in pairs(output) do output[channel] = mask(text) end
  return { frames = other, output = output }
end

local function received(frames)
  local list = {}
  for _, frame in ipairs(frames) do
    if frame.dir == "recv" then list[#list + 1] = frame end
  end
  return list
end

-- The number of bytes of output, and of other frames, to wait for.
local function progress(frames)
  local state, bytes = comparable(frames), 0
  for _, text in pairs(state.output) do bytes = bytes + #text end
  return bytes, #state.frames
end

local function decoded(body)
  return json.decode(body) or body
end

local Player = {}
Player.__index = Player

local function new_player(name, create)
  local session = recordings.session("terminal/" .. name)
  local self = setmetatable({ session = session, ids = {}, clients = {}, clock = 0 }, Player)
  local body = create or session.create
  if body then
    local answer = sandbox:send("POST", "/pty", json.encode(body))
    assert.equal(201, answer.status, answer.body)
    self.id = json.decode(answer.body).session_id
  end
  return self
end

-- Waits as long as the recording did since its last step.
function Player:pace(ms)
  if ms > self.clock then uv_loop.sleep((ms - self.clock) / 1000) end
  self.clock = math.max(self.clock, ms)
end

function Player:translate(path)
  local recorded = self.session.connections[1].handshake.request.path:match("/pty/([%x-]+)/ws")
  return (path:gsub(recorded:gsub("%-", "%%-"), self.id):gsub("/sandboxes/%x[%x-]+/", "/sandboxes/" .. sandbox.id .. "/"))
end

function Player:open(index)
  local connection = self.session.connections[index]
  for other in pairs(self.clients) do self:catch_up(other, nil, connection.opened_ms) end
  local request = connection.handshake.request
  local headers = {}
  for name, value in pairs(request.headers) do headers[name] = value end
  for _, name in ipairs { "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version" } do
    headers[name] = request.headers[name] or false
  end
  headers.Host = nil
  local has_token = self.session.name == "terminal/token"
  for name, value in pairs(sandbox.endpoint.headers) do
    if not has_token or headers[name] == "execd-token" then headers[name] = value end
  end
  local path, base = self:translate(request.path), sandbox.endpoint.endpoint
  if path:find("^/v1/") then base = server.url:gsub("^http://", "") end
  local port, prefix = base:match(":(%d+)(.*)$")
  -- The offset is counted from the end, because process ids have another width.
  if self.since then path = path:gsub("since=(%d+)", self.since) end
  self.clients[index] = websocket_client.connect(tonumber(port), prefix .. path, { method = request.method, headers = headers })
end

-- Waits until a client has received as much as in the recording, before a frame or at a time.
function Player:catch_up(index, before, ms)
  local client, list = self.clients[index], {}
  for _, frame in ipairs(self.session.connections[index].frames) do
    if frame == before or ms and frame.ms > ms then break end
    list[#list + 1] = frame
  end
  local bytes, others = progress(received(list))
  client:wait(function(frames)
    local now_bytes, now_others = progress(frames)
    return now_bytes >= bytes and now_others >= others
  end)
end

-- All steps of the session in their order.
function Player:steps()
  local steps = {}
  for index, connection in ipairs(self.session.connections) do
    local function add(ms, run)
      steps[#steps + 1] = { ms = ms, number = #steps, run = run }
    end
    add(connection.opened_ms, function() self:open(index) end)
    for _, frame in ipairs(connection.frames) do
      if frame.dir == "send" then
        add(frame.ms, function()
          self:catch_up(index, frame)
          self:pace(frame.ms)
          self.clients[index]:send(frame.opcode, frame.payload, { fin = frame.fin, mask = not frame.unmasked })
        end)
      end
    end
    local ms, next_one = connection["end"].ms, self.session.connections[index + 1]
    -- The time of such an end is that at which the recorder noticed it.
    if connection["end"].how == "tcp close without a close frame" then ms = next_one.opened_ms - 1 end
    add(ms, function() self:finish(index) end)
  end
  table.sort(steps, function(a, b)
    if a.ms ~= b.ms then return a.ms < b.ms end
    return a.number < b.number
  end)
  return steps
end

-- Receives the last frames of a connection, and ends it as the recording did.
function Player:finish(index)
  local connection, client = self.session.connections[index], self.clients[index]
  self:catch_up(index)
  if connection["end"].by == "server" then
    self.ends = self.ends or {}
    self.ends[index] = client.socket:wait_end(10)
  elseif connection["end"].by == "client" then
    assert.equal(200, sandbox:send("GET", "/ping").status)
    assert.is_nil(client.socket.ended)
  end
  client:close()
end

function Player:play(extra)
  local steps = self:steps()
  for _, step in ipairs(steps) do
    self:pace(step.ms)
    step.run()
    if extra then extra(self, step) end
  end
end

-- Compares what each client received, and how its connection ended.
function Player:compare(change)
  for index, connection in ipairs(self.session.connections) do
    local client, response = self.clients[index], connection.handshake.response
    assert.equal(response.status, client.status)
    for _, pair in ipairs(response.headers) do
      local name = pair[1]:lower()
      if name ~= "date" and name ~= "server" then assert.equal(pair[2], client.headers[name], name) end
    end
    if response.body then assert.same(decoded(mask(response.body)), decoded(mask(client.body))) end
    local expected, actual = comparable(received(connection.frames)), comparable(client.frames)
    if change then change(expected, actual, index) end
    assert.same(expected, actual)
    if connection["end"].by == "server" then assert.is_true(self.ends[index]) end
  end
end

local played = {}

local function test(name, title, options)
  options = options or {}
  played[name] = true
  it(title, function()
    if not server then return pending(reason) end
    local player = new_player(name, options.create)
    if options.before then options.before(player) end
    player:play(options.extra)
    player:compare(options.change)
    if player.id then sandbox:send("DELETE", "/pty/" .. player.id) end
  end)
end

describe("a terminal", function()
  test("echo", "shows what a shell writes, and its exit code")
  test("command", "runs a command instead of a shell")
  test("command-exec", "may be taken over by a command")
  test("command-killed", "reports -1 after a signal")
  test("command-not-found", "reports 127 for a command that does not exist")
  test("command-short", "reports the end of a command that writes nothing")
  test("again-after-exit", "starts its command again for a client that connects after the exit")
  test("exit-while-away", "keeps the output of a shell that ended meanwhile, and starts another one")
  test("close-no-eof", "leaves the connection to the client after a closing handshake")
  test("ctrl-c-ctrl-d", "turns Ctrl-C into a signal, and Ctrl-D into the end of input")
  test("ctrl-d-cat", "ends the input of a command with Ctrl-D")
  test("cwd", "starts in a directory", { change = function(expected, actual)
    for _, one in ipairs { expected, actual } do one.output[1] = one.output[1]:gsub("\n%d+\r\n$", "\n<variables>\r\n") end
  end })
  test("delete-connected", "reports its deletion", { extra = function(player, step)
    if step.number > 0 then return end
    player:catch_up(1, player.session.connections[1].frames[3])
    assert.equal(200, sandbox:send("DELETE", "/pty/" .. player.id).status)
  end })
  test("frames", "understands and ignores frames as recorded")
  test("handshake-bad", "refuses wrong handshakes")
  test("handshake-offers", "accepts no extension and no protocol")
  test("input-300k-frames", "passes on much input in many frames")
  test("input-300k-lines", "passes on much input in lines")
  test("input-300k-one-frame", "passes on much input in one frame")
  test("input-long-line", "keeps 4096 bytes of a line")
  test("input-slow-reader", "handles no frame while its process reads no input")
  test("output-100k", "shows all output before the exit")
  test("output-bytes", "shows every byte", {
    create = { command = [[printf 'a\377\376b\000c\342\202'; sleep .2; printf '\254\n']] }, -- the recording leaves it out
  })
  test("pipe", "has pipes instead of a terminal when it is asked for them")
  test("pipe-shell", "runs a shell with pipes")
  test("pipe-later", "keeps its mode")
  test("prefix-proxy", "can be reached through execd's own proxy")
  test("replay", "replays what a client has missed", { extra = function(player, step)
    if step.number ~= 2 then return end
    local total = json.decode(sandbox:send("GET", "/pty/" .. player.id).body)
    assert.is_true(total.running)
  end, before = function(player)
    -- The recorded output had 158 bytes in the end.
    player.since = function(since)
      local state = json.decode(sandbox:send("GET", "/pty/" .. player.id).body)
      return tonumber(since) > 0 and ("since=%d"):format(state.output_offset + tonumber(since) - 158) or nil
    end
  end })
  test("resize", "has a size that can be changed")
  test("server-proxy", "can be reached through the server's proxy, which turns every failure into a closing")
  test("signal", "sends signals to the shell's group only")
  test("signal-command", "sends signals to a command")
  test("signal-names", "knows five signals")
  test("takeover", "can be taken over")
  test("takeover-free", "is free again when the connection ends")
  test("token", "needs the token")
  test("unmasked", "refuses frames without a mask")
  test("viewer", "shows viewers what happens, and takes nothing from them")
end)

describe("the recordings of terminals", function()
  it("are all played, or excused", function()
    local excused = {
      ["idle-ping"] = "it takes 31 seconds; websocket_spec.lua has shorter times",
      ["replay-overflow"] = "its payloads are cut; terminal_spec.lua has such a replay",
    }
    local missing = {}
    for _, name in ipairs(recordings.sessions()) do
      local short = name:gsub("^terminal/", "")
      if not played[short] and not excused[short] then missing[#missing + 1] = short end
    end
    assert.same({}, missing)
  end)

  it("of the requests are answered alike", function()
    if not server then return pending(reason) end
    local client = recorded_client.new("terminal", "http://" .. sandbox.endpoint.endpoint, sandbox.endpoint.headers)
    local function two_values(expected, actual)
      for _, answer in ipairs { expected, actual } do
        local first, second = answer.body:match("^(%b{})(%b{})$")
        answer.body = { json.decode(first), json.decode(second) }
      end
    end
    local steps = {
      { "rest-401", headers = {} }, "rest-create-bad-json", "rest-create-bad-type",
      { "rest-create-cwd-file", change = two_values },
      "rest-create-cwd-missing", "rest-create-cwd-tilde", "rest-create-empty-body", "rest-create-no-body", "rest-create-options",
      "rest-create-unknown-fields",
      "rest-create", "rest-get-not-started", "rest-ws-without-upgrade", "rest-get-not-started-again", "rest-delete-not-started",
      "rest-delete-again", "rest-delete-unknown", "rest-get-unknown", "rest-list", "rest-ws-unknown",
    }
    assert.equal("", client:differences(steps))
    local sessions = {}
    for _, name in ipairs(recordings.sessions()) do sessions[name:gsub("^terminal/", "")] = "a session" end
    assert.same({}, recorded_client.missing("terminal", { steps }, sessions))
  end)
end)

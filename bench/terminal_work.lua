--- A terminal beside a plain socket: terminal_work.lua URL KEY KEYS BYTES. Prints lines "name=value".
--
-- The plain socket sends ready frames, and counts the received bytes without decoding them.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local raw_socket = require "spec.support.raw_socket"
local statistics = require "bench.statistics"
local websocket_frames = require "spec.support.websocket_frames"

require("opensandbox.loop").use("bench", "plain") -- the plain socket has loaded luv

local url, key, keys, bytes = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local KEY = websocket_frames.write("binary", "\0x", { mask = "abcd" })

local ECHO = "stty raw -echo; printf r; exec cat"
local OUTPUT = ("stty raw -echo; printf r; head -c 1 >/dev/null; head -c %d /dev/zero; head -c 1"):format(bytes)

local function say(name, value)
  print(("%s=%.9g"):format(name, value))
end

local client = opensandbox.new(url, key)
local sandbox = assert(client:create { image = "any" })
local execd = assert(client:discover_execd(sandbox.id))

-- The terminal: a function that sends a key, and a function that waits for `count` bytes.
local function ours(command)
  local terminal = assert(sandbox:terminal { command = command })
  local function receive(count)
    while count > 0 do count = count - #assert(terminal:read()) end
  end
  receive(1)
  return function() assert(terminal:write "x") end, receive, function() terminal:close() end
end

-- The same with a plain socket.
local function plain(command)
  local id = assert(client:create_pty_session(execd, { command = command }))
  local socket = raw_socket.connect(execd.port)
  local lines = { ("GET %s/pty/%s/ws HTTP/1.1"):format(execd.url:match("^http://[^/]*(.*)$"), id), "Host: 127.0.0.1",
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: d2lyZS1yZWMtMTZieXRlcw==", "Sec-WebSocket-Version: 13" }
  for name, value in pairs(execd.headers) do lines[#lines + 1] = name .. ": " .. value end
  socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  socket:wait(function(text) return text:find("\1r", 1, true) end)
  local received = 0
  socket.tcp:read_stop()
  socket.tcp:read_start(function(_, data)
    if data then received = received + #data end
  end)
  local function receive(count)
    local wanted = received + count + (count == 1 and 3 or 0) -- of many frames, the headers are less than 0.2 %
    while received < wanted do require("luv").run "once" end
  end
  return function() socket.tcp:write(KEY) end, receive, function()
    socket:close()
    client:delete_pty_session(execd, id)
  end
end

for name, connect in pairs { ours = ours, plain = plain } do
  local send, receive, close = connect(ECHO)
  local times = {}
  for index = 1, keys do
    local began = core.now()
    send()
    receive(1)
    times[index] = (core.now() - began) * 1000
  end
  close()
  say(name .. "echo", statistics.median(times))
  send, receive, close = connect(OUTPUT)
  local began = core.now()
  send()
  receive(bytes)
  say(name .. "rate", bytes / 1e6 / (core.now() - began))
  close()
end
client:close()

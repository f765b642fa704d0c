--- The program behind cutting_relay.lua: forwards connections to a port of this machine, and cuts those that switch to WebSocket, or all.

local uv = require "luv"
local json = require "opensandbox.base.json"
local new_random = require "spec.support.random"

local config = assert(json.decode(io.read("*l")))
local random = new_random(config.seed)
local cuts = 0

-- Closes both sides, with the rest of the forwarded bytes, or with a reset.
local function cut(pair)
  if pair.is_cut then return end
  pair.is_cut = true
  local has_reset = pair.is_websocket and random(2) == 1
  for _, tcp in ipairs { pair.client, pair.server } do
    if not tcp:is_closing() then
      if has_reset and tcp.close_reset then tcp:close_reset() else tcp:close() end
    end
  end
  if pair.timer and not pair.timer:is_closing() then pair.timer:close() end
end

-- Decides when a connection is cut: after a number of bytes in both directions, which is often inside a frame or the handshake, and at the
-- latest after a time.
local function expose(pair)
  pair.is_websocket = true
  if cuts >= config.cuts then return end
  cuts = cuts + 1
  pair.bytes = random(config.bytes)
  pair.timer = uv.new_timer()
  pair.timer:start(random(config.ms), 0, function() cut(pair) end)
end

local function forward(pair, from, to)
  from:read_start(function(_, data)
    if not data then return cut(pair) end
    if from == pair.client and not pair.bytes and (config.all or data:find("^GET [^\r]*/ws[? ]")) then expose(pair) end
    if not pair.bytes then return to:write(data) end
    local piece = data:sub(1, pair.bytes)
    pair.bytes = pair.bytes - #piece
    to:write(piece, function()
      if pair.bytes == 0 then cut(pair) end
    end)
  end)
end

local listener = uv.new_tcp()
assert(listener:bind("127.0.0.1", 0))
assert(listener:listen(128, function()
  local pair = { client = uv.new_tcp(), server = uv.new_tcp() }
  listener:accept(pair.client)
  pair.server:connect("127.0.0.1", config.port, function(problem)
    if problem then return cut(pair) end
    if pair.is_cut then return end
    forward(pair, pair.client, pair.server)
    forward(pair, pair.server, pair.client)
  end)
end))
io.write(listener:getsockname().port, "\n")
io.flush()

-- Ends with its standard input. Each line asks for the number of cuts.
local input = uv.new_pipe(false)
input:open(0)
input:read_start(function(_, data)
  if not data then os.exit(0) end
  io.write(cuts, "\n")
  io.flush()
end)
uv.run()

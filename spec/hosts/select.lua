--- A program with a loop of its own around luasocket's select(): with a socket of its own, and the client beside it.

local opensandbox = require "opensandbox"
local socket = require "socket"
local stage = require "spec.hosts.stage"

local client = stage.client()

local function turn()
  client:step(0)
  local timeout = math.min(client:timeout() or stage.heartbeat, stage.heartbeat)
  socket.select({ client }, nil, timeout)
  client:step(0)
end

if stage.scene == "blocking" then
  stage.block(function(fn)
    opensandbox.spawn(fn)
    turn()
  end, function(done)
    while not done() do turn() end
  end)
else
  opensandbox.spawn(stage.play)
  while not stage.over do
    turn()
    stage.beat()
  end
end
client:close()
stage.report()

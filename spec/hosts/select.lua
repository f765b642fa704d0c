--- A program with a loop of its own around luasocket's select(): with a socket of its own, and the client beside it.

local opensandbox = require "opensandbox"
local socket = require "socket"
local runner = require "spec.hosts.scenario_runner"

local client = runner.client()

local function turn()
  client:step(0)
  local timeout = math.min(client:timeout() or runner.heartbeat, runner.heartbeat)
  socket.select({ client }, nil, timeout)
  client:step(0)
end

if runner.scenario == "blocking" then
  runner.block(function(fn)
    opensandbox.spawn(fn)
    turn()
  end, function(done)
    while not done() do turn() end
  end)
else
  opensandbox.spawn(runner.run)
  while not runner.over do
    turn()
    runner.beat()
  end
end
client:close()
runner.report()

--- A program with a loop of its own around luasocket's select(), which watches all its clients.

local opensandbox = require "opensandbox"
local socket = require "socket"
local runner = require "spec.hosts.scenario_runner"

local clients, new_client = {}, runner.client

function runner.client()
  local client = new_client()
  clients[#clients + 1] = client
  return client
end

local first = runner.client()

local function turn()
  first:step(0)
  socket.select(clients, nil, math.min(first:timeout() or runner.heartbeat, runner.heartbeat))
  first:step(0)
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
first:close()
runner.report()

--- copas: threads, and handlers of its servers. Its 1.1.7 has no timers, so the loop is turned by hand and looked at there.

local copas = require "copas"
local opensandbox = require "opensandbox"
local socket = require "socket"
local runner = require "spec.hosts.scenario_runner"

-- A server whose handlers run commands, asked by two clients of its own at once.
local function serve()
  local sandbox = runner.sandbox()
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  copas.addserver(listener, function(connection)
    local command = copas.receive(connection)
    copas.send(connection, opensandbox.assert(sandbox:run(command)).stdout)
  end)
  local began, answers, left = opensandbox.now(), {}, 2
  for i = 1, left do
    copas.addthread(function()
      local connection = socket.tcp()
      copas.connect(connection, "127.0.0.1", port)
      copas.send(connection, ("sleep 0.5; echo answer %d\n"):format(i))
      answers[i] = copas.receive(connection)
      connection:close()
      left = left - 1
    end)
  end
  while left > 0 do opensandbox.sleep(0.01) end
  runner.record("answers", table.concat(answers, " "))
  runner.record("seconds", opensandbox.now() - began)
  sandbox.client:close()
end

-- A script that some library has loaded copas into, and that never runs its loop.
local function map()
  local sandbox = runner.sandbox()
  runner.record("outputs", table.concat(opensandbox.map({ 1, 2, 3 }, function(number)
    return (opensandbox.assert(sandbox:run("echo " .. number)).stdout:gsub("\n", ""))
  end), " "))
  sandbox.client:close()
end

if runner.scenario == "unused" then
  runner.run(map)
elseif runner.scenario == "blocking" then
  runner.block(function(fn)
    opensandbox.spawn(fn)
    copas.step(0)
  end, function(done)
    while not done() do copas.step(runner.heartbeat) end
  end)
else
  opensandbox.spawn(function() runner.run(runner.scenario == "server" and serve or nil) end)
  while not runner.over do
    copas.step(runner.heartbeat)
    runner.beat()
  end
end
runner.report()

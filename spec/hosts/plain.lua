--- No host: the heartbeat is a task too.

local opensandbox = require "opensandbox"
local runner = require "spec.hosts.scenario_runner"

if runner.scenario == "blocking" then
  runner.block(function(fn)
    opensandbox.spawn(fn)
    opensandbox.sleep(0)
  end, function(done)
    while not done() do opensandbox.sleep(0.01) end
  end)
else
  opensandbox.spawn(function()
    while not runner.over do
      runner.beat()
      opensandbox.sleep(runner.heartbeat)
    end
  end)
  opensandbox.spawn(runner.run):wait()
end
runner.report()

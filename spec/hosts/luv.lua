--- luv: one loop, uv.run().

local opensandbox = require "opensandbox"
local runner = require "spec.hosts.scenario_runner"
local uv = require "luv"

if runner.scenario == "blocking" then
  runner.block(function(fn)
    opensandbox.spawn(fn)
    uv.run("nowait")
  end, function() uv.run() end)
else
  local timer = uv.new_timer()
  timer:start(0, runner.heartbeat * 1000, runner.beat)
  opensandbox.spawn(function()
    runner.run()
    timer:close()
  end)
  uv.run()
end
runner.report()

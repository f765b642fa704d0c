--- No host: the heartbeat is a task too.

local opensandbox = require "opensandbox"
local stage = require "spec.hosts.stage"

if stage.scene == "blocking" then
  stage.block(function(fn)
    opensandbox.spawn(fn)
    opensandbox.sleep(0)
  end, function(done)
    while not done() do opensandbox.sleep(0.01) end
  end)
else
  opensandbox.spawn(function()
    while not stage.over do
      stage.beat()
      opensandbox.sleep(stage.heartbeat)
    end
  end)
  opensandbox.spawn(stage.play):wait()
end
stage.report()

--- luv: one loop, uv.run().

local opensandbox = require "opensandbox"
local stage = require "spec.hosts.stage"
local uv = require "luv"

if stage.scene == "blocking" then
  stage.block(function(fn)
    opensandbox.spawn(fn)
    uv.run("nowait")
  end, function() uv.run() end)
else
  local timer = uv.new_timer()
  timer:start(0, stage.heartbeat * 1000, stage.beat)
  opensandbox.spawn(function()
    stage.play()
    timer:close()
  end)
  uv.run()
end
stage.report()

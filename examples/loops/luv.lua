--- luv: tasks run in the default loop, beside your handles.

local opensandbox = require "opensandbox"
local uv = require "luv"

local client = opensandbox.new()
local clock = uv.new_timer()
clock:start(0, 500, function() print("the loop goes on") end)

opensandbox.spawn(function()
  local sandbox = opensandbox.assert(client:create { image = "python:3.12" })
  local result = opensandbox.assert(sandbox:run("sleep 2; echo done", { timeout = 30 }))
  print(result.exit_code, result.stdout)
  sandbox:kill()
  clock:close()
end)

uv.run()
client:close()

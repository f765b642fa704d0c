--- cqueues: any coroutine of a controller may call the library, and tasks made in one are its coroutines.

local cqueues = require "cqueues"
local opensandbox = require "opensandbox"

local client = opensandbox.new()
local cq = cqueues.new()
local over = false

cq:wrap(function()
  while not over do
    print("the loop goes on")
    cqueues.sleep(0.5)
  end
end)

cq:wrap(function()
  local sandbox = opensandbox.assert(client:create { image = "python:3.12" })
  local results = opensandbox.map({ 1, 2 }, function(number)
    return opensandbox.assert(sandbox:run("sleep " .. number .. "; echo done " .. number, { timeout = 30 })).stdout
  end)
  print(results[1], results[2])
  sandbox:kill()
  over = true
end)

assert(cq:loop())
client:close()

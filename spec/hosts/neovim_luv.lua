--- Neovim's loop by itself, in a luv script: tasks that begin in the loop's callbacks. Writes how often the loop called back meanwhile,
-- how long it went on when the tasks had ended, whether connections were still being drained then, and how many handles were active.
-- Arguments: the server's URL and key.

local uv = require "luv"
local opensandbox = require "opensandbox"

local url, key = ...
local client = opensandbox.new(url, key)
local ended, beats = nil, 0

local heart = uv.new_timer()
heart:start(10, 10, function() beats = beats + 1 end)

local kick = uv.new_timer()
kick:start(0, 0, function()
  kick:close()
  opensandbox.spawn(function()
    local sandbox = opensandbox.assert(client:create { image = "any" })
    local _, errors = opensandbox.map({ 1, 2, 3 }, function() return sandbox:run "sleep 0.3" end)
    opensandbox.assert(not errors, errors)
    heart:close()
    ended = opensandbox.now()
  end)
end)

uv.run()
local late = opensandbox.now() - ended
local draining = client:step() > 0

while client:step(0.1) > 0 do end
local active = 0
uv.walk(function(handle)
  if handle:is_active() then active = active + 1 end
end)
print(beats, late, draining, active)
client:close()

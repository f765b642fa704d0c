--- One work of the comparison of clients, with this library: work.lua WORK URL KEY FILE. Prints lines "name=value".

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"

local name, url, key, path = arg[1], arg[2], arg[3], arg[4]

local function say(figure, value)
  print(("%s=%.9g"):format(figure, value))
end

local work = {}

-- The milliseconds of one of many commands, one after the other.
function work.roundtrip(_, sandbox)
  local times = {}
  for index = 1, 20 do
    local began = core.now()
    assert(assert(sandbox:run("true")).exit_code == 0)
    times[index] = (core.now() - began) * 1000
  end
  table.sort(times)
  say("median", times[10])
end

function work.lines(_, sandbox)
  local result = assert(sandbox:run("seq 200000", { max_output = 4 * 1024 * 1024 }))
  assert(select(2, result.stdout:gsub("\n", "")) == 200000)
end

function work.upload(_, sandbox)
  assert(sandbox.files:upload(path, "/tmp/big"))
end

function work.download(_, sandbox)
  assert(sandbox.files:download("/tmp/big", path .. ".down"))
  os.remove(path .. ".down")
end

function work.many(_, sandbox)
  local commands = {}
  for index = 1, 100 do commands[index] = "sleep 0.5" end
  local results = opensandbox.map(commands, function(command) return sandbox:run(command) end, { concurrency = 100 })
  for index = 1, 100 do assert(results[index].exit_code == 0) end
end

function work.sandboxes(client)
  local numbers = {}
  for index = 1, 200 do numbers[index] = index end
  local killed = opensandbox.map(numbers, function()
    local sandbox = assert(client:create { image = "any" })
    assert(sandbox:run("true"))
    return sandbox:kill()
  end, { concurrency = 32 })
  for index = 1, 200 do assert(killed[index]) end
end

if name == "start" then os.exit(0) end -- loading is all that is measured

local client = opensandbox.new(url, key)
local sandbox = name ~= "sandboxes" and assert(client:create { image = "any" })
if name == "download" then assert(sandbox:run "head -c 268435456 /dev/zero > /tmp/big") end
local processor, began = os.clock(), core.now()
work[name](client, sandbox)
say("seconds", core.now() - began)
say("processor", os.clock() - processor)
if sandbox then assert(sandbox:kill()) end
client:close()
for line in io.lines "/proc/self/status" do
  local peak = line:match "VmHWM:%s*(%d+)"
  if peak then say("peak", peak / 1024) end
end

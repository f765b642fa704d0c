--- Many sandboxes at once, each created, used and killed: sandboxes_work.lua URL KEY COUNT CONCURRENCY. Prints lines "name=value".

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"

local url, key, count, concurrency = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])

local function say(name, value)
  print(("%s=%.9g"):format(name, value))
end

local function use(client, number)
  local sandbox = assert(client:create { image = "any" })
  local text = ("sandbox %d\n"):format(number)
  assert(sandbox.files:write("/tmp/in", text))
  local result = assert(sandbox:run("cat /tmp/in > /tmp/out; cat /tmp/out"))
  assert(result.stdout == text and result.exit_code == 0, "the command gave something else")
  assert(sandbox.files:read("/tmp/out") == text, "the file holds something else")
  assert(sandbox:kill())
  return true
end

local function use_all(client, total)
  local numbers = {}
  for number = 1, total do numbers[number] = number end
  opensandbox.map(numbers, function(number) return use(client, number) end, { concurrency = concurrency })
end

-- What stays behind in this process once its client is closed. What LuaJIT has compiled meanwhile is not counted.
local function look()
  local jit = rawget(_G, "jit")
  if jit then jit.flush() end
  collectgarbage()
  collectgarbage()
  return (process.descriptors()), collectgarbage("count")
end

local function in_one_client(total)
  local client = opensandbox.new(url, key)
  local peak, processor, began = process.rss().peak, os.clock(), core.now()
  use_all(client, total)
  local seconds = core.now() - began
  local listed = #assert(client:list_sandboxes())
  client:close()
  return { seconds = seconds, processor = os.clock() - processor, growth = (process.rss().peak - peak) / 1024, listed = listed }
end

in_one_client(1) -- everything is loaded
local descriptors, memory = look()
local figures = in_one_client(count)
local descriptors_after, memory_after = look()
figures.descriptors, figures.memory = descriptors_after - descriptors, memory_after - memory
for name, value in pairs(figures) do say(name, value) end

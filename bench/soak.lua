--- Sandboxes one after the other, to see that nothing stays behind: soak.lua [cycles], or the number in CYCLES; default 1000.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local statistics = require "bench.statistics"
local uv = require "luv"

local WARM_UP = 50
local MEMORY_BOUND = 1024 -- KiB
local SETTLE = 5          -- seconds that connections and processes on their way out get

local function processes_below(pid)
  local living, zombies = process.children(pid)
  local count = #zombies
  for _, child in ipairs(living) do count = count + 1 + processes_below(child) end
  return count
end

-- Files and directories below a directory. Links are not followed.
local function entries_below(directory)
  local count, scan = 0, uv.fs_scandir(directory)
  while scan do
    local name, kind = uv.fs_scandir_next(scan)
    if not name then break end
    count = count + 1
    if kind == "directory" then count = count + entries_below(directory .. "/" .. name) end
  end
  return count
end

-- What is there now: a list of { name, value, slack }, always in the same order.
local function look(server)
  collectgarbage()
  collectgarbage()
  return {
    { "client: descriptors", (process.descriptors()), 0 },
    { "server: descriptors", (process.descriptors(server.pid)), 0 },
    { "server: processes below it", processes_below(server.pid), 0 },
    { "server: files in its directory", entries_below(server.root), 0 },
    { "client: resident memory, KiB", process.rss().current, MEMORY_BOUND },
    { "client: memory of Lua, KiB", math.ceil(collectgarbage("count")), MEMORY_BOUND },
    { "server: resident memory, KiB", process.rss(server.pid).current, MEMORY_BOUND },
  }
end

local function growth(before, after)
  local list = {}
  for index, item in ipairs(after) do
    local grown = item[2] - before[index][2]
    if grown > item[3] then list[#list + 1] = ("%s grew by %d, from %d to %d (allowed: %d)"):format(
      item[1], grown, before[index][2], item[2], item[3]) end
  end
  return list
end

-- Lets the client work off what runs in the background, up to SETTLE seconds, while anything exceeds `before`.
local function settle(server, before)
  local deadline = core.now() + SETTLE
  local now
  repeat
    opensandbox.sleep(0.25)
    now = look(server)
  until core.now() >= deadline or #growth(before, now) == 0
  return now
end

local function cycle(client)
  local sandbox = assert(client:create { image = "x" })
  local result = assert(sandbox:run("echo hi"))
  assert(result.stdout == "hi\n" and result.exit_code == 0, "the command gave something else")
  assert(sandbox:kill())
end

local function soak(client, server, cycles)
  for _ = 1, WARM_UP do cycle(client) end
  opensandbox.sleep(SETTLE) -- the streams of the last commands end on their own
  local before = look(server)
  local times, began = {}, core.now()
  for index = 1, cycles do
    local start = core.now()
    cycle(client)
    times[index] = core.now() - start
  end
  local seconds = core.now() - began
  local after = settle(server, before)
  print(("%d cycles of create, run, kill: %.1f a second; a cycle takes %.1f ms (median), %.1f ms (p99)"):format(
    cycles, cycles / seconds, statistics.median(times) * 1000, statistics.quantile(times, 0.99) * 1000))
  print(("%-34s %10s %10s %8s"):format("", "after " .. WARM_UP, "at the end", "growth"))
  for index, item in ipairs(after) do
    print(("%-34s %10d %10d %+8d"):format(item[1], before[index][2], item[2], item[2] - before[index][2]))
  end
  return growth(before, after)
end

local function count_of(text)
  local count = tonumber(text)
  if count and count >= 1 and count % 1 == 0 then return count end
  io.stderr:write("usage: soak.lua [cycles]\n")
  os.exit(2)
end

local cycles = count_of(arg[1] or os.getenv("CYCLES") or "1000")
local server = process.devserver()
server.root = server.child:stderr_text():match("sandboxes keep their files in ([^\n]+)")
local client = opensandbox.new(server.url, server.key)
local ok, grown = pcall(soak, client, server, cycles)
client:close()
local errors = server.child:stderr_text()
server:stop()
if not ok then
  io.stderr:write(tostring(grown), "\n", errors, "\n")
  os.exit(1)
end
for _, text in ipairs(grown) do print("GREW    " .. text) end
if #grown == 0 then print("Nothing stayed behind.") end
os.exit(#grown == 0 and 0 or 1)

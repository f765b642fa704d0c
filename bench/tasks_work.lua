--- What tasks cost, in a process of its own: tasks_work.lua KIND COUNT [URL]. Prints lines "name=value".

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"

local LONG = 3600 -- seconds
local PINGS = 300
local STEPS = 300

local function say(name, value)
  print(("%s=%.9g"):format(name, value))
end

local function memory()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count") * 1024
end

-- Lets the tasks that are ready run until each waits or has ended.
local function settle()
  opensandbox.sleep(0)
  opensandbox.sleep(0)
end

local function cancel(tasks)
  for _, task in ipairs(tasks) do task:cancel() end
  for _, task in ipairs(tasks) do task:wait() end
end

-- Starts `count` tasks that wait, and cancels them. Gives microseconds for the start of one and for its cancelling, and the bytes that
-- it holds meanwhile.
local function round(count, wait)
  local before, began, tasks = memory(), core.now(), {}
  for index = 1, count do tasks[index] = opensandbox.spawn(wait) end
  settle()
  local start = (core.now() - began) / count * 1e6
  local held = (memory() - before) / count
  began = core.now()
  cancel(tasks)
  return start, (core.now() - began) / count * 1e6, held
end

-- Twice: tables keep their size, so the first round leaves some memory in use, which the second has to make do with.
local function waiting(count, wait)
  local before = memory()
  local start, ended, held = round(count, wait)
  say("start", start)
  say("cancel", ended)
  say("memory", held)
  local after = memory()
  say("kept", after - before)
  round(count, wait)
  say("grown", memory() - after)
end

-- A file descriptor for each transfer.
local function descriptors_allowed()
  local file = io.open("/proc/self/limits")
  if not file then return 256 end
  local text = file:read("*a")
  file:close()
  return tonumber(text:match("Max open files%s+(%d+)")) or math.huge
end

-- The URL of a server that takes connections and never answers: the kernel accepts them, nobody else does.
local function silence(connections)
  local uv = require "luv"
  local listener = uv.new_tcp()
  assert(listener:bind("127.0.0.1", 0))
  assert(listener:listen(connections + 16, function() end))
  return ("http://127.0.0.1:%d"):format(listener:getsockname().port)
end

local work = {}

-- The first tasks of a process also pay for what is there once: buffers, and code to be compiled.
function work.sleepers(count)
  cancel { opensandbox.spawn(opensandbox.sleep, LONG) }
  waiting(count, function() return opensandbox.sleep(LONG) end)
end

function work.joiners(count)
  local awaited = opensandbox.spawn(opensandbox.sleep, LONG)
  waiting(count, function() return awaited:wait() end)
  cancel { awaited }
end

function work.through(count)
  local function body() opensandbox.sleep(0) end
  opensandbox.spawn(body):wait()
  local processor, began, tasks = os.clock(), core.now(), {}
  for index = 1, count do tasks[index] = opensandbox.spawn(body) end
  for _, task in ipairs(tasks) do task:wait() end
  say("seconds", (core.now() - began) / count * 1e6)
  say("processor", (os.clock() - processor) / count * 1e6)
end

local function connections(client, url)
  return assert(client.http:call_endpoint(url, { op = "stats", method = "GET", path = "/stats",
    decode = function(answer) return answer.connections end }))
end

-- Requests of one client while `count` others of it wait for their responses.
function work.transfers(count, url)
  if descriptors_allowed() < count + 64 then return end
  local client = opensandbox.new(url, nil, { loop = "plain" })
  local silent, tasks = silence(count), {}
  assert(client:ping(url))
  local before = memory()
  for index = 1, count do
    tasks[index] = opensandbox.spawn(function() return client:ping(silent) end)
  end
  repeat opensandbox.sleep(0.05) until client.http.transport.multi:inflight() == count
  if count > 0 then say("memory", (memory() - before) / count) end
  for _ = 1, PINGS / 10 do assert(client:ping(url)) end
  local opened = connections(client, url)
  local processor, began = os.clock(), core.now()
  for _ = 1, PINGS do assert(client:ping(url)) end
  say("request", (core.now() - began) / PINGS * 1e6)
  say("processor", (os.clock() - processor) / PINGS * 1e6)
  say("opened", connections(client, url) - opened)
  processor = os.clock()
  for _ = 1, STEPS do opensandbox.sleep(0) end
  say("step", (os.clock() - processor) / STEPS * 1e6)
  began = core.now()
  cancel(tasks)
  if count > 0 then say("cancel", (core.now() - began) / count * 1e6) end
  client:close()
end

work[arg[1]](tonumber(arg[2]), arg[3])

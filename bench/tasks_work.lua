--- What tasks cost, in a process of its own: tasks_work.lua KIND COUNT [URL]. Prints lines "name=value".

local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local procfs = require "spec.support.procfs"

local LONG = 3600 -- seconds
-- So many that it is even where the system has put this process and the server: on one processor a request costs half of what it costs on two,
-- and only a short run of them stays on one.
local PINGS = 5000
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

-- A server that accepts requests and never answers them, in a process of its own.
local function silence()
  return fault_server.start "return function(_, connection) connection:silence() end"
end

-- Calls `work` while a task wakes up each 5 ms. Returns the most milliseconds by which it woke up too late, and the most milliseconds
-- of processor time between two of its turns, to which other programs of the machine add nothing.
local function heartbeat_during(work)
  local latest, busiest, is_over = 0, 0, false
  local heartbeat = opensandbox.spawn(function()
    while not is_over do
      local due, processor = core.now() + 0.005, os.clock()
      opensandbox.sleep(0.005)
      latest, busiest = math.max(latest, core.now() - due), math.max(busiest, os.clock() - processor)
    end
  end)
  pcall(collectgarbage, "incremental") -- lua 5.4 begins in its generational mode, which stops for whole collections
  opensandbox.sleep(0)
  work()
  is_over = true
  heartbeat:wait()
  return latest * 1000, busiest * 1000
end

local work = {}

-- The first tasks of a process also pay for things that exist once: buffers, and code to be compiled.
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
  local server, tasks = silence(), {}
  assert(client:ping(url))
  local before, resident_before = memory(), procfs.rss().current * 1024
  local began = core.now()
  local late, busy = heartbeat_during(function()
    for index = 1, count do
      tasks[index] = opensandbox.spawn(function() return client:ping(server.url) end)
      opensandbox.sleep(0) -- a program that starts many lets its other tasks run, too
    end
  end)
  if count > 0 then
    say("start", (core.now() - began) / count * 1e6)
    say("late", late)
    say("busy", busy)
  end
  repeat opensandbox.sleep(0.05) until client.http.transport.multi:inflight() == count
  if count > 0 then
    say("memory", (memory() - before) / count)
    say("resident", (procfs.rss().current * 1024 - resident_before) / count)
  end
  for _ = 1, PINGS / 10 do assert(client:ping(url)) end
  local opened = connections(client, url)
  local processor
  processor, began = os.clock(), core.now()
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
  server:stop()
end

-- Commands that take a second each, `concurrency` at a time.
function work.map(count, _, concurrency)
  local server = fault_server.start [[
    return function(_, connection)
      connection:start(200, { ["Content-Type"] = "text/event-stream" })
      connection:chunk('{"type":"init","text":"7ee4c1d2a3b44f5e96877869a5b4c3d2","timestamp":1}\n\n')
      connection:after(1000, function()
        connection:chunk('{"type":"execution_complete","execution_time":1000,"timestamp":1001}\n\n')
        connection:finish()
      end)
    end
  ]]
  local client, commands = opensandbox.new(server.url), {}
  for index = 1, count do commands[index] = "true" end
  local processor, began = os.clock(), core.now()
  local results = opensandbox.map(commands, function(command) return assert(client:run_command(server.url, command)) end,
    { concurrency = tonumber(concurrency) })
  say("seconds", core.now() - began)
  say("processor", (os.clock() - processor) / count * 1e6)
  say("peak", procfs.rss().peak / 1024)
  for index = 1, count do assert(results[index].exit_code == 0) end
  client:close()
  server:stop()
end

work[arg[1]](tonumber(arg[2]), arg[3], arg[4])

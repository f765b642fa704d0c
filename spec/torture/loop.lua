--- The loop while an allocation fails: torture [options] spec/torture/loop.lua URL KEY
--
-- Every wait ends, of tasks too, and every call either raises or returns that memory has run out, or has its right result. Afterwards,
-- without failing allocations, everything works again. The server is a development server.

local core = require "opensandbox.core"
local is_out_of_memory = require "spec.torture.is_out_of_memory"
local opensandbox = require "opensandbox"
local torture = rawget(_G, "torture")

local url, key = arg[1], arg[2]

local CLOCK = 20 -- seconds: the client's time limits
local LIMIT = 15 -- seconds for all calls together. Each of them takes a few milliseconds

local spawn, sleep, map = opensandbox.spawn, opensandbox.sleep, opensandbox.map

local function problem(...) torture.problem(string.format(...)) end

local armed = false

-- Makes a call and checks its result.
local function act(name, call, expected)
  local ok, value, err = pcall(call)
  torture.outcome(ok and value ~= nil and 1 or 0)
  if ok and value ~= nil then
    if value ~= expected then problem("%s: a wrong result: %s", name, tostring(value)) end
    return
  end
  if not ok then err = value end
  if not armed or not is_out_of_memory(err) then
    problem("%s %s: %s", name, ok and "fails" or "raises", tostring(err):sub(1, 200))
  end
end

local work = {}

function work.sleeping()
  local first, second = spawn(sleep, 0.002), spawn(sleep, 0.001)
  local ok, err = first:wait()
  if not ok then return nil, err end
  return second:wait()
end

function work.waiting_for_each_other()
  local task = spawn(function()
    local inner = spawn(function()
      local ok, err = sleep(0.001)
      return ok and "inner" or nil, err
    end)
    return inner:wait()
  end)
  local others = {}
  for i = 1, 3 do others[i] = spawn(function() return task:wait() end) end
  for i = 1, 3 do
    local value, err = others[i]:wait()
    if value ~= "inner" then return value, err end
  end
  return true
end

function work.mapping(client)
  local results, problems = map({ 1, 2, 3, 4 }, function(i)
    local alive, err = client:health()
    return alive and i or nil, err
  end, { concurrency = 2 })
  if not results then return nil, problems end
  if problems then return nil, select(2, next(problems)) end
  return results[1] == 1 and results[4] == 4
end

-- A call that raises ends the other calls.
function work.raising()
  local ok, value = pcall(map, { 1, 2, 3 }, function(i)
    if i == 2 then error("the second one", 0) end
    return sleep(30)
  end)
  if not ok and value == "the second one" then return true end
  return nil, value
end

-- Starts a task that sleeps, calls a function with it, and cancels it.
local function cancel_after(meanwhile)
  local task = spawn(sleep, 30)
  local ok, err = meanwhile(task)
  task:cancel()
  if not ok then return nil, err end
  local slept, reason = task:wait()
  if slept then return "slept" end
  if type(reason) == "table" and reason.kind == "cancelled" then return true end
  return nil, reason
end

function work.cancelling()
  return cancel_after(function() return sleep(0.001) end)
end

function work.running_out_of_time()
  return cancel_after(function(task) return pcall(task.wait, task, 0.001) end)
end

local NAMES = { "sleeping", "waiting_for_each_other", "mapping", "raising", "cancelling", "running_out_of_time" }

local client

local function all()
  client = nil
  client = opensandbox.new(url, key, { timeout = CLOCK })
  for _, name in ipairs(NAMES) do
    act(name, function() return work[name](client) end, true)
  end
  client:close()
end

-- Once without failures: loads all modules, and proves that every call has its right result.
all()
armed = true
torture.arm()
local before = core.now()
local ok, message = pcall(all)
local took = core.now() - before
torture.disarm()
armed = false
if not ok and not is_out_of_memory(message) then problem("raised: %s", tostring(message)) end
if took > LIMIT then problem("took %.1f s", took) end

all()

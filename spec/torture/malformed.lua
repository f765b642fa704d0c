--- Every call against a server that answers with malformed HTTP: malformed.lua [SEEDS [FIRST [CALL]]]
--
-- For each seed each call runs with a client of its own, whose requests are answered by malformed_response.lua. No call may outlive its time
-- limits by more than a second, raise, show bytes of the server that control a terminal, or show the API key. What runs at the same time
-- may need 16 MiB of memory at most all together, and leaves no descriptor. CALL: part of a name, to try some calls only.

local calls = require "spec.torture.calls"
local core = require "opensandbox.core"
local fault_server = require "spec.support.fault_server"
local opensandbox = require "opensandbox"
local procfs = require "spec.support.procfs"
local temporary = require "spec.support.temporary"

local seeds, first, only = tonumber(arg[1]) or 2000, tonumber(arg[2]) or 1, arg[3]

local KEY = "secretkey123"
local CLOCK = 0.6            -- seconds: each of the client's time limits
local CALL_CLOCK = 0.4       -- seconds: the time limits that are given to the calls
local MAX_EXCESS = 1         -- seconds
local MAX_CLOSE = 2          -- seconds that closing a client may take
local MAX_TRIES = 3          -- of a call that took too long, by itself
local HANG_TIME = 60         -- seconds
local CONCURRENCY = 48       -- calls at the same time
local MAX_GROWTH = 16 * 1024 -- KiB
local MAX_MESSAGE = 4096     -- bytes
local BATCH = 10             -- seeds, after which memory and descriptors are measured
local SEEDS_PER_SERVER = 50  -- because its log of requests grows

local HANDLER = [[
  local malformed_response = require "spec.torture.malformed_response"
  local requests = {} -- the number for each run of a call
  local function respond(connection, response)
    local pieces = response.pieces
    local function finish()
      if response.last == "close" then connection:close() elseif response.last == "reset" then connection:reset() end
    end
    if not response.delay then
      connection:each(pieces)
      return finish()
    end
    connection:send(pieces[1])
    connection:after(response.delay, function()
      connection:send(pieces[2])
      finish()
    end)
  end
  return {
    on_headers = function(request, connection)
      local run = request.headers["x-run"]
      requests[run] = (requests[run] or 0) + 1
      connection.response = malformed_response.new(tonumber(run:match("^%d+")) + requests[run])
      if connection.response.at_once then respond(connection, connection.response) end
    end,
    on_request = function(_, connection) respond(connection, connection.response) end,
  }
]]

local failures, outcomes, slowest, largest_growth = 0, {}, { took = 0 }, 0
local runs = 0

local function fail(where, ...)
  failures = failures + 1
  print(where .. ": " .. string.format(...))
  io.stdout:flush()
end

local function check_error(where, err)
  if type(err) ~= "table" or not err.kind then return fail(where, "no error, but %s", tostring(err)) end
  local text = tostring(err)
  if text:find(KEY, 1, true) then fail(where, "the API key is shown: %s", text) end
  if text:find("[%z\1-\31\127]") then fail(where, "control characters are shown: %q", text) end
  if #text > MAX_MESSAGE then fail(where, "a message of %d bytes", #text) end
end

-- Runs a call. Returns the seconds that it took beyond its time limits, and those of closing the client.
local function run(server, job, directory)
  local where = ("seed %d, %s"):format(job.seed, job.call.name)
  runs = runs + 1
  -- Every attempt at the same job gets the same responses.
  local headers = { ["X-Run"] = ("%d-%d"):format((job.seed * 1009 + job.number) * 101, runs) }
  local client = opensandbox.new(server.url, KEY, {
    timeout = CLOCK, create_timeout = CLOCK, connect_timeout = CLOCK, idle_timeout = CLOCK, transfer_idle_timeout = CLOCK,
    retry = job.seed % 3 == 0 and { max_attempts = 2 } or false, headers = headers,
  })
  local endpoint = { url = server.url .. "/execd", headers = {}, sandbox_id = "x" }
  -- Every second sandbox knows its endpoint already, so that its calls come further than to the first request.
  local handle = { id = "x", url = client.url, endpoints = { ["44772"] = { url = endpoint.url } } }
  local sandbox = client:connect(job.seed % 2 == 0 and handle or "x", { wait = false })
  local own = temporary.directory(directory)
  local began = core.now()
  local ok, value, err = pcall(job.call.call,
    { client = client, endpoint = endpoint, directory = own, seconds = CALL_CLOCK, sandbox = sandbox })
  local took = core.now() - began
  local outcome
  if not ok then
    outcome = "raised"
    fail(where, "raised: %s", tostring(value))
  elseif not value and err ~= nil then
    outcome = type(err) == "table" and tostring(err.kind) or "?"
    check_error(where, err)
  else
    outcome = value == nil and "nil" or "value"
  end
  outcomes[outcome] = (outcomes[outcome] or 0) + 1
  if took > slowest.took then slowest = { took = took, where = where } end
  began = core.now()
  client:close()
  return took - (job.call.clock or CLOCK), core.now() - began - MAX_CLOSE, tostring(err):sub(1, 300)
end

-- Exits when a call does not end at all.
local function watch(running)
  return opensandbox.spawn(function()
    while true do
      opensandbox.sleep(1)
      for job, start in pairs(running) do
        if core.now() - start > HANG_TIME then
          fail(("seed %d, %s"):format(job.seed, job.call.name), "does not end")
          os.exit(1)
        end
      end
    end
  end)
end

-- Runs jobs at the same time. What takes too long runs again by itself, because this machine may be busy. The best try counts.
local function run_all(server, jobs, directory)
  local slow, running = {}, {}
  local watchdog = watch(running)
  local results, problems = opensandbox.map(jobs, function(job)
    running[job] = core.now()
    local excess, closing = run(server, job, directory)
    running[job] = nil
    if excess > MAX_EXCESS or closing > MAX_EXCESS then slow[#slow + 1] = job end
    return true
  end, { concurrency = CONCURRENCY })
  watchdog:cancel()
  if not results or problems then fail("a run of all calls", "%s", tostring(select(2, next(problems or {})))) end
  for _, job in ipairs(slow) do
    local excess, closing, text
    for _ = 1, MAX_TRIES do
      excess, closing, text = run(server, job, directory)
      if excess <= MAX_EXCESS and closing <= MAX_EXCESS then break end
    end
    local where = ("seed %d, %s"):format(job.seed, job.call.name)
    if excess > MAX_EXCESS then fail(where, "took %.2f s too long: %s", excess, text) end
    if closing > MAX_EXCESS then fail(where, "closing took %.2f s too long", closing) end
  end
end

-- Makes the kernel measure the peak of memory from now on, where it lets us. Returns the KiB that are in use.
local function measure_memory()
  collectgarbage()
  local file = io.open("/proc/self/clear_refs", "w")
  if file then
    file:write("5")
    file:close()
  end
  local memory = procfs.rss()
  return memory and memory.current
end

local function jobs_of(from, to)
  local jobs = {}
  for seed = from, to do
    for number, call in ipairs(calls) do
      if not only or call.name:find(only, 1, true) then jobs[#jobs + 1] = { seed = seed, call = call, number = number } end
    end
  end
  return jobs
end

local began = core.now()
local server, descriptors
for from = first, first + seeds - 1, BATCH do
  local jobs = jobs_of(from, math.min(from + BATCH, first + seeds) - 1)
  local directory = temporary.directory()
  if not server or (from - first) % SEEDS_PER_SERVER == 0 then
    if server then
      server:stop()
    else
      local warming = fault_server.start(HANDLER)
      run_all(warming, jobs, directory) -- loads what is loaded when it is first used
      warming:stop()
    end
    server = fault_server.start(HANDLER)
    collectgarbage()
    descriptors = procfs.descriptors()
  end
  local before = measure_memory()
  run_all(server, jobs, directory)
  if before then
    local growth = procfs.rss().peak - before
    largest_growth = math.max(largest_growth, growth)
    if growth > MAX_GROWTH then fail(("seeds from %d"):format(from), "memory grew by %d KiB", growth) end
  end
  collectgarbage()
  local left = descriptors and procfs.descriptors() - descriptors or 0
  if left > 0 then fail(("seeds from %d"):format(from), "%d descriptors are left", left) end
  temporary.remove(directory)
end
server:stop()

local list = {}
for outcome, count in pairs(outcomes) do list[#list + 1] = outcome .. " " .. count end
table.sort(list)
print(("malformed HTTP: %d seeds, %d runs, %.0f s: %s"):format(seeds, runs, core.now() - began, table.concat(list, ", ")))
print(("the slowest call took %.2f s (%s); memory grew by at most %d KiB"):format(slowest.took, slowest.where, largest_growth))
print(failures == 0 and "malformed HTTP: all is well" or ("malformed HTTP: %d failures"):format(failures))
os.exit(failures == 0 and 0 or 1)

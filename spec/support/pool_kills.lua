--- Kills processes that share a pool at random, by SIGKILL, and checks afterwards the promises of the pool: no sandbox is given to two,
--- none stays behind for longer than the lease of its dead holder, and there are never more than max_size.

local core = require "opensandbox.core"
local ledger_server = require "spec.support.ledger_server"
local nginx = require "spec.hosts.nginx"
local opensandbox = require "opensandbox"
local pool_worker = require "spec.support.pool_worker"
local process = require "spec.support.process"
local redis_client = require "spec.support.redis_client"
local redis_server = require "spec.support.redis_server"
local temporary = require "spec.support.temporary"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local pool_kills = {}

local POLL_INTERVAL = 0.02 -- seconds
local CONFIGURATION = "spec/hosts/pool_nginx.conf"

-- The processes of a pool in Redis. Each is started again when it is killed.
local function redis_processes(settings, env)
  local server = redis_server.start()
  local children, self = {}, {}
  env.POOL_REDIS = tostring(server.port)
  for name, value in pairs(process.module_paths()) do env[name] = value end
  local function start(index)
    children[index] = process.start { argv = { process.lua(), "spec/support/pool_worker_main.lua" }, env = env }
  end
  for index = 1, settings.processes do start(index) end
  function self.kill(index, again)
    local child = children[index]
    child:kill("sigkill")
    child:wait(10)
    local pid, problem = child.pid, child.signal ~= 9 and child:stderr_text()
    child:stop()
    if problem then error("a process has ended by itself: " .. problem) end
    if again then start(index) end
    return pid
  end
  function self.store()
    return opensandbox.pool_stores.redis { name = "kills", connect = function() return redis_client.connect(server.port) end }
  end
  function self.stop() server:stop() end
  return self
end

-- The workers of one nginx, which starts each again itself. They share a dictionary, or a Redis.
local function nginx_workers(settings, env)
  local redis = settings.store == "redis in nginx" and redis_server.start()
  env.POOL_REDIS = redis and tostring(redis.port)
  local server = nginx.start(CONFIGURATION, { env = env, values = { workers = settings.processes } })
  local self = { server = server }
  local function pids()
    local list = {}
    for _, pid in ipairs((process.children(server.master))) do list[#list + 1] = pid end
    table.sort(list)
    return list
  end
  function self.kill(index)
    local list = pids()
    local pid = list[(index - 1) % #list + 1]
    uv.kill(pid, "sigkill")
    uv_loop.wait_until(function()
      local now = pids()
      for _, other in ipairs(now) do
        if other == pid then return false end
      end
      return #now == settings.processes
    end, "nginx started another worker", 10)
    return pid
  end
  function self.stop()
    self.quit_seconds = server:quit()
    server:stop()
    if redis then redis:stop() end
  end
  return self
end

-- Reads the new lines of the logs. Returns a function that returns all events so far: { kind, id, time, pid },
-- and a list of the errors.
local function log_reader(path)
  local offset, events, errors = 0, {}, {}
  return function()
    local file = io.open(path)
    if not file then return events, errors end
    file:seek("set", offset)
    local text = file:read("*a"):match("^(.*\n)") or ""
    file:close()
    offset = offset + #text
    for line in text:gmatch("([^\n]+)\n") do
      local kind, id, time, pid = line:match("^([ARCT]) (%S+) (%S+) (%d+)$")
      if kind then
        events[#events + 1] = { kind = kind, id = id, time = tonumber(time), pid = tonumber(pid) }
      else
        errors[#errors + 1] = line
      end
    end
    return events, errors
  end
end

local function count_of(events, kind)
  local count = 0
  for _, event in ipairs(events) do
    if event.kind == kind then count = count + 1 end
  end
  return count
end

-- Follows a sandbox from the death of its holder to its end: the process that takes it over can die, too. `claims`: who used a token to take
-- something over. Returns the longest time for which its holder was dead, and the time from the last takeover to the end.
local function follow(holder, takeovers, deleted, claims, deaths)
  local longest = 0
  for _, takeover in ipairs(takeovers) do
    local died = deaths[claims[takeover.from] or holder]
    if died then longest = math.max(longest, takeover.time - died) end
  end
  return longest, deleted - takeovers[#takeovers].time
end

-- Returns the facts that the logs and the ledger show.
local function examine(events, ledger, deaths)
  local report = { acquisitions = 0, given_twice = 0, left_by_dead = 0, taken_over = 0, longest_lost = 0, slowest_delete = 0 }
  local holders, takeovers, claims, id_of = {}, {}, {}, {}
  for id, sandbox in pairs(ledger.sandboxes) do id_of[sandbox.label] = id end
  for _, event in ipairs(events) do
    if event.kind == "A" then
      report.acquisitions = report.acquisitions + 1
      if holders[event.id] then report.given_twice = report.given_twice + 1 end
      holders[event.id] = event.pid
    elseif event.kind == "C" then
      claims[event.id] = event.pid
    elseif event.kind == "T" then
      local id
      id, event.from = event.id:match("^(.*)/(.*)$")
      id = id_of[id] or id
      takeovers[id] = takeovers[id] or {}
      table.insert(takeovers[id], event)
    end
  end
  for id, sandbox in pairs(ledger.sandboxes) do
    local died, list = deaths[holders[id]], takeovers[id] or {}
    if not sandbox.deleted then
      if died then report.left_by_dead = report.left_by_dead + 1 end
    elseif #list > 0 then -- one without a holder was being created, or was taken just before the death
      local longest, seconds = follow(holders[id], list, sandbox.deleted, claims, deaths)
      report.taken_over = report.taken_over + 1
      report.longest_lost = math.max(report.longest_lost, longest)
      report.slowest_delete = math.max(report.slowest_delete, seconds)
    end
  end
  report.made, report.peak, report.alive = ledger.made, ledger.peak, ledger.alive
  return report
end

--- Runs the processes, kills them, and returns a report.
---@param settings { store: string, processes: integer, acquisitions: integer, max_size: integer, min_idle: integer, lease: number, kill_every: integer, seed: integer, create_ms?: integer } store: "redis", "nginx" (ngx.shared) or "redis in nginx"; acquisitions: at least; lease: seconds; kill_every: acquisitions from one kill to the next, on average
---@return table report acquisitions, kills, given_twice; peak, made, alive (sandboxes on the server); taken_over, left_by_dead (sandboxes whose holder has died); longest_lost (seconds from the death of a holder to the takeover), slowest_delete (seconds from that to the end); idle, busy, creating (in the store at the end); quit_seconds (until nginx had quit; nil: not within 10); seconds, errors
function pool_kills.run(settings)
  math.randomseed(settings.seed)
  local directory = temporary.directory()
  local log, ledger = directory .. "/log", ledger_server.start(settings.create_ms)
  local env = {
    POOL_SERVER = ledger.url, POOL_LOG = log, POOL_LEASE = tostring(settings.lease),
    POOL_MIN_IDLE = tostring(settings.min_idle), POOL_MAX_SIZE = tostring(settings.max_size),
  }
  local workers = (settings.store == "redis" and redis_processes or nginx_workers)(settings, env)
  local read, began, deaths, kills = log_reader(log), core.now(), {}, 0
  local events, errors = read()
  local next_kill = settings.kill_every
  while count_of(events, "A") < settings.acquisitions do
    uv_loop.sleep(POLL_INTERVAL)
    events = read()
    if count_of(events, "A") >= next_kill then
      deaths[workers.kill(math.random(settings.processes), true)] = core.now()
      kills, next_kill = kills + 1, count_of(events, "A") + settings.kill_every * (0.5 + math.random())
    end
  end
  local seconds = core.now() - began
  -- At last all die at once, and a process that comes later cleans up.
  local client, pool
  if settings.store ~= "redis" then
    workers.server:ask("/stop")
    uv_loop.sleep(settings.lease * 2)
  else
    for index = 1, settings.processes do deaths[workers.kill(index, false)] = core.now() end
    client = opensandbox.new(ledger.url, "key")
    pool = client:pool { image = "any", min_idle = settings.min_idle, max_size = settings.max_size, lease = settings.lease,
      store = pool_worker.recording(workers.store(), pool_worker.log(log, uv.os_getpid())) }
  end
  local function stats()
    if pool then return assert(pool:stats()) end
    return require("opensandbox.base.json").decode(workers.server:ask("/stats"))
  end
  local deadline, last = core.now() + settings.lease * 3 + 5
  repeat
    opensandbox.sleep(POLL_INTERVAL)
    last = stats()
  until (last.busy == 0 and last.creating == 0 and last.idle >= settings.min_idle) or core.now() > deadline
  events = read()
  local report = examine(events, ledger:state(), deaths)
  report.kills, report.seconds, report.errors = kills, seconds, errors
  report.idle, report.busy, report.creating = last.idle, last.busy, last.creating
  if client then client:close() end
  workers.stop()
  report.quit_seconds = workers.quit_seconds
  ledger:stop()
  temporary.remove(directory)
  return report
end

return pool_kills

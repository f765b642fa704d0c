--- In nginx: the time that its event loop adds to a command, and the cost of a hundred commands at once for the other requests of their
--- worker. With the thread that notifies nginx, and without it, polling at intervals; they take turns.

local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local uv_loop = require "spec.support.uv_loop"
local nginx = require "spec.hosts.nginx"
local opensandbox = require "opensandbox"
local process = require "spec.support.process"
local statistics = require "bench.statistics"

local CONFIGURATION = "spec/hosts/nginx.conf"
local TICK = 10 -- milliseconds of processor time, as /proc counts it
local CROWD = 100
local COMMANDS = { { "true", 40 }, { "sleep 0.3", 6 } } -- and how many a round

local ways = { { name = "told", env = {} }, { name = "looking", env = { SPEC_LOOKS = "1" } } }

local function processor(pid)
  local file = assert(io.open("/proc/" .. pid .. "/stat"))
  local user, system = file:read("*a"):match("^.*%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
  file:close()
  return (user + system) * TICK
end

local function path(name, sandbox, command, more)
  return ("/do/%s?sandbox=%s&command=%s%s"):format(name, sandbox.id, command:gsub(" ", "%%20"), more)
end

-- Milliseconds of one command here, the median of `count`.
local function here(sandbox, command, count)
  local times = {}
  for index = 1, count do
    local began = core.now()
    assert(sandbox:run(command))
    times[index] = (core.now() - began) * 1000
  end
  return statistics.median(times)
end

local function there(server, sandbox, command, count)
  return statistics.median(json.decode(server:ask(path("latencies", sandbox, command, "&count=" .. count))))
end

-- The waits for plain answers while a crowd of requests runs commands of a second: the median, the longest, and by how much the worker
-- itself was late, the machine's part left out; and its processor time.
local function beside_a_crowd(server, sandbox)
  local pid = json.decode(server:ask("/do/state")).pid
  local before, waits = processor(pid), {}
  local beat = process.start { argv = { "curl", "-sS", server.url .. "/do/beat" } }
  local urls = server.url .. path("run", sandbox, "sleep 1", ("&n=[1-%d]"):format(CROWD))
  local child = process.start { argv = { "curl", "-sS", "-Z", "--parallel-immediate", "--parallel-max", tostring(CROWD), urls } }
  while child:running() do
    local asked = core.now()
    server:ask("/plain")
    waits[#waits + 1] = (core.now() - asked) * 1000
    uv_loop.sleep(0.01)
  end
  local _, answers = child:output():gsub('"exit_code":0', "")
  child:stop()
  server:ask("/do/still")
  local own = tonumber(beat:read_line())
  beat:stop()
  assert(answers == CROWD, "a command failed")
  return statistics.median(waits), statistics.quantile(waits, 1), own, processor(pid) - before
end

local function measure(rounds, sandbox)
  local figures = {}
  local function note(name, value)
    figures[name] = figures[name] or {}
    table.insert(figures[name], value)
  end
  for _ = 1, rounds do
    for _, command in ipairs(COMMANDS) do
      note(command[1], here(sandbox, command[1], command[2]))
      for _, way in ipairs(ways) do note(command[1] .. way.name, there(way.server, sandbox, command[1], command[2])) end
    end
    for _, way in ipairs(ways) do
      local median, worst, own, cost = beside_a_crowd(way.server, sandbox)
      note("median" .. way.name, median)
      note("worst" .. way.name, worst)
      note("own" .. way.name, own)
      note("cost" .. way.name, cost)
    end
  end
  return figures
end

local function show(report, figures)
  report:heading("NGINX  one worker")
  for _, command in ipairs(COMMANDS) do
    local name, plain, told = ("`%s`"):format(command[1]), figures[command[1]], figures[command[1] .. "told"]
    report:row { name = name .. " in plain Lua", unit = "ms", ours = plain }
    report:row { name = name .. " in nginx", unit = "ms", ours = told }
    report:row { name = name .. " in nginx, no thread", unit = "ms", ours = figures[command[1] .. "looking"] }
    local added = statistics.best(told) - statistics.best(plain)
    report:row { name = name .. ", added in nginx to the best", unit = "ms", ours = { added }, at_most = 5 }
  end
  for _, way in ipairs(ways) do
    local with = way.name == "told" and "" or ", no thread"
    local bound = way.name == "told" and 20 or nil
    report:row { name = "a plain answer beside the crowd" .. with, unit = "ms, median", ours = figures["median" .. way.name] }
    report:row { name = "the latest of them" .. with, unit = "ms", ours = figures["worst" .. way.name] }
    report:row { name = "late by the worker's own doing" .. with, unit = "ms", ours = figures["own" .. way.name], at_most = bound }
    report:row { name = "processor time for the crowd" .. with, unit = "ms", ours = figures["cost" .. way.name] }
  end
  report:note(("the crowd: %d requests at once, each with a command of a second"):format(CROWD))
end

return function(report, rounds)
  if not (nginx.installed() and nginx.core()) then
    report:heading("NGINX")
    report:note("left out, for there is none: install " .. nginx.PACKAGES)
    return
  end
  local devserver = process.devserver { grace = 0.2 }
  local client = opensandbox.new(devserver.url, devserver.key)
  local ok, figures = pcall(function()
    local sandbox = assert(client:create { image = "any" })
    for _, way in ipairs(ways) do
      local env = { OPEN_SANDBOX_DOMAIN = devserver.url, OPEN_SANDBOX_API_KEY = devserver.key }
      for name, value in pairs(way.env) do env[name] = value end
      way.server = nginx.start(CONFIGURATION, { env = env })
    end
    return measure(rounds, sandbox)
  end)
  for _, way in ipairs(ways) do
    if way.server then way.server:stop() end
  end
  client:close()
  devserver:stop()
  if not ok then error(figures, 0) end
  show(report, figures)
end

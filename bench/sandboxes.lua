--- Many sandboxes at once: each created, written to, asked to run a command, read from and killed; beside the official JavaScript SDK.
--
-- The development server does most of the work and shares the processors with its client, so its own processor time stands beside.
-- It is measured as real servers are, holding each command's stream for a second after its end, and without that.

local uv_loop = require "spec.support.uv_loop"
local process = require "spec.support.process"
local programs = require "bench.programs"
local statistics = require "bench.statistics"

local COUNT, CONCURRENCY, ROUNDS = 200, 32, 3
local SETTLE = 5 -- seconds that processes on their way out get
local MEMORY_BOUND = 256 -- KiB
local NODE = 20 -- the SDK wants this version
local INSTALLED = "build/js/installed"

-- Why the JavaScript SDK cannot be measured, or nil.
local function nothing_beside()
  local ok, lines = pcall(programs.run, { "node", "--version" })
  local version = ok and tonumber((lines[1] or ""):match("^v(%d+)"))
  if not version then return "Node.js does not run here" end
  if version < NODE then return ("it needs Node.js %d, this is %d"):format(NODE, version) end
  local file = io.open(INSTALLED)
  if not file then return "it is not installed (make bench does that, with npm)" end
  file:close()
end

-- Processor seconds of a process and of the children that it has waited for.
local function processor_of(pid)
  local file = assert(io.open(("/proc/%d/stat"):format(pid)))
  local stat = file:read("*a")
  file:close()
  local fields = {}
  for field in stat:match("^.*%) (.*)$"):gmatch("%S+") do fields[#fields + 1] = tonumber(field) or 0 end
  local ticks = tonumber((programs.run { "getconf", "CLK_TCK" })[1])
  return (fields[12] + fields[13] + fields[14] + fields[15]) / ticks
end

-- How many children a process still has when they have had time to end.
local function children_left(pid)
  local living, zombies
  uv_loop.wait(function()
    living, zombies = process.children(pid)
    return #living + #zombies == 0
  end, SETTLE)
  return #living + #zombies
end

local function side(program, server)
  return { argv = { program[1], program[2], server.url, server.key, tostring(COUNT), tostring(CONCURRENCY) },
    rates = {}, growth = {}, processor = {}, of_server = {}, left = {} }
end

local function measure(one, round, server)
  local before = processor_of(server.pid)
  local figures = programs.figures(one.argv)
  one.left[round] = children_left(server.pid)
  one.of_server[round] = processor_of(server.pid) - before
  one.rates[round] = COUNT / figures.seconds
  one.growth[round], one.processor[round] = figures.growth, figures.processor
  return figures
end

local function rows(report, grace, ours, other, stayed)
  report:heading(("SANDBOXES %d, %d at once, streams end %g s late"):format(COUNT, CONCURRENCY, grace), other and "JS SDK" or "")
  other = other or {}
  report:row { name = "created, used and killed", unit = "per second", more_is_better = true,
    ours = ours.rates, other = other.rates, ratio_at_least = other.rates and 1 or nil }
  local seconds = { ours = {}, other = other.rates and {} }
  for name, list in pairs(seconds) do
    for round, rate in ipairs((name == "ours" and ours or other).rates) do list[round] = COUNT / rate end
  end
  report:row { name = "all of them", unit = "s", ours = seconds.ours, other = seconds.other }
  report:row { name = "client", unit = "s of processor", ours = ours.processor, other = other.processor }
  report:row { name = "server and commands", unit = "s of processor", ours = ours.of_server, other = other.of_server }
  report:row { name = "client", unit = "MiB of peak memory", ours = ours.growth, other = other.growth }
  report:row { name = "processes left on the server", unit = "most", ours = { statistics.best(ours.left, true) }, at_most = 0 }
  for _, one in ipairs {
    { "sandboxes left on the server", "listed", 0 }, { "descriptors left", "descriptors", 0 },
    { "Lua memory left, KiB", "memory", MEMORY_BOUND },
  } do
    report:row { name = one[1], unit = "most", ours = { statistics.best(stayed[one[2]], true) }, at_most = one[3] }
  end
end

local function with_grace(report, grace, problem)
  local server = programs.devserver_in_memory(grace)
  local ok, err = pcall(function()
    local ours = side({ process.lua(), "bench/sandboxes_work.lua" }, server)
    local other = not problem and side({ "node", "bench/sandboxes.mjs" }, server) or nil
    local stayed = { listed = {}, descriptors = {}, memory = {} }
    for round = 1, ROUNDS do
      local figures = measure(ours, round, server)
      for name, values in pairs(stayed) do values[round] = figures[name] end
      if other then measure(other, round, server) end
    end
    rows(report, grace, ours, other, stayed)
  end)
  server:stop()
  if not ok then error(err, 0) end
end

return function(report)
  local problem = nothing_beside()
  for _, grace in ipairs { 1, 0 } do with_grace(report, grace, problem) end
  report:note(("%d rounds; JS SDK: %s"):format(ROUNDS, problem and "not measured: " .. problem
    or "the official one, with one transport for all sandboxes"))
end

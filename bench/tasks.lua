--- Many tasks in one thread: the cost of a waiting task, and of each request while many others wait for their responses.

local process = require "spec.support.process"
local programs = require "bench.programs"

local TASKS, ROUNDS = 10000, 3
local FEW, MANY = 100, { 1000, 10000 }

local COMMANDS, CONCURRENCY = 10000, 1000

local function work(...)
  return programs.figures { process.lua(), "bench/tasks_work.lua", ... }
end

-- The figures of each round by name: a list for each.
local function rounds(...)
  local lists = {}
  for round = 1, ROUNDS do
    for name, value in pairs(work(...)) do
      lists[name] = lists[name] or {}
      lists[name][round] = value
    end
  end
  return lists
end

local function waiting(report, kind, where)
  local lists = rounds(kind, tostring(TASKS))
  report:row { name = "waiting in " .. where, unit = "bytes of Lua memory each", ours = lists.memory, at_most = 10240 }
  report:row { name = "  to start", unit = "us each", ours = lists.start }
  report:row { name = "  to cancel", unit = "us each", ours = lists.cancel }
  report:row { name = "  kept after all are cancelled", unit = "bytes", ours = lists.kept }
  report:row { name = "  grown after as many again", unit = "bytes", ours = lists.grown, at_most = 262144 }
end

-- Returns the figures. `few` are those with FEW waiting, and `none` those with none.
local function transfers(report, url, count, none, few)
  local lists = rounds("transfers", tostring(count), url)
  if not lists.request then
    report:note(("%d waiting: not measured, this process may not open so many descriptors (ulimit -n)"):format(count))
    return
  end
  local name = ("%d waiting"):format(count)
  none, few = none or {}, few or {}
  local function row(unit, list, bound)
    bound = bound or {}
    report:row { name = name, unit = unit, ours = list, other = bound.other, ratio_at_most = bound.other and bound.ratio,
      at_most = bound.at_most }
  end
  row("us of another request", lists.request, { other = none.request, ratio = 1.5 })
  row("us of processor of it", lists.processor, { other = none.processor, ratio = 1.5 })
  row("connections opened by 5000 others", lists.opened, { at_most = 0 })
  row("us of processor of a step", lists.step, { other = none.step, ratio = 2 })
  if count == 0 then return lists end
  row("us to start each", lists.start, { other = few.start, ratio = 1.5 })
  row("us to cancel each", lists.cancel)
  row("ms a heartbeat was late meanwhile", lists.late, { at_most = 20 })
  row("ms of processor between beats", lists.busy, { at_most = 20 })
  row("bytes of Lua memory each", lists.memory)
  row("resident bytes each", lists.resident)
  return lists
end

return function(report, _, url)
  report:heading(("TASKS    %d at once"):format(TASKS), "")
  local through = rounds("through", tostring(TASKS))
  report:row { name = "spawned, run in two turns, ended", unit = "us each", ours = through.seconds }
  waiting(report, "sleepers", "sleep")
  waiting(report, "joiners", "task:wait")
  report:heading("WAITING  for responses, of one client", "less")
  local none = transfers(report, url, 0)
  local few = transfers(report, url, FEW, none)
  for _, count in ipairs(MANY) do transfers(report, url, count, none, few) end
  report:note(("beside a request and a step with none waiting, and starts with %d"):format(FEW))
  report:note(("%d rounds, a process each"):format(ROUNDS))
  report:heading(("MAP      %d commands of a second, %d at a time"):format(COMMANDS, CONCURRENCY), "")
  local figures = work("map", tostring(COMMANDS), url, tostring(CONCURRENCY))
  report:row { name = "wall time", unit = "s", ours = { figures.seconds }, at_most = 1.3 * COMMANDS / CONCURRENCY }
  report:row { name = "processor", unit = "us a command", ours = { figures.processor } }
  report:row { name = "peak memory", unit = "MiB", ours = { figures.peak } }
end

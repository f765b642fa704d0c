--- Many tasks in one thread: what one that waits costs, and what each request costs while many others wait for their responses.

local process = require "spec.support.process"
local programs = require "bench.programs"

local TASKS, ROUNDS = 10000, 3
local TRANSFERS = { 0, 10, 100, 1000 }

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

local function transfers(report, url, count)
  local lists = rounds("transfers", tostring(count), url)
  if not lists.request then
    report:note(("%d waiting: not measured, this process may not open so many descriptors (ulimit -n)"):format(count))
    return
  end
  local name = ("%d waiting"):format(count)
  report:row { name = name, unit = "us of another request", ours = lists.request }
  report:row { name = name, unit = "us of processor of it", ours = lists.processor }
  report:row { name = name, unit = "connections opened by 300 others", ours = lists.opened, at_most = 0 }
  report:row { name = name, unit = "us of processor of a step", ours = lists.step, at_most = 100 }
  if count > 0 then
    report:row { name = name, unit = "us to cancel each", ours = lists.cancel }
    report:row { name = name, unit = "bytes of Lua memory each", ours = lists.memory }
  end
end

return function(report, _, url)
  report:heading(("TASKS    %d at once"):format(TASKS), "")
  local through = rounds("through", tostring(TASKS))
  report:row { name = "spawned, run in two turns, ended", unit = "us each", ours = through.seconds }
  waiting(report, "sleepers", "sleep")
  waiting(report, "joiners", "task:wait")
  report:heading("WAITING  for responses, of one client", "")
  for _, count in ipairs(TRANSFERS) do transfers(report, url, count) end
  report:note(("%d rounds, a process each"):format(ROUNDS))
end

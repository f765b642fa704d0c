--- Checks whether a connection is used again.

local programs = require "bench.programs"

local PINGS = 1000

return function(report, rounds, url)
  local connections, rates, curl, microseconds = {}, {}, {}, {}
  for round = 1, rounds do
    local figures = programs.ours("reuse", url, tostring(PINGS))
    connections[round], rates[round] = figures.connections, PINGS / figures.seconds
    microseconds[round] = figures.processor / PINGS * 1e6
    local _, seconds = programs.curl("-o", "/dev/null", ("%s/ping?[1-%d]"):format(url, PINGS))
    curl[round] = PINGS / seconds
  end
  report:heading(("REUSE    %d pings"):format(PINGS))
  report:row { name = "connections opened", unit = "in all", ours = connections, at_most = 1 }
  report:row { name = "requests", unit = "per second", ours = rates, other = curl, more_is_better = true }
  report:row { name = "processor", unit = "us per request", ours = microseconds }
  report:note "curl: all URLs in one invocation, its start included"
end

--- What half a million events cost.

local programs = require "bench.programs"

local EVENTS = 500000

local kinds = {
  { name = "no callback, output kept", how = "plain" },
  { name = "with on_stdout", how = "callback" },
  { name = "max_output = 1024", how = "small" },
}

return function(report, rounds, url)
  local microseconds = 1e6 / EVENTS
  local command = ('{"command":"events %d"}'):format(EVENTS)
  local curl = {}
  for _, kind in ipairs(kinds) do kind.ours, kind.growth, kind.seconds = {}, {}, {} end
  for round = 1, rounds do
    for _, kind in ipairs(kinds) do
      local figures = programs.ours("events", url, ("%d"):format(EVENTS), kind.how)
      kind.ours[round], kind.growth[round] = figures.processor * microseconds, figures.growth
      kind.seconds[round] = figures.seconds
    end
    curl[round] = programs.curl_processor("-N", "-d", command, url .. "/command") * microseconds
  end
  report:heading(("EVENTS   %d lines of output"):format(EVENTS))
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "us of processor/event", ours = kind.ours, other = curl, at_most = 2 }
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "s to the return", ours = kind.seconds }
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "MiB of peak memory", ours = kind.growth }
  end
  report:note "curl reads the same stream into /dev/null and decodes nothing; its processor time (to 10 ms) includes its start"
  report:note "kept output is 15 MB of text, the default limit 16 MiB"
end

--- What 200,000 events cost, each of which the server sends in a write of its own, as a sandbox does.

local programs = require "bench.programs"

local EVENTS = 200000

local kinds = {
  { name = "no callback, output kept", how = "plain" },
  { name = "with on_stdout", how = "callback" },
  { name = "max_output = 1024", how = "small" },
}

return function(report, rounds, url)
  local microseconds = 1e6 / EVENTS
  local command = ('{"command":"events %d"}'):format(EVENTS)
  local curl = {}
  local after = {}
  for _, kind in ipairs(kinds) do kind.ours, kind.growth, kind.seconds = {}, {}, {} end
  for round = 1, rounds do
    for _, kind in ipairs(kinds) do
      local figures = programs.ours("events", url, ("%d"):format(EVENTS), kind.how)
      kind.ours[round], kind.growth[round] = figures.processor * microseconds, figures.growth
      kind.seconds[round] = figures.seconds
    end
    after[round] = programs.ours("terminalevent", url, ("%d"):format(EVENTS)).after
    curl[round] = programs.curl_processor("-N", "-d", command, url .. "/command") * microseconds
  end
  report:heading(("EVENTS   %d lines of output"):format(EVENTS))
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "us of processor/event", ours = kind.ours, other = curl, ratio_at_most = 1 }
  end
  report:row { name = "terminal event to return", unit = "ms", ours = after, at_most = 1.5 }
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "s to the return", ours = kind.seconds }
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "MiB of peak memory", ours = kind.growth }
  end
  report:note "curl reads the same stream into /dev/null and decodes nothing; its processor time (to 10 ms) includes its start"
  report:note "kept output is 6 MB of text, the default limit 16 MiB"
end

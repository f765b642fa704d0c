--- A terminal: the echo of a key, and the rate of output. The development server serves both sides.

local process = require "spec.support.process"
local programs = require "bench.programs"

local KEYS, BYTES = 500, 100000000

return function(report, rounds)
  local server = process.devserver()
  local values = { oursecho = {}, plainecho = {}, oursrate = {}, plainrate = {}, added = {} }
  local ok, problem = pcall(function()
    for round = 1, rounds do
      local figures = programs.figures { process.lua(), "bench/terminal_work.lua", server.url, server.key, tostring(KEYS),
        ("%d"):format(BYTES) }
      for name, value in pairs(figures) do values[name][round] = value end
      values.added[round] = figures.oursecho - figures.plainecho
    end
  end)
  server:stop()
  if not ok then error(problem, 0) end
  report:heading("TERMINAL", "socket")
  report:row { name = ("echo of %d keys"):format(KEYS), unit = "ms, median", ours = values.oursecho, other = values.plainecho }
  report:row { name = "what the terminal adds", unit = "ms, median", ours = values.added, at_most = 2 }
  report:row { name = "100 MB of output", unit = "MB/s", ours = values.oursrate, other = values.plainrate, more_is_better = true,
    ratio_at_least = 0.8 }
  report:note "socket: a plain TCP socket that sends ready frames and decodes nothing"
end

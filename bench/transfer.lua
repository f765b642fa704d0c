--- Rounds of a transfer of ours and the same transfer by curl, and their rows.

local programs = require "bench.programs"

local transfer = { SIZE = 1024 * 1024 * 1024 }

local MEGABYTE = 1e6

--- Runs the kinds of transfer in turn, `rounds` times. Each has `name`, `ours` (gives figures), `curl` (gives curl's arguments) or
--- `curl_seconds`, and `unbound` when the comparison is for information only.
function transfer.rows(report, rounds, kinds)
  for _, kind in ipairs(kinds) do kind.rates, kind.curl_rates, kind.growth, kind.processor = {}, {}, {}, {} end
  for round = 1, rounds do
    for _, kind in ipairs(kinds) do
      local figures = kind.ours()
      kind.rates[round] = transfer.SIZE / figures.seconds / MEGABYTE
      kind.growth[round], kind.processor[round] = figures.growth, figures.processor
      local seconds = kind.curl_seconds and kind.curl_seconds() or programs.curl(kind.curl())
      kind.curl_rates[round] = transfer.SIZE / seconds / MEGABYTE
    end
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "MB/s", ours = kind.rates, other = kind.curl_rates, more_is_better = true,
      ratio_at_least = not kind.unbound and 0.8 or nil }
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "MiB of peak memory", ours = kind.growth, at_most = 8 }
  end
  for _, kind in ipairs(kinds) do
    report:row { name = kind.name, unit = "s of processor", ours = kind.processor }
  end
  report:note "curl's rate is by its own clock (time_total), without its start; memory and processor are ours, of a fresh process"
end

return transfer

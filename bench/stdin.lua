--- 256 MiB as the standard input of a command, beside the same in three calls; and of a command that does not read it, beside the upload
--- alone, because the time that a command takes to read its input is its own. The development server serves all.

local process = require "spec.support.process"
local programs = require "bench.programs"
local scratch = require "bench.scratch"

local SIZE = 256 * 1024 * 1024 -- bytes
local MEGABYTE = 1e6

return function(report, rounds)
  local server = programs.devserver_in_memory(0)
  local values = { stdin = {}, three = {}, unread = {}, upload = {}, growth = {} }
  local ok, problem = pcall(scratch.with, function(directory)
    local path = directory:sparse("input", SIZE)
    local function measure(work)
      return programs.figures { process.lua(), "bench/stdin_work.lua", work, server.url, server.key, path }
    end
    measure "upload" -- the file's pages are in memory from now on
    for round = 1, rounds do
      local figures = measure "stdin"
      values.stdin[round], values.growth[round] = SIZE / MEGABYTE / figures.seconds, figures.growth
      values.three[round] = SIZE / MEGABYTE / measure("three").seconds
      values.unread[round] = SIZE / MEGABYTE / measure("unread").seconds
      values.upload[round] = SIZE / MEGABYTE / measure("upload").seconds
    end
  end)
  server:stop()
  if not ok then error(problem, 0) end
  report:heading("STANDARD INPUT of 256 MiB", "three calls")
  report:row { name = "run(\"cat > /dev/null\", { stdin = ... })", unit = "MB/s", ours = values.stdin, other = values.three,
    more_is_better = true, ratio_at_least = 0.9 }
  report:row { name = "run(\"cat > /dev/null\", { stdin = ... })", unit = "MiB of peak memory", ours = values.growth, at_most = 8 }
  report:note "three calls: files:upload, run(\"cat > /dev/null < /tmp/input\"), files:remove. The command reads what was uploaded"
  report:heading("STANDARD INPUT of 256 MiB that is not read", "the upload alone")
  report:row { name = "run(\"true\", { stdin = ... })", unit = "MB/s", ours = values.unread, other = values.upload,
    more_is_better = true, ratio_at_least = 0.9 }
end

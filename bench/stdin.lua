--- 256 MiB as the standard input of a command, beside an upload of the same file. The development server serves both.

local process = require "spec.support.process"
local programs = require "bench.programs"
local scratch = require "bench.scratch"
local uv = require "luv"

local SIZE = 256 * 1024 * 1024 -- bytes
local MEGABYTE = 1e6
local MEMORY = "/dev/shm" -- the server's files, so that no disk is measured

return function(report, rounds)
  local in_memory = uv.fs_access(MEMORY, "w")
  local server = process.devserver { grace = 0, env = in_memory and { TMPDIR = MEMORY } or nil }
  local values = { stdin = {}, upload = {}, growth = {} }
  local ok, problem = pcall(scratch.with, function(directory)
    local path = directory:sparse("input", SIZE)
    local function measure(work)
      return programs.figures { process.lua(), "bench/stdin_work.lua", work, server.url, server.key, path }
    end
    for round = 1, rounds do
      local figures = measure "stdin"
      values.stdin[round], values.growth[round] = SIZE / MEGABYTE / figures.seconds, figures.growth
      values.upload[round] = SIZE / MEGABYTE / measure("upload").seconds
    end
  end)
  server:stop()
  if not ok then error(problem, 0) end
  report:heading("STANDARD INPUT of 256 MiB", "upload")
  report:row { name = "run(\"cat > /dev/null\", { stdin = ... })", unit = "MB/s", ours = values.stdin, other = values.upload,
    more_is_better = true, ratio_at_least = 0.9 }
  report:row { name = "run(\"cat > /dev/null\", { stdin = ... })", unit = "MiB of peak memory", ours = values.growth, at_most = 8 }
  report:note "upload: files:upload of the same file; the command of a sandbox reads its input from the file that run has uploaded"
end

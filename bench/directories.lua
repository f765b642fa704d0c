--- A directory of 1,000 files of 4 KiB up and down: as one archive, as many files to a request, and with a request for each file.

local process = require "spec.support.process"
local programs = require "bench.programs"
local uv = require "luv"

local FIGURES = {
  "archiveup", "filesup", "singlyup", "archivedown", "filesdown", "singlydown", "changedup", "changeddown",
  "archiveupbytes", "archivedownbytes", "changedupbytes", "changeddownbytes",
}

-- Makes a directory, measures in it, and removes it with all that is in it.
local function measure(server, place)
  local directory = assert(uv.fs_mkdtemp(place .. "/opensandbox-bench-XXXXXX"))
  local ok, figures = pcall(programs.figures, { process.lua(), "bench/directories_work.lua", server.url, server.key, directory })
  programs.run { "rm", "-rf", "--", directory }
  if not ok then error(figures, 0) end
  return figures
end

return function(report, rounds)
  local server, memory = programs.devserver_in_memory(1)
  local values = {} -- seconds, and kB
  for _, name in ipairs(FIGURES) do values[name] = {} end
  local ok, err = pcall(function()
    for round = 1, rounds do
      local figures = measure(server, memory or os.getenv("TMPDIR") or "/tmp")
      for _, name in ipairs(FIGURES) do values[name][round] = figures[name] end
    end
  end)
  server:stop()
  if not ok then error(err, 0) end
  report:heading("DIRECTORY 1,000 files of 4 KiB", "one each")
  report:row { name = "up, as one archive", unit = "s", ours = values.archiveup, other = values.singlyup }
  report:row { name = "up, 500 files to a request", unit = "s", ours = values.filesup, other = values.singlyup }
  report:row { name = "down, as one archive", unit = "s", ours = values.archivedown, other = values.singlydown }
  report:row { name = "down, 8 requests at a time", unit = "s", ours = values.filesdown, other = values.singlydown }
  report:note "one each: a request for each file, one after the other, over one connection; the development server, on this machine"
  report:heading("DIRECTORY 1,000 files of 4 KiB, of which 3 changed", "whole")
  for _, way in ipairs { "up", "down" } do
    report:row { name = way .. ", only_changed", unit = "s", ours = values["changed" .. way], other = values["archive" .. way] }
    report:row { name = way .. ", only_changed, bodies", unit = "kB", ours = values["changed" .. way .. "bytes"],
      other = values["archive" .. way .. "bytes"], ratio_at_most = 0.1 }
  end
  report:note "whole: everything again, as one archive; the list of checksums is among the bytes"
end

--- Uploading 1 GiB.

local programs = require "bench.programs"
local scratch = require "bench.scratch"
local transfer = require "bench.transfer"

return function(report, rounds, url)
  local size = ("%d"):format(transfer.SIZE)
  report:heading "UPLOAD 1 GiB"
  scratch.with(function(directory)
    local large, small = directory:sparse("large", transfer.SIZE), directory:sparse("small", 1024 * 1024)
    local function curl()
      return "-o", "/dev/null", "-F", 'metadata={"path":"/tmp/bench"};filename=metadata;type=application/json',
        "-F", ("file=@%s;filename=file;type=application/octet-stream"):format(large), url .. "/files/upload"
    end
    programs.curl(curl()) -- the file's pages are in memory from now on
    transfer.rows(report, rounds, {
      { name = "from a path", curl = curl, ours = function() return programs.ours("uploadpath", url, size, large, small) end },
      { name = "from a file handle", curl = curl,
        ours = function() return programs.ours("uploadhandle", url, size, large, small) end },
      { name = "from a function, 64 KiB a call", curl = curl,
        ours = function() return programs.ours("uploadreader", url, size) end },
    })
  end)
end

--- Downloading 1 GiB.

local programs = require "bench.programs"
local scratch = require "bench.scratch"
local transfer = require "bench.transfer"

return function(report, rounds, url)
  local size = ("%d"):format(transfer.SIZE)
  local address = url .. "/files/download?path=%2Fsize%2F" .. size
  report:heading "DOWNLOAD 1 GiB"
  scratch.with(function(directory)
    local target = directory:path("target")
    transfer.rows(report, rounds, {
      { name = "through a reader; curl | cat",
        ours = function() return programs.ours("download", url, size) end,
        curl_seconds = function() return programs.curl_piped(address) end },
      { name = "through a reader; curl -o /dev/null", unbound = true,
        ours = function() return programs.ours("download", url, size) end,
        curl = function() return "-o", "/dev/null", address end },
      { name = "Files:download, to a file",
        ours = function()
          local figures = programs.ours("downloadfile", url, size, target)
          os.remove(target)
          return figures
        end,
        curl = function()
          os.remove(target)
          return "-o", target, address
        end },
    })
  end)
end

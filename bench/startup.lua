--- The time to start a program: `require "opensandbox"` beside the C core alone, whose time is that of loading libcurl.

local process = require "spec.support.process"
local programs = require "bench.programs"

local PROCESSES = 20

-- Milliseconds of a whole process that loads a module.
local function start(module)
  local _, seconds = programs.run { process.lua(), "-e", ("require %q"):format(module) }
  return seconds * 1000
end

return function(report)
  local whole, core = {}, {}
  for index = 1, PROCESSES do
    whole[index] = start "opensandbox"
    core[index] = start "opensandbox.core"
  end
  report:heading(("STARTUP  %d processes each"):format(PROCESSES), "the core")
  report:row { name = 'require "opensandbox"', unit = "ms", ours = whole, other = core, ratio_at_most = 1.5 }
end

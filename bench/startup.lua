--- The time to start a program: `require "opensandbox"` beside the C core alone, whose time is that of loading libcurl; and the program
--- `opensandbox`, which also loads argparse.

local process = require "spec.support.process"
local programs = require "bench.programs"

local PROCESSES = 20

-- Milliseconds of a whole process.
local function run(argv)
  local _, seconds = programs.run(argv)
  return seconds * 1000
end

local function start(module)
  return run { process.lua(), "-e", ("require %q"):format(module) }
end

return function(report)
  local whole, core, help, list = {}, {}, {}, {}
  local server = process.devserver()
  local ls = { process.lua(), "bin/opensandbox", "ls", "--url", server.url, "--key", server.key }
  for index = 1, PROCESSES do
    whole[index] = start "opensandbox"
    core[index] = start "opensandbox.core"
    help[index] = run { process.lua(), "bin/opensandbox", "--help" }
    local answer = programs.curl("-o", "/dev/null", "-H", "OPEN-SANDBOX-API-KEY: " .. server.key, server.url .. "/v1/sandboxes")
    list[index] = run(ls) - answer * 1000
  end
  server:stop()
  report:heading(("STARTUP  %d processes each"):format(PROCESSES), "the core")
  report:row { name = 'require "opensandbox"', unit = "ms", ours = whole, other = core, ratio_at_most = 1.5 }
  report:row { name = "opensandbox --help", unit = "ms", ours = help, at_most = 30 }
  report:row { name = "opensandbox ls, without the server's answer", unit = "ms", ours = list, at_most = 60 }
end

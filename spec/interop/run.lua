--- The official SDKs of OpenSandbox against the development server: each sees what it would see of the real services.
--
-- Runs the steps of every SDK that `make interop` has installed below build/, and ends with "N passed, N failed".

local process = require "spec.support.process"

local SILENCE = 60   -- seconds without a step are the end of an SDK's run

local sdks = {
  { name = "Python 1.1", argv = { "build/python-1.1/bin/python", "spec/interop/sdk.py" } },
  { name = "Python 0.1", argv = { "build/python-0.1/bin/python", "spec/interop/sdk.py" } },
  { name = "JavaScript", argv = { "node", "spec/interop/sdk.mjs" } },
  { name = "MCP", argv = { "build/python-mcp/bin/python", "spec/interop/mcp_client.py" } }, -- drives `opensandbox mcp`
}

local passed, failed = 0, 0

local function report(sdk, line)
  print(sdk.name .. ": " .. line)
  if line:find("^ok ") then passed = passed + 1 elseif line:find("^FAIL ") then failed = failed + 1 end
end

-- One server for each, so that none finds what another has left.
local function run(sdk)
  local server = process.devserver { grace = 0.1, args = { "--templates", "--newest-execd" } }
  local started, child = pcall(process.start, {
    argv = sdk.argv, env = { OPEN_SANDBOX_DOMAIN = server.url, OPEN_SANDBOX_API_KEY = server.key },
  })
  if not started then
    server:stop()
    return report(sdk, "FAIL start: " .. child)
  end
  local before = failed
  local line, why = child:read_line(SILENCE)
  while line do
    report(sdk, line)
    line, why = child:read_line(SILENCE)
  end
  local status = why ~= "timeout" and child:wait(SILENCE)
  child:stop()
  server:stop()
  if status == 0 or (status and failed > before) then return end
  report(sdk, "FAIL end: " .. (status and ("status %d\n%s"):format(status, child:stderr_text()) or "it takes too long"))
end

for _, sdk in ipairs(sdks) do run(sdk) end

print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0 and passed > 0)

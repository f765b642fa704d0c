--- Speed and memory, beside other programs: run.lua [part ...]. Ours and the other take turns, 5 rounds each unless a part sets
--- otherwise; a bound is for the best of them.

local report = require("bench.report").new()
local programs = require "bench.programs"

local ROUNDS = tonumber(os.getenv "ROUNDS" or "") or 5
local PARTS = {
  "startup", "latency", "download", "upload", "stdin", "events", "reuse", "sandboxes", "directories", "tasks", "nginx", "clients",
  "terminal",
}

local function first_line(...)
  return (programs.run { ... })[1]
end

local function header()
  local lua = rawget(_G, "jit") and rawget(_G, "jit").version or _VERSION
  local curl = first_line("curl", "--version")
  print(("opensandbox %s, %s, %s"):format(require "opensandbox.version", lua, curl:match("libcurl/%S+")))
  local cores = first_line("getconf", "_NPROCESSORS_ONLN")
  print(("%s, %s cores; %s"):format(first_line("uname", "-srm"), cores, curl:match("^curl %S+")))
  print(("%d rounds where nothing else is said, ours and the other's taking turns; best and median of them"):format(ROUNDS))
end

local function chosen()
  local parts = #arg > 0 and arg or PARTS
  for _, name in ipairs(parts) do
    local known = false
    for _, part in ipairs(PARTS) do known = known or part == name end
    if not known then
      io.stderr:write(("there is no part '%s': choose from %s\n"):format(name, table.concat(PARTS, ", ")))
      os.exit(2)
    end
  end
  return parts
end

local parts = chosen()
header()
local url, server = programs.server()
local ok, problem = pcall(function()
  for _, name in ipairs(parts) do require("bench." .. name)(report, ROUNDS, url) end
end)
server:stop()
if not ok then error(problem, 0) end
os.exit(report:close() and 0 or 1)

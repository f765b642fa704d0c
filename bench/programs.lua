--- The programs of a benchmark: the server, our client, curl. Each measurement of ours is a process of its own, so that no peak of
--- memory and no open connection of one is found by the next.

local core = require "opensandbox.core"
local process = require "spec.support.process"
local uv = require "luv"

local programs = {}

local LONGEST = 120 -- seconds for one measurement
local MEMORY = "/dev/shm"

local function lines_of(child)
  local lines = {}
  while true do
    local line = child:read_line(LONGEST)
    if not line then return lines end
    lines[#lines + 1] = line
  end
end

-- Waits for a program that is to succeed. Gives its lines and how long it took, in seconds.
local function run(argv)
  local began = core.now()
  local child = process.start { argv = argv, env = process.module_paths() }
  local lines = lines_of(child)
  local code = child:wait(LONGEST)
  local seconds = core.now() - began
  child:stop()
  if code ~= 0 then
    error(("%s ended with %s\n%s"):format(table.concat(argv, " "), tostring(code), child:stderr_text()), 0)
  end
  return lines, seconds
end

programs.run = run

--- Starts the bench server. Gives its URL, and the process, to be stopped.
function programs.server()
  local child = process.start { argv = { "build/bench-server" } }
  local port = child:read_line()
  if not port then error("build/bench-server does not start: " .. child:stderr_text(), 0) end
  return "http://127.0.0.1:" .. port, child
end

--- Starts a development server whose files are in memory, where the system has a directory for that: ext4 makes files slowly for seconds
--- after many were removed, at the cost of the next program.
---@param grace number
---@return table server as of process.devserver
---@return string? directory in memory
function programs.devserver_in_memory(grace)
  local directory = uv.fs_access(MEMORY, "w") and MEMORY or nil
  return process.devserver { grace = grace, env = directory and { TMPDIR = directory } or nil }, directory
end

--- Runs a program that prints lines "name=value". Gives these figures by name.
function programs.figures(argv)
  local figures = {}
  for _, line in ipairs((run(argv))) do
    local name, value = line:match("^(%w+)=(.+)$")
    if name then figures[name] = tonumber(value) end
  end
  return figures
end

--- Does one work of bench/work.lua in a new process. Gives its figures by name.
function programs.ours(work, ...)
  return programs.figures { process.lua(), "bench/work.lua", work, ... }
end

--- Runs curl quietly. Returns the seconds of its one transfer, as curl reports them, and those of the whole process.
function programs.curl(...)
  local lines, seconds = run { "curl", "-sS", "--fail", "-w", "\n%{time_total}\n", ... }
  return tonumber(lines[#lines]), seconds
end

--- The same for a curl whose output another program reads.
function programs.curl_piped(address)
  local script = [[{ curl -sS --fail -w '%{stderr}\n%{time_total}\n' "$1" 2>&3 | cat > /dev/null; } 3>&1]]
  local lines = run { "sh", "-c", script, "sh", address }
  return tonumber(lines[#lines])
end

-- "0m1.230000s 0m0.020000s" -> 1.25
local function shell_seconds(line)
  local total = 0
  for minutes, seconds in line:gmatch("(%d+)m([%d.]+)s") do total = total + minutes * 60 + seconds end
  return total
end

--- The processor seconds, user and system, of a program: to 10 ms, as the shell reports them.
function programs.processor(argv)
  local lines = run { "sh", "-c", '"$@" || exit 1; times', "sh", (table.unpack or unpack)(argv) } -- luacheck: ignore 113 143
  return shell_seconds(lines[#lines])
end

--- The processor seconds of a curl run
function programs.curl_processor(...)
  return programs.processor { "curl", "-sS", "--fail", "-o", "/dev/null", ... }
end

return programs

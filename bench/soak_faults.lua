--- A soak with faults: soak_faults.lua [minutes], default 5. Tasks use sandboxes in every way, while the server is killed and comes back,
-- connections are cut, the server's disk is full, and this process has no descriptors left.
--
-- A call may fail, with an error that describes the failure. It must not return a wrong result, raise an error, or outlive its time limit.
-- At the end nothing may stay behind: no sandbox, process or descriptor, and no memory.

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"
local cutting_relay = require "spec.support.cutting_relay"
local new_random = require "spec.support.random"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local WORKERS = 8
local TIMEOUT = 10          -- seconds for each call
local TOLERANCE = 12         -- seconds by which a call may be late on a busy machine
local FAULT_INTERVAL = 3    -- seconds between two faults
local CUT_AFTER = { bytes = 2e6, ms = 2000 }
local DISK = "64m"
local SETTLE = 20           -- seconds for what runs in the background at the end
local MEMORY_BOUND = 4096   -- KiB

local minutes = tonumber(arg[1] or os.getenv("MINUTES") or "5")
if not minutes or minutes <= 0 then
  io.stderr:write("usage: soak_faults.lua [minutes]\n")
  os.exit(2)
end
local seed = tonumber(os.getenv("SEED")) or os.time()
local random = new_random(seed)
local counts, problems = { calls = 0, failed = 0, faults = {} }, {}
local kinds = {} -- of the errors, with their numbers

local function wrong(what, ...)
  problems[#problems + 1] = what:format(...)
  io.stderr:write("WRONG  ", problems[#problems], "\n")
end

-- Calls a function that returns a value, or nil and an error. Returns the value.
local function call(name, fn, ...)
  counts.calls = counts.calls + 1
  local began = core.now()
  local ok, value, err = pcall(fn, ...)
  local seconds = core.now() - began
  if seconds > TIMEOUT + TOLERANCE then wrong("%s took %.1f s", name, seconds) end
  if not ok then
    error(("%s raised %s"):format(name, tostring(value)), 0)
  end
  if value ~= nil then return value end
  counts.failed = counts.failed + 1
  if type(err) ~= "table" or not err.kind then
    wrong("%s failed without an error: %s", name, tostring(err))
  else
    if err.kind == "closed" then wrong("%s found something closed that nobody has closed: %s", name, tostring(err)) end
    local kind = err.kind .. "/" .. tostring(err.code or err.status or "-")
    kinds[kind] = (kinds[kind] or 0) + 1
  end
end

local function expect(name, value, expected)
  if value ~= nil and value ~= expected then wrong("%s gave %q, not %q", name, tostring(value):sub(1, 60), expected:sub(1, 60)) end
end

local function text(length)
  local bytes = {}
  for index = 1, length do bytes[index] = string.char(random(256) - 1) end
  return table.concat(bytes)
end

-- What is done with a sandbox. Each returns true while the sandbox can be used. On a full disk a command cannot write its output, and
-- reports that by its exit code.
local uses = {}

function uses.run(sandbox, word)
  local result = call("run", sandbox.run, sandbox, "echo " .. word .. " && exit 3", { timeout = TIMEOUT })
  if result and result.exit_code == 3 then expect("run", result.stdout, word .. "\n") end
  return result ~= nil
end

function uses.lines(sandbox)
  local result = call("run seq", sandbox.run, sandbox, "seq 5000", { timeout = TIMEOUT })
  if result and result.exit_code == 0 then
    local _, count = result.stdout:gsub("\n", "")
    if count ~= 5000 then wrong("5000 lines became %d", count) end
  end
  return result ~= nil
end

function uses.file(sandbox)
  local bytes, path = text(random(20000)), "/tmp/file" .. random(5)
  if not call("write", sandbox.files.write, sandbox.files, path, bytes, { timeout = TIMEOUT }) then return false end
  expect("read", call("read", sandbox.files.read, sandbox.files, path, { timeout = TIMEOUT }), bytes)
  return true
end

function uses.input(sandbox)
  local bytes = text(random(100000))
  local result = call("run with stdin", sandbox.run, sandbox, "cksum", { stdin = bytes, timeout = TIMEOUT })
  if result and result.exit_code == 0 and tonumber(result.stdout:match("^%d+ (%d+)")) ~= #bytes then
    wrong("the standard input of %d bytes became %q", #bytes, result.stdout)
  end
  return result ~= nil
end

function uses.session(sandbox, word)
  local session = call("session", sandbox.session, sandbox, { timeout = TIMEOUT })
  if not session then return false end
  if call("session:run", session.run, session, "export WORD=" .. word, { timeout = TIMEOUT }) then
    local result = call("session:run", session.run, session, "echo $WORD", { timeout = TIMEOUT })
    if result and result.exit_code == 0 then expect("session", result.stdout, word .. "\n") end
  end
  return call("session:close", session.close, session, { timeout = TIMEOUT }) ~= nil
end

function uses.terminal(sandbox, word)
  local terminal = call("terminal", sandbox.terminal, sandbox, { command = "echo " .. word .. "; exit 5", timeout = TIMEOUT })
  if not terminal then return false end
  local code = call("terminal:wait", terminal.wait, terminal, { timeout = TIMEOUT })
  if code and code ~= 5 then wrong("the terminal's exit code is %s", tostring(code)) end
  call("terminal:close", terminal.close, terminal, { timeout = TIMEOUT })
  return code ~= nil
end

-- Fills the disk for a moment.
function uses.fill(sandbox)
  counts.faults.disk = (counts.faults.disk or 0) + 1
  return call("run dd", sandbox.run, sandbox, "head -c 100000000 /dev/zero > /tmp/full; sleep 0.3; rm -f /tmp/full",
    { timeout = TIMEOUT }) ~= nil
end

local names = { "run", "lines", "file", "input", "session", "terminal" }

local function work(client, deadline)
  while core.now() < deadline do
    local sandbox = call("create", client.create, client, { image = "any", ready_timeout = TIMEOUT })
    local usable = sandbox ~= nil
    for _ = 1, 6 do
      local name = random(40) == 1 and "fill" or names[random(#names)]
      usable = usable and uses[name](sandbox, ("w%d"):format(random(1e6)))
    end
    if sandbox then call("kill", sandbox.kill, sandbox, { timeout = TIMEOUT }) end
    if not usable then opensandbox.sleep(0.1) end
  end
end

-- The server, in a file system of its own that is small, where that can be made; and in a process group that ends with it.
local server = { port = 0 } -- it gets the same port again

local function start_server(directory)
  local argv = { "--port", tostring(server.port), "--exit-with-stdin", "--key", "soak" }
  local lua, script = process.lua(), 'mount -t tmpfs -o size=' .. DISK .. ' tmpfs "$1" 2>/dev/null; shift; exec "$@"'
  local command = { "unshare", "--mount", "sh", "-c", script, "sh", directory, lua, "bin/opensandbox-devserver" }
  if uv.getuid() ~= 0 then command = { lua, "bin/opensandbox-devserver" } end
  for _, argument in ipairs(argv) do command[#command + 1] = argument end
  local env = process.module_paths()
  env.TMPDIR = directory
  server.child = process.start { argv = command, env = env }
  repeat
    local line = assert(server.child:read_line(10), server.child:stderr_text())
    server.port = tonumber(line:match("^export OPEN_SANDBOX_DOMAIN=.*:(%d+)")) or server.port
  until line:find("API_KEY", 1, true)
end

local faults = {}

function faults.server(directory)
  server.child:kill("sigkill")
  server.child:stop()
  opensandbox.sleep(random(10) / 10)
  start_server(directory)
end

-- Takes all descriptors of this process for a moment.
function faults.descriptors()
  local taken = {}
  while true do
    local fd = uv.fs_open("/dev/null", "r", 0)
    if not fd then break end
    taken[#taken + 1] = fd
  end
  opensandbox.sleep(0.2)
  for _, fd in ipairs(taken) do uv.fs_close(fd) end
end

local function disturb(directory, deadline)
  while core.now() + FAULT_INTERVAL < deadline do
    opensandbox.sleep(FAULT_INTERVAL)
    local name = random(3) == 1 and "server" or "descriptors"
    counts.faults[name] = (counts.faults[name] or 0) + 1
    faults[name](directory)
  end
end

local function look()
  collectgarbage()
  collectgarbage()
  return { descriptors = (process.descriptors()), memory = collectgarbage "count", resident = process.rss().current }
end

local function run(url, directory, seconds)
  local client, deadline = opensandbox.new(url, "soak", { timeout = TIMEOUT, create_timeout = TIMEOUT }), core.now() + seconds
  local tasks = { opensandbox.spawn(disturb, directory, deadline) }
  for _ = 1, WORKERS do tasks[#tasks + 1] = opensandbox.spawn(work, client, deadline) end
  for _, task in ipairs(tasks) do task:wait() end
  -- What could not be deleted while the server was away is deleted now.
  local left, err
  local settled = core.now() + SETTLE
  repeat
    opensandbox.sleep(0.5)
    left, err = client:list_sandboxes()
  until (left and #left == 0) or core.now() > settled
  if not left then wrong("the list of sandboxes: %s", tostring(err)) elseif #left > 0 then wrong("%d sandboxes stayed", #left) end
  client:close()
end

print(("seed %d, %g minutes"):format(seed, minutes))
local directory = temporary.directory()
start_server(directory)
local relay = cutting_relay.start {
  port = server.port, seed = seed, cuts = 1e9, bytes = CUT_AFTER.bytes, ms = CUT_AFTER.ms, all = true,
}
local url = ("http://127.0.0.1:%d"):format(relay.port)
run(url, directory, math.min(20, minutes * 60 / 4)) -- everything is loaded, and tables have their size
local before = look()
run(url, directory, minutes * 60)
local after = look()
local cuts = relay:cuts()
relay:stop()
server.child:stop()
temporary.remove(directory)
print(("%d calls, %d of them failed; %d connections cut, %d times no descriptors, %d servers killed, %d full disks"):format(
  counts.calls, counts.failed, cuts, counts.faults.descriptors or 0, counts.faults.server or 0, counts.faults.disk or 0))
for kind, count in pairs(kinds) do print(("  %6d  %s"):format(count, kind)) end
print(("descriptors %d -> %d; Lua memory %.0f -> %.0f KiB; resident %d -> %d KiB"):format(before.descriptors, after.descriptors,
  before.memory, after.memory, before.resident, after.resident))
if after.descriptors > before.descriptors then wrong("descriptors grew") end
if after.memory > before.memory + MEMORY_BOUND then wrong("Lua's memory grew") end
if after.resident > before.resident + 2 * MEMORY_BOUND then wrong("resident memory grew") end
print(#problems == 0 and "Nothing was wrong, and nothing stayed behind." or ("%d things were wrong"):format(#problems))
os.exit(#problems == 0 and 0 or 1)

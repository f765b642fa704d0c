--- Runs the scripts of this directory in the program of spec/c/torture.c: run.lua PROGRAM [RUNS [CORE_RUNS]]
--
-- RUNS are the runs of each kind of the whole library, CORE_RUNS those of the core and of the loop, evenly distributed over all
-- allocations; default: one for each allocation.

local fault_server = require "spec.support.fault_server"
local process = require "spec.support.process"
local temporary = require "spec.support.temporary"
local uv = require "luv"

local program, api_runs, core_runs = arg[1], tonumber(arg[2]), tonumber(arg[3])

local server = fault_server.start [[
  local bytes = {}
  for offset = 0, 699999 do bytes[offset + 1] = string.char((offset + math.floor(offset / 251)) % 251) end
  local body = table.concat(bytes)
  local events = {}
  for i = 1, 1500 do
    events[i] = ('{"type":"%s","text":"%s","timestamp":1}\n'):format(i % 2 == 0 and "stdout" or "init", ("e"):rep(i % 90))
  end
  events = table.concat(events)
  return function(request, connection)
    local path = request.path
    if path == "/hello" then
      connection:respond(200, { ["X-Test"] = "a" }, "hello")
    elseif path == "/body" then
      connection:respond(200, {}, body)
    elseif path == "/events" then
      connection:respond(200, {}, events)
    elseif path == "/echo" then
      connection:respond(200, {}, request.body)
    elseif path == "/count" then
      connection:respond(200, {}, tostring(#request.body))
    elseif path == "/slow" then
      connection:after(500, function() connection:respond(200, {}, "late") end)
    elseif path == "/websocket" then
      websocket.accept(request, connection, {
        with = websocket.frame("ping", "p"),
        on_frame = function(peer, frame)
          if frame.opcode == "binary" then peer:send("binary", frame.payload) end
        end,
      })
    elseif path == "/silence" then
      connection:silence()
    elseif path == "/cut" then
      connection:send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
      connection:close()
    elseif path == "/switch" then
      connection:send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nzzz")
      connection:close()
    elseif path == "/garbage" then
      connection:send("this is not HTTP at all\r\n\r\n")
      connection:close()
    end
  end
]]

local directory = temporary.directory()
local file = assert(io.open(directory .. "/upload", "wb"))
file:write(("x"):rep(100000))
file:close()

local failures = 0

-- Runs the program with options and arguments, and prints what it prints.
local function run(options, ...)
  local argv = { program }
  for _, option in ipairs(options) do argv[#argv + 1] = option end
  for _, argument in ipairs { ... } do argv[#argv + 1] = argument end
  local child = process.start { argv = argv, env = process.module_paths() }
  local line = child:read_line(7200)
  while line do
    print(line)
    io.stdout:flush()
    line = child:read_line(7200)
  end
  if child:wait(10) ~= 0 then
    failures = failures + 1
    io.write(child:stderr_text():sub(-4000))
  end
  child:stop()
end

-- Runs a script while allocations of each kind fail, alone and for good. Each run has `seconds`.
local function fail_allocations(seconds, runs, script, ...)
  for _, whose in ipairs { "--core", "--curl", "--lua" } do
    local options = { whose, "--seconds=" .. seconds, runs and "--runs=" .. runs or nil }
    run(options, script, ...)
    options[#options + 1] = "--for-good"
    run(options, script, ...)
  end
end

run({ "--seconds=60" }, "spec/torture/faults.lua", server.url)
fail_allocations(60, core_runs, "spec/torture/core.lua", server.url, directory)
server:stop()

-- The loop and the whole library, with a development server.
local devserver = process.devserver { grace = 0 }
assert(uv.fs_mkdir(directory .. "/tree", 448))
assert(uv.fs_mkdir(directory .. "/tree/sub", 448))
for _, name in ipairs { "one", "sub/two" } do
  file = assert(io.open(directory .. "/tree/" .. name, "wb"))
  file:write((name:match("[^/]*$")))
  file:close()
end
fail_allocations(60, core_runs, "spec/torture/loop.lua", devserver.url, devserver.key)
fail_allocations(120, api_runs, "spec/torture/api.lua", devserver.url, devserver.key, directory)
devserver:stop()
temporary.remove(directory)
print(failures == 0 and "torture: all is well" or ("torture: %d kinds of runs went wrong"):format(failures))
os.exit(failures == 0 and 0 or 1)

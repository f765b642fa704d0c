--- One spec file in a process of its own, with all that it starts in one process group.

local temporary = require "spec.support.temporary"
local uv = require "luv"

local FileProcess = {}
FileProcess.__index = FileProcess

local GRACE_PERIOD = 3 -- seconds: between SIGTERM, at which servers clean up, and SIGKILL; and for what still runs when busted has exited
local POLL_INTERVAL = 20 -- milliseconds

local function read_all(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a") or ""
  if file then file:close() end
  return text
end

local function environment(changes)
  local variables, list = uv.os_environ(), {}
  for name, value in pairs(changes) do variables[name] = value end
  for name, value in pairs(variables) do list[#list + 1] = name .. "=" .. value end
  return list
end

-- The command lines of the living processes of a group; nil where the kernel does not list them.
local function members(group)
  local entries, list = uv.fs_scandir("/proc"), {}
  while entries do
    local pid = uv.fs_scandir_next(entries)
    if not pid then return list end
    -- The command's name, in parentheses, may itself hold spaces and parentheses.
    local state, of = (pid:find("^%d+$") and read_all("/proc/" .. pid .. "/stat") or ""):match("^.*%) (%S) %d+ (%d+)")
    if tonumber(of) == group and state ~= "Z" then
      list[#list + 1] = pid .. " " .. read_all("/proc/" .. pid .. "/cmdline"):gsub("%z", " ")
    end
  end
end

--- Counts the events that reporter.lua wrote.
--- @return table `success`, `failure`, `error`, `reasons` (of pending tests), `running` (the name of a test that did not end), `ended`
local function count(events)
  local counts = { success = 0, failure = 0, error = 0, pending = 0, reasons = {}, ended = false }
  for event, text in events:gmatch("(%l+) ([^\n]*)\n") do
    if event == "start" then
      counts.running = text
    elseif event == "end" then
      counts.ended = true
    else
      counts[event] = counts[event] + 1
      counts.running = nil
      if event == "pending" then counts.reasons[#counts.reasons + 1] = text end
    end
  end
  return counts
end

--- Starts busted on a file.
--- @param run table as selection.lua makes it: `file`, `name`, `options` (of busted)
--- @param options table `command` (the program and its arguments before all others), `directory` (of its own, for its output, its events and
--- its TMPDIR), `limit` (seconds), `preload` (a library that must be loaded first, or nil)
--- @param on_exit fun(result: table) called once with `run`, `seconds`, `success`, `failure`, `error`, `pending`, `reasons`, `output`
function FileProcess.start(run, options, on_exit)
  local directory = options.directory
  assert(uv.fs_mkdir(directory, 448)) -- 0700
  assert(uv.fs_mkdir(directory .. "/tmp", 448))
  local self = setmetatable({
    run = run, directory = directory, limit = options.limit, on_exit = on_exit, began = uv.hrtime(),
    timer = uv.new_timer(), -- first of the limit, then of the grace period
  }, FileProcess)
  local arguments = {}
  for i = 2, #options.command do arguments[i - 1] = options.command[i] end
  for _, option in ipairs(run.options) do arguments[#arguments + 1] = option end
  arguments[#arguments + 1] = run.file
  local output = assert(uv.fs_open(directory .. "/output", "w", 384))
  local handle, pid = uv.spawn(options.command[1], {
    args = arguments, stdio = { nil, output, output }, detached = true,
    env = environment {
      OPENSANDBOX_TEST_EVENTS = directory .. "/events", TMPDIR = directory .. "/tmp", LD_PRELOAD = options.preload,
    },
  }, function(code, signal) self:exited(code, signal) end)
  uv.fs_close(output)
  if not handle then
    self.timer:close()
    error(("%s cannot be started: %s"):format(options.command[1], pid))
  end
  self.handle, self.pid = handle, pid
  self.timer:start(options.limit * 1000, 0, function()
    self.expired = true
    self:stop()
  end)
  return self
end

--- Stops the process and all that it started, unless that left the process group.
function FileProcess:stop()
  uv.kill(-self.pid, "sigterm")
  self.timer:start(GRACE_PERIOD * 1000, 0, function() uv.kill(-self.pid, "sigkill") end)
end

-- What went wrong with the process itself, or nil.
function FileProcess:fault(counts, code, signal)
  local during = counts.running and (" in the test %q"):format(counts.running) or ""
  if self.expired then return ("It was stopped after %g s%s."):format(self.limit, during) end
  if signal ~= 0 then return ("It was killed by signal %d%s."):format(signal, during) end
  if not counts.ended then return ("It exited with code %d before its tests were over%s."):format(code, during) end
  if code ~= 0 and counts.failure + counts.error == 0 then return ("It exited with code %d, and no test failed."):format(code) end
end

function FileProcess:exited(code, signal)
  self.handle:close()
  local result = count(read_all(self.directory .. "/events"))
  result.run, result.seconds = self.run, (uv.hrtime() - self.began) / 1e9
  local fault = self:fault(result, code, signal)
  if signal ~= 0 then uv.kill(-self.pid, "sigterm") end -- for processes that it would have stopped
  local deadline = uv.hrtime() + GRACE_PERIOD * 1e9
  self.timer:start(0, POLL_INTERVAL, function()
    local left = uv.kill(-self.pid, 0) == 0 and members(self.pid) or {}
    if #left > 0 and uv.hrtime() < deadline then return end
    if #left > 0 then
      uv.kill(-self.pid, "sigkill")
      fault = fault or "It left processes running:\n" .. table.concat(left, "\n")
    end
    self.timer:close()
    self:report(result, fault)
  end)
end

function FileProcess:report(result, fault)
  local names = temporary.names(self.directory .. "/tmp")
  if not fault and #names > 0 then fault = "It left in its TMPDIR: " .. table.concat(names, " ") end
  result.output = read_all(self.directory .. "/output")
  if fault then
    result.error = result.error + 1
    result.output = ("%s\nError -> %s\n%s\n"):format(result.output, self.run.file, fault)
  end
  temporary.remove(self.directory)
  self.on_exit(result)
end

return FileProcess

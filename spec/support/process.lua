--- Child processes for tests: start one, read its lines, stop it for certain.
--
-- A child's standard input is a pipe that only the test process holds. Programs started here are expected to end when
-- it ends, so that none of them outlives a test run that crashed. Standard error goes to an unlinked file instead of a
-- pipe, so that a child with much output never blocks.

local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"
local procfs = require "spec.support.procfs"

local process = {
  descriptors = procfs.descriptors,
  children = procfs.children,
  running = procfs.running,
  rss = procfs.rss,
}

local Child = {}
Child.__index = Child

--- The command of the Lua that runs the tests, for starting children with the same one.
function process.lua()
  local named = os.getenv("OPENSANDBOX_TEST_LUA") or os.getenv("LUA")
  if named and named ~= "" then return named end
  local arguments, lowest = rawget(_G, "arg"), 0
  if type(arguments) == "table" then
    while arguments[lowest - 1] do lowest = lowest - 1 end
    if lowest < 0 then return arguments[lowest] end
  end
  return uv.exepath()
end

-- The parent's environment with the changes on top: a string sets a variable, false removes it.
local function environment(changes)
  local variables = uv.os_environ()
  for name, value in pairs(changes or {}) do variables[name] = value or nil end
  local list = {}
  for name, value in pairs(variables) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function unnamed_file()
  local directory = os.getenv("TMPDIR") or "/tmp"
  local fd, path = uv.fs_mkstemp(directory .. "/opensandbox-test-XXXXXX")
  if not fd then error("cannot make a temporary file: " .. tostring(path), 3) end
  uv.fs_unlink(path)
  return fd
end

--- Starts a program.
-- @param options `argv` (array; the first is the program, looked up in PATH), `env` (changes to the inherited
-- environment), `cwd`
-- @return the child; raises when the program cannot be started
function process.start(options)
  local stdin, stdout = uv.new_pipe(false), uv.new_pipe(false)
  local stderr = unnamed_file()
  local child = setmetatable({ stdin = stdin, stdout = stdout, stderr = stderr, buffer = "" }, Child)
  local args = {}
  for index = 2, #options.argv do args[index - 1] = options.argv[index] end
  local handle, pid = uv.spawn(options.argv[1], {
    args = args, stdio = { stdin, stdout, stderr }, env = environment(options.env), cwd = options.cwd,
  }, function(code, signal)
    child.code, child.signal = code, signal
  end)
  if not handle then
    uv_loop.close(stdin, stdout)
    uv.fs_close(stderr)
    error(("cannot start %s: %s"):format(options.argv[1], tostring(pid)), 2)
  end
  child.handle, child.pid = handle, pid
  stdout:read_start(function(problem, data)
    if data then
      child.buffer = child.buffer .. data
    else
      child.ended = problem or "end of output"
    end
  end)
  return child
end

--- The next line of the child's standard output without its newline.
-- @treturn[2] nil
-- @treturn[2] string "timeout" or why there will be no further line
function Child:read_line(timeout)
  if not self.handle then return nil, "stopped" end
  uv_loop.wait(function() return self.buffer:find("\n", 1, true) or self.ended end, timeout or 10)
  local line, rest = self.buffer:match("^([^\n]*)\n(.*)$")
  if line then
    self.buffer = rest
    return line
  elseif not self.ended then
    return nil, "timeout"
  elseif self.buffer ~= "" then
    line, self.buffer = self.buffer, ""
    return line
  end
  return nil, self.ended
end

--- Returns the unread bytes of the child's standard output.
function Child:output()
  local text = self.buffer
  self.buffer = ""
  return text
end

--- Writes to the child's standard input and waits until it is written.
function Child:write(text, timeout)
  if not self.handle then return nil, "stopped" end
  local written, problem = false, nil
  uv_loop.wait(function() return written end, timeout or 10, function()
    self.stdin:write(text, function(failed) written, problem = true, failed end)
  end)
  if not written or problem then return nil, problem or "timeout" end
  return true
end

--- Ends the child's standard input.
function Child:close_input()
  uv_loop.close(self.stdin)
end

--- What the child has written on its standard error so far.
function Child:stderr_text()
  if not self.stderr then return self.errors or "" end
  local parts, offset = {}, 0
  while true do
    local data = uv.fs_read(self.stderr, 65536, offset)
    if not data or data == "" then break end
    parts[#parts + 1], offset = data, offset + #data
  end
  return table.concat(parts)
end

--- Sends a signal ("sigterm", "sigkill", ... or a number) to the child.
function Child:kill(signal)
  if not self.handle or self.code then return nil, "not running" end
  return self.handle:kill(signal)
end

--- Returns whether the child still runs.
function Child:running()
  if self.handle and not self.code then uv.run("nowait") end
  return self.code == nil
end

--- Waits until the child has exited and all its output has been read.
-- @treturn[1] number exit code
-- @treturn[1] number signal, 0 for none
-- @treturn[2] nil
-- @treturn[2] string "timeout"
function Child:wait(timeout)
  if not uv_loop.wait(function() return self.code end, timeout or 10) then return nil, "timeout" end
  -- A grandchild may hold the pipe open for ever, so the rest of the output gets a moment only.
  if self.handle then uv_loop.wait(function() return self.ended end, 0.2) end
  return self.code, self.signal
end

--- Makes the child exit: end of input, then SIGTERM, then SIGKILL; returns when it has exited.
-- @treturn number exit code
-- @treturn number signal, 0 for none
function Child:stop()
  if self.handle then
    uv_loop.close(self.stdin)
    if not self:wait(1.5) then
      self:kill("sigterm")
      if not self:wait(1.5) then
        self:kill("sigkill")
        self:wait(10)
      end
    end
    self.errors = self:stderr_text()
    uv_loop.close(self.stdout, self.handle)
    uv.fs_close(self.stderr)
    self.handle, self.stderr, self.ended = nil, nil, self.ended or "stopped"
  end
  return self.code, self.signal
end

--- Runs a program to its end, with an empty standard input.
-- @param options as for `process.start`
-- @param seconds how long it may take; then it is stopped
-- @treturn[1] number exit code, nil when it was stopped
-- @treturn string its standard output
-- @treturn string its standard error
function process.run(options, seconds)
  local child = process.start(options)
  child:close_input()
  local code = child:wait(seconds)
  local output, errors = child:output(), child:stderr_text()
  child:stop()
  return code, output, errors
end

--- The environment that gives a child written in Lua the module paths of this process, however they were set here, and what
-- must be loaded before a core built with sanitizers.
function process.module_paths()
  return { LUA_PATH = package.path, LUA_CPATH = package.cpath, LD_PRELOAD = os.getenv("OPENSANDBOX_TEST_PRELOAD") }
end

--- Starts the development server on a free port.
-- @param options `grace` (seconds a command's stream stays open after its end), `isolation` (default: what the variable
-- OPENSANDBOX_TEST_ISOLATION names, if anything), `args` (further arguments), `env`, `timeout`
-- @return `url`, `key`, `pid`, `child` and the method `stop`
function process.devserver(options)
  options = options or {}
  local argv = { process.lua(), "bin/opensandbox-devserver", "--port", "0", "--exit-with-stdin" }
  if options.grace then
    argv[#argv + 1] = "--grace"
    argv[#argv + 1] = tostring(options.grace)
  end
  local isolation = options.isolation or os.getenv("OPENSANDBOX_TEST_ISOLATION")
  if isolation then
    argv[#argv + 1] = "--isolation"
    argv[#argv + 1] = isolation
  end
  for _, argument in ipairs(options.args or {}) do argv[#argv + 1] = argument end
  local env = process.module_paths()
  for name, value in pairs(options.env or {}) do env[name] = value end
  local child = process.start { argv = argv, env = env }
  local server = { child = child, pid = child.pid }
  while not (server.url and server.key) do
    local line, problem = child:read_line(options.timeout or 10)
    if not line then
      child:stop()
      error(("the development server did not start: %s\n%s"):format(problem, child:stderr_text()), 2)
    end
    server.url = server.url or line:match("^export OPEN_SANDBOX_DOMAIN=(%S+)$")
    server.key = server.key or line:match("^export OPEN_SANDBOX_API_KEY=(%S+)$")
  end
  function server.stop(self) return self.child:stop() end
  return server
end

--- Starts a development server that isolates its sandboxes with bubblewrap.
-- @tparam[opt] table options as for `process.devserver`
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string why bubblewrap does not work here
function process.isolated_devserver(options)
  local ok, result = pcall(process.devserver, {
    grace = options and options.grace, isolation = "bwrap", args = options and options.args,
  })
  if ok then return result end
  local reason = result:match("isolation with bubblewrap does not work here[^\n]*")
  if reason then return nil, reason end
  error(result, 2)
end

return process

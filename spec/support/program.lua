--- The program `opensandbox` in a process of its own: with pipes, or in a pseudo-terminal.

local core = require "opensandbox.core"
local process = require "spec.support.process"
local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local program = {}

local TIMEOUT = 30 -- seconds

local function copy_into(target, source)
  for name, value in pairs(source or {}) do target[name] = value end
  return target
end

-- The environment of the program: a server, and nothing of this process that changes the output.
local function environment(server, changes)
  local env = process.module_paths()
  env.OPEN_SANDBOX_DOMAIN, env.OPEN_SANDBOX_API_KEY = server and server.url or false, server and server.key or false
  env.OPEN_SANDBOX_PROTOCOL, env.NO_COLOR, env.COLUMNS, env.TERM = false, false, false, "xterm"
  return copy_into(env, changes)
end

-- The same as luv takes it: all variables, as a list.
local function variables_of(server, changes)
  local variables, list = uv.os_environ(), {}
  for name, value in pairs(environment(server, changes)) do variables[name] = value or nil end
  for name, value in pairs(variables) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function argv_of(arguments, preload)
  local argv = { process.lua(), "bin/opensandbox" }
  if preload then argv = { process.lua(), "-e", preload, "bin/opensandbox" } end
  for _, argument in ipairs(arguments) do argv[#argv + 1] = argument end
  return argv
end

--- Starts it with pipes. Its standard input stays open.
-- @param server of process.devserver, or nil
-- @param arguments
-- @param env changes
-- @return a child of process.start
function program.start(server, arguments, env)
  return process.start { argv = argv_of(arguments), env = environment(server, env) }
end

--- Runs it to its end.
-- @param options `stdin` (a text, default none), `env` (changes)
-- @return { code, signal, out, err }
function program.run(server, arguments, options)
  options = options or {}
  local child = program.start(server, arguments, options.env)
  if options.stdin then assert(child:write(options.stdin)) end
  child:close_input()
  local code, signal = child:wait(TIMEOUT)
  local result = { code = code, signal = signal, out = child:output(), err = child:stderr_text() }
  child:stop()
  assert(code, ("opensandbox %s does not end: %s%s"):format(table.concat(arguments, " "), result.out, result.err))
  return result
end

--- Runs it, and expects the exit code 0.
-- @return its output
function program.check(server, arguments, options)
  local result = program.run(server, arguments, options)
  if result.code ~= 0 then
    error(("opensandbox %s: exit code %d, %s%s"):format(table.concat(arguments, " "), result.code, result.out, result.err), 2)
  end
  return result.out
end

--- Runs it with a standard output whose reader has closed it.
-- @return { code, signal, err }
function program.run_unread(server, arguments, env)
  local ends = assert(uv.pipe({}, {}))
  uv.fs_close(ends.read)
  local errors = uv.new_pipe(false)
  local argv, result, args = argv_of(arguments), { err = "" }, {}
  for index = 2, #argv do args[index - 1] = argv[index] end
  local options = { args = args, stdio = { nil, ends.write, errors }, env = variables_of(server, env) }
  local handle, problem = uv.spawn(argv[1], options, function(code, signal) result.code, result.signal = code, signal end)
  assert(handle, problem)
  uv.fs_close(ends.write)
  local ended = false
  errors:read_start(function(_, data)
    result.err, ended = result.err .. (data or ""), not data
  end)
  local has_ended = uv_loop.wait(function() return ended and result.code end, TIMEOUT)
  if not has_ended then handle:kill("sigkill") end
  uv_loop.close(handle, errors)
  assert(has_ended, ("opensandbox %s does not end"):format(table.concat(arguments, " ")))
  return result
end

local Terminal = {}
Terminal.__index = Terminal

--- Starts it, or another program, in a pseudo-terminal, which is its controlling terminal.
-- @param server of process.devserver, or nil
-- @param arguments of opensandbox; nil for another program
-- @param options `columns` (80), `rows` (24), `env` (changes), `preload` (a chunk that runs before it), `argv` (of another program)
-- @return an object with the methods below
function program.terminal(server, arguments, options)
  options = options or {}
  local master, slave = core.open_pty("/dev/ptmx")
  assert(master, slave)
  core.resize_pty(master, options.columns or 80, options.rows or 24)
  local self = setmetatable({ master = master, slave = slave, text = "" }, Terminal)
  local args = { "-c" }
  for _, argument in ipairs(options.argv or argv_of(arguments, options.preload)) do args[#args + 1] = argument end
  local spawn_options = { args = args, stdio = { slave, slave, slave }, env = variables_of(server, options.env) }
  self.handle, self.pid = uv.spawn("setsid", spawn_options, function(code, signal) self.code, self.signal = code, signal end)
  assert(self.handle, self.pid)
  self.pipe = uv.new_pipe(false)
  assert(self.pipe:open(master))
  self.pipe:read_start(function(_, data) self.text = self.text .. (data or "") end)
  return self
end

--- Types a text.
function Terminal:write(text)
  assert(uv.fs_write(self.master, text))
end

--- Changes the size of the window.
function Terminal:resize(columns, rows)
  core.resize_pty(self.master, columns, rows)
end

--- Waits until the screen's text contains another one.
function Terminal:expect(text)
  if uv_loop.wait(function() return self.text:find(text, 1, true) end, TIMEOUT) then return end
  error(("%q was not shown: %s"):format(text, self.text), 2)
end

--- Waits for the end.
-- @return code, signal, text
function Terminal:wait()
  assert(uv_loop.wait(function() return self.code end, TIMEOUT), "the program does not end: " .. self.text)
  uv_loop.sleep(0.05) -- for bytes that the kernel still holds
  return self.code, self.signal, self.text
end

--- Returns the attributes of the terminal as stty prints them.
function Terminal:attributes()
  local pipe = uv.new_pipe(false)
  local text, ended = "", false
  local handle = uv.spawn("stty", { args = { "-a" }, stdio = { self.slave, pipe, nil } }, function() ended = true end)
  pipe:read_start(function(_, data) text = text .. (data or "") end)
  assert(uv_loop.wait(function() return ended end, TIMEOUT))
  uv_loop.sleep(0.02)
  uv_loop.close(handle, pipe)
  return text
end

function Terminal:close()
  if not self.code then
    self.handle:kill("sigkill")
    uv_loop.wait(function() return self.code end, TIMEOUT)
  end
  uv_loop.close(self.handle, self.pipe)
  uv.fs_close(self.slave)
end

return program

--- A terminal of a sandbox: `sandbox:terminal()`.
--
-- A terminal survives connections that are cut: it attaches again by itself, without a byte of output lost or doubled, and without starting
-- its command twice. Its exit code and all its output arrive, to the last byte.

local child_resource = require "opensandbox.child_resource"
local class = require "opensandbox.base.class"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local random = require "opensandbox.base.random"
local run_command = require "opensandbox.execution.run_command"
local tables = require "opensandbox.base.tables"
local task = require "opensandbox.loop.task"
local terminal_script = require "opensandbox.execution.terminal_script"
local terminal_stream = require "opensandbox.execution.terminal_stream"

--- A terminal of a sandbox: a command or a shell at a pseudo-terminal.
--- ```lua
--- local terminal = assert(sandbox:terminal { command = "top" })
--- print(terminal.id, terminal.session_id)
--- ```
---@class opensandbox.Terminal: opensandbox.ChildResource
---@field id string sandbox:terminal { id = } attaches to it, in any process
---@field session_id string execd's id of the session, for the client's methods
local Terminal = child_resource.class { __name = "opensandbox.Terminal", _op_prefix = "terminal", _noun = "terminal",
  _delete = "delete_pty_session", _id_field = "session_id" }

local terminals = {}

local COLS, ROWS, TERM = 80, 24, "xterm-256color"
local MAX_SIZE = 65535
local SIGNALS = { SIGINT = true, SIGTERM = true, SIGKILL = true, SIGQUIT = true, SIGHUP = true }
local INTERRUPT = "\3"    -- Ctrl-C
local TOKEN_LENGTH = 12   -- bytes

--- The options of `sandbox:terminal`.
--- ```lua
--- local terminal = assert(sandbox:terminal {
---   command = "bash", cwd = "/work", env = { EDITOR = "vi" }, term = "xterm-256color", cols = 120, rows = 40,
---   on_output = io.write, timeout = 10,
--- })
--- local again = assert(sandbox:terminal { id = terminal.id, since = 0, takeover = true })
--- ```
---@class opensandbox.TerminalOpts
---@field command? string|string[] as for run; default: an interactive shell
---@field cwd? string a directory, which is created if it is missing
---@field env? table<string, string> environment variables, in addition to the sandbox's
---@field term? string the type of the terminal, which its programs see as TERM; default "xterm-256color"
---@field cols? integer its width in characters, default 80
---@field rows? integer its height in lines, default 24
---@field on_output? fun(bytes: string) called with output as it arrives; `read` and `output` are not available then
---@field timeout? opensandbox.Duration until it is connected, default: the client's
---@field id? string of an existing terminal, which is attached to and not deleted; or execd's id of a session of another program
---@field since? integer attaching: the offset of the first byte of output to receive, as `detach` returns it; default: the oldest one that execd has, which is a mebibyte back
---@field takeover? boolean attaching: disconnect another client

local terminal_options = {
  command = "any", cwd = "nonempty string", env = "environment", term = "nonempty string", cols = "natural", rows = "natural",
  on_output = "function", timeout = "seconds", id = "nonempty string", since = "natural", takeover = "boolean",
}

local function check_size(op, cols, rows)
  for name, value in pairs { cols = cols, rows = rows } do
    if value < 1 or value > MAX_SIZE then options.raise(op, ("'%s' must be between 1 and %d"):format(name, MAX_SIZE)) end
  end
end

-- A task: calls the user's on_output with all output. If that raises an error, the terminal is disconnected.
local function deliver(stream, on_output)
  while true do
    local bytes = stream:read("terminal:on_output", { passive = true })
    if not bytes then return end -- the code that waits for the terminal receives the stream's error
    local ok, problem = coxpcall.pcall(on_output, bytes)
    if not ok then
      stream:close()
      error(problem, 0)
    end
  end
end

-- Connects an object to its session.
local function connect(self, op, opts, limit, stream_options)
  local sandbox, client = self.sandbox, self.client
  stream_options = tables.merge(stream_options, {
    client = client, sandbox_id = sandbox.id, id = self.session_id,
    endpoint = function(called) return sandbox:execd_endpoint(called) end,
  })
  local resource, session_id = self._resource, self.session_id
  function stream_options.on_exit()
    if resource then return resource:delete() end
    local execd = stream_options.token and sandbox:known_execd()
    if execd then client.http:send_detached(client:delete_pty_session_request(execd, session_id), true) end
  end
  local stream = terminal_stream.new(stream_options)
  self._stream = stream
  self._stream_finalizer = finalizer(function() stream:close_in_background() end)
  local ok, err = stream:open(op, limit.seconds and limit or deadline.new(client.http.timeouts.timeout))
  if not ok then
    stream:close()
    if resource then resource:delete() end
    self._closed = true
    return nil, err
  end
  if opts.on_output then
    local on_output = opts.on_output
    self._delivery = task.spawn(function() return deliver(stream, on_output) end)
  end
  return self
end

local function create(sandbox, op, opts)
  local line = opts.command and run_command.line(op, opts.command)
  local token = random.hex(TOKEN_LENGTH)
  local cols, rows = opts.cols or COLS, opts.rows or ROWS
  check_size(op, cols, rows)
  local command = terminal_script.command { token = token, command = line, cols = cols, rows = rows,
    env = tables.merge({ TERM = opts.term or TERM }, opts.env) }
  local limit = deadline.new(opts.timeout)
  local self, err = child_resource.create(Terminal, sandbox, op, opts, "create_pty_session", { cwd = opts.cwd, command = command })
  if not self then return nil, err end
  self.session_id = self.id
  self.id = self.session_id .. "." .. token
  return connect(self, op, opts, limit, { token = token, fresh = true, size = { cols = cols, rows = rows } })
end

local function attach(sandbox, op, opts)
  for _, name in ipairs { "command", "cwd", "env", "term" } do
    if opts[name] then
      options.raise(op, ("option '%s' is for a new terminal, and option 'id' for an existing one"):format(name))
    end
  end
  if (opts.cols == nil) ~= (opts.rows == nil) then options.raise(op, "options 'cols' and 'rows' go together") end
  if opts.cols then check_size(op, opts.cols, opts.rows) end
  local session_id, token = opts.id:match("^(.+)%.(%x+)$")
  local self = child_resource.attach(Terminal, sandbox, { id = opts.id,
    session_id = options.proxy_safe_segment(op, "option 'id'", session_id or opts.id, "it is no id of a terminal") })
  return connect(self, op, opts, deadline.new(opts.timeout), { token = token, since = opts.since, takeover = opts.takeover,
    size = opts.cols and { cols = opts.cols, rows = opts.rows } })
end

--- Creates a terminal of a sandbox, or attaches to one: POST /pty of execd.
---@param sandbox opensandbox.Sandbox
---@param opts? opensandbox.TerminalOpts
---@return opensandbox.Terminal? terminal
---@return opensandbox.Error? err
function terminals.open(sandbox, opts)
  local op = "sandbox:terminal"
  opts = options.check(op, opts, terminal_options)
  paths.check_directory(op, opts.cwd)
  if opts.id then return attach(sandbox, op, opts) end
  if opts.since or opts.takeover ~= nil then options.raise(op, "options 'since' and 'takeover' need option 'id'") end
  return create(sandbox, op, opts)
end

local function check_no_callback(self, op)
  if self._delivery then options.raise(op, "the output goes to on_output") end
end

--- Waits for output and returns all that has arrived.
--- ```lua
--- local bytes, err = terminal:read(5)
--- ```
---@param seconds? number how long to wait at most; 0: not at all; default: until there is output
---@return string? bytes nil after the last one
---@return opensandbox.Error? err kind `timeout` when no output came in time
function Terminal:read(seconds)
  local op = "terminal:read"
  check_no_callback(self, op)
  if seconds ~= nil then seconds = options.argument(op, "the time", seconds, "seconds or 0") end
  local bytes, err, timed_out = self._stream:read(op, { limit = deadline.new(seconds, "seconds") })
  if not timed_out then return bytes, err end
  return nil, errors.timeout { op = op, code = "timeout", option = "seconds", seconds = seconds, text = "no output came",
    hint = "It continues: read again", sandbox_id = self.sandbox.id }
end

--- The output of a terminal, piece by piece.
--- ```lua
--- for bytes in terminal:output() do io.write(bytes) end
--- ```
---@class opensandbox.TerminalOutputs
local Outputs = {}
Outputs.__index = Outputs

--- Waits for the next output and returns it.
--- ```lua
--- local outputs = terminal:output()
--- local bytes = outputs:next()
--- ```
---@return string? bytes nil after the last one
---@return opensandbox.Error? err
function Outputs:next()
  local bytes, err = self._stream:read("terminal:output", {})
  return bytes, err
end

-- For `for bytes in terminal:output() do`. An error is raised, because a loop would hide it.
function Outputs:__call()
  local bytes, err = self:next()
  if err then error(err, 0) end
  return bytes
end

--- Iterates over the output as it arrives, to the last byte. Use the result in a `for` loop, or call its method `next`.
--- ```lua
--- for bytes in terminal:output() do io.write(bytes) end
--- ```
---@return opensandbox.TerminalOutputs
function Terminal:output()
  check_no_callback(self, "terminal:output")
  return setmetatable({ _stream = self._stream }, Outputs)
end

--- Sends input, as from a keyboard: "\r" is the Enter key, and "\4" at the beginning of a line (Ctrl-D) ends the input of a program that
--- reads lines. For input of any bytes with an end, use the option `stdin` of run or start. Waits only while the terminal does not take it. Input is sent once: an error of
--- code `input_unsure`, of this or a later call, reports input that may not have arrived because a connection was cut. The terminal continues
--- after each error whose `terminal_continues` is true.
--- ```lua
--- assert(terminal:write "ls\r")
--- ```
---@param bytes string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err
function Terminal:write(bytes, opts)
  local op = "terminal:write"
  options.argument(op, "the input", bytes, "string")
  opts = options.check(op, opts, { timeout = "seconds" })
  return self._stream:write(op, { limit = deadline.new(opts.timeout), needs_room = true }, bytes)
end

--- Changes its size. Its programs receive SIGWINCH.
--- ```lua
--- assert(terminal:resize(100, 30))
--- ```
---@param cols integer
---@param rows integer
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err
function Terminal:resize(cols, rows, opts)
  local op = "terminal:resize"
  options.argument(op, "the width", cols, "natural")
  options.argument(op, "the height", rows, "natural")
  check_size(op, cols, rows)
  local limit = deadline.new(options.timeout(op, opts))
  return self._stream:send_frame(op, { limit = limit, needs_room = true }, { type = "resize", cols = cols, rows = rows })
end

--- Sends a signal to the processes of its command. The jobs of an interactive shell do not receive it: see interrupt.
--- ```lua
--- assert(terminal:signal "SIGTERM")
--- ```
---@param name string "SIGINT", "SIGTERM", "SIGKILL", "SIGQUIT" or "SIGHUP"
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err
function Terminal:signal(name, opts)
  local op = "terminal:signal"
  if not SIGNALS[name] then
    options.raise(op, "the signal must be SIGINT, SIGTERM, SIGKILL, SIGQUIT or SIGHUP, not " .. tostring(name))
  end
  local limit = deadline.new(options.timeout(op, opts))
  return self._stream:send_frame(op, { limit = limit, needs_room = true }, { type = "signal", signal = name })
end

--- Interrupts the foreground job, as Ctrl-C does.
--- ```lua
--- assert(terminal:interrupt())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err
function Terminal:interrupt(opts)
  local op = "terminal:interrupt"
  return self._stream:write(op, { limit = deadline.new(options.timeout(op, opts)), needs_room = true }, INTERRUPT)
end

local wait_options = { timeout = "seconds" }

--- Waits until its command has ended, and on_output has been called with all output. An error that on_output raised is raised again. A
--- mebibyte of output waits to be read afterwards; of a command with more output, another task must read. Call it again after an error whose
--- `terminal_continues` is true: something was lost, but the command runs.
--- ```lua
--- local exit_code, err
--- repeat exit_code, err = terminal:wait { timeout = "10m" } until exit_code or not err.terminal_continues
--- print(exit_code, err)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return integer? exit_code 128 and the number of a signal that ended it; -1 when its shell was killed
---@return opensandbox.Error? err kind `timeout`, code `wait_timeout` when it has not ended in time
function Terminal:wait(opts)
  local op = "terminal:wait"
  opts = options.check(op, opts, wait_options)
  local stream, delivery, limit = self._stream, self._delivery, deadline.new(opts.timeout)
  if delivery and delivery:is_current() then
    options.raise(op, "on_output cannot wait for the end, which comes after it has returned for the last time")
  end
  local text = "the terminal's command has not ended"
  local code, err = stream:wait_until(op, { limit = limit, needs_room = not delivery }, function()
    return stream.exit_code
  end)
  if delivery and (code or stream.failure) then
    local _, problem = delivery:wait { timeout = limit:remaining() }
    if problem and problem.kind == "timeout" then
      code, text = nil, "on_output has not returned for the last time"
    elseif problem then
      problem.op = op
      return nil, problem
    end
  end
  if code then return code end
  if err then return nil, err end
  return nil, errors.timeout { op = op, code = "wait_timeout", option = "timeout", seconds = opts.timeout,
    text = text, hint = "It continues: wait again, or close the terminal",
    sandbox_id = self.sandbox.id }
end

--- Disconnects and lets the terminal continue. This object is closed then, unless the command has ended, so that nothing continues.
--- ```lua
--- local opts = assert(terminal:detach())
--- local same = assert(sandbox:terminal(opts)) -- in this or another process
--- ```
---@return { id: string, since: integer }? opts for sandbox:terminal, in any process, to continue with the first byte that was not read here
---@return opensandbox.Error? err code `terminal_ended`: the exit code, and output that was not read, are left in this object
function Terminal:detach()
  local stream = self._stream
  if stream.exit_code then
    return nil, stream:error("terminal:detach", { kind = "state", code = "terminal_ended",
      message = "the command of the terminal has ended", hint = "Read the rest of its output, and wait for its exit code, here" })
  end
  local opts = { id = self.id, since = stream.output:read_offset() }
  child_resource.base.detach(self)
  stream:close()
  self._closed = true
  return opts
end

--- Closes the object. A created terminal is deleted, and its processes are killed; an attached one continues.
--- ```lua
--- terminal:close()
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, for the delete
---@return true? ok
---@return opensandbox.Error? err
function Terminal:close(opts)
  options.timeout("terminal:close", opts)
  self._stream:close()
  return child_resource.base.close(self, opts)
end

class.check_colon(Terminal, "terminal")

return terminals

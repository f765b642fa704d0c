--- The process of a terminal session: a shell or a command, at a pseudo-terminal or with pipes.

local errno = require "opensandbox.devserver.base.errno"
local uv = require "luv"
local pipe = require "opensandbox.devserver.base.pipe"
local pty = require "opensandbox.devserver.base.pty"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local tables = require "opensandbox.base.tables"

local COLUMNS, ROWS = 80, 24
local STDOUT, STDERR = 1, 2

local Process = {}
Process.__index = Process

-- Opens what the process is started with: returns the descriptors of its input, its output and its errors.
function Process:_open_pty(path)
  local problem
  self.pty, problem = pty.open(path, COLUMNS, ROWS, function(data) self.on_output(STDOUT, data) end)
  if not self.pty then return nil, problem end
  self.readers = { self.pty }
  return problem, problem, problem
end

function Process:_open_pipes()
  local input, output, errors
  self.input, input = pipe.writer()
  local function reader(channel)
    return pipe.reader(function(data)
      if data then self.on_output(channel, data) end
    end)
  end
  self.readers = {}
  self.readers[1], output = reader(STDOUT)
  self.readers[2], errors = reader(STDERR)
  return input, output, errors
end

--- Starts a process.
---@param sandbox table
---@param options table `command` (default: an interactive shell), `cwd` (a place), `has_pty`, `keeps_output` (false: what was not read when
-- the process ended is lost), `on_output(channel, data)`, `on_exit(code)` (-1 after a signal)
---@return table? process
---@return string? problem
local function start(sandbox, options)
  local strategy = sandbox.strategy
  local self = setmetatable({ on_output = options.on_output, readers = {} }, Process)
  local input, output, errors
  if options.has_pty then
    input, output, errors = self:_open_pty(strategy:mounts(sandbox.container) .. "/dev/ptmx")
  else
    input, output, errors = self:_open_pipes()
  end
  if not input then return nil, output end
  local shell = strategy.shell:match("[^/]+$")
  local argv = options.command and { shell, "-c", options.command } or { shell, "--norc", "--noprofile" }
  if shell == "sh" and not options.command then argv = { shell } end
  local problem
  self.send, problem = strategy:spawn(sandbox.container, {
    argv = argv, env = tables.merge(sandbox.environment, { TERM = "xterm" }), cwd = options.cwd,
    session = options.has_pty and "terminal" or "plain",
    stdin = input, stdout = output, stderr = errors,
    on_exit = function(code, signal)
      for _, reader in ipairs(self.readers) do
        if options.keeps_output then reader:drain() end
      end
      self:_close()
      options.on_exit(signal > 0 and -1 or code)
    end,
  })
  uv.fs_close(input)
  if not self.pty then
    uv.fs_close(output)
    uv.fs_close(errors)
  end
  if self.send then return self end
  self:_close()
  return nil, errno.text(problem)
end

function Process:_close()
  self.has_ended = true
  for _, reader in ipairs(self.readers) do reader:close() end
  if self.input and not self.input:is_closing() then self.input:close() end
end

--- Writes input.
---@param data string
---@param callback fun(problem?: string) called when the kernel has taken it
function Process:write(data, callback)
  if self.has_ended then return callback("ECANCELED") end
  if self.pty then return self.pty:write(data, callback) end
  self.input:write(data, safe_callback.wrap(callback))
end

--- Sets the size of the terminal, where there is one.
function Process:resize(columns, rows)
  if self.pty and not self.has_ended then self.pty:resize(columns, rows) end
end

--- Sends a signal to the process group. The jobs of an interactive shell are in groups of their own.
---@param name string like "sigint"
---@param sent? fun() called when the signal was sent
function Process:signal(name, sent)
  if not self.has_ended then return self.send(name, false, sent) end
  if sent then sent() end
end

--- Stops reading output, so that the process waits.
function Process:pause()
  for _, reader in ipairs(self.readers) do reader:pause() end
end

function Process:resume()
  for _, reader in ipairs(self.readers) do reader:resume() end
end

return { start = start }

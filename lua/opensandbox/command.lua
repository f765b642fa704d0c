--- A command in the background, started by this or another process: `sandbox:start()` and `sandbox:command()`.

local background_process = require "opensandbox.background_process"
local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local deadline = require "opensandbox.loop.deadline"
local options = require "opensandbox.base.options"
local requests = require "opensandbox.execution.command_requests"

--- A command in the background.
--- ```lua
--- local command = assert(sandbox:start("npm run dev"))
--- print(command.id, command.sandbox.id)
--- ```
---@class opensandbox.Command: opensandbox.BackgroundProcess
---@field id string execd's id; sandbox:command(id) attaches to it, in any process
local Command = background_process.class { __name = "opensandbox.Command", _op_prefix = "command", _noun = "command",
  _timeout_hint = "It continues: wait again, or kill it" }

local command = {}

--- Returns an object for a command of a sandbox.
---@param sandbox opensandbox.Sandbox
---@param id string
---@param is_fresh boolean it was started just now
---@param input? opensandbox.StdinStream its standard input
---@return opensandbox.Command
function command.attach(sandbox, id, is_fresh, input)
  local registered_by = is_fresh and core.now() + requests.REGISTRATION_TIMEOUT or 0
  return setmetatable({ id = id, sandbox = sandbox, _registered_by = registered_by, _input = input }, Command)
end

-- Makes a call about this command. execd may not know a command yet that was started just now.
local function call(self, op, opts, route, ...)
  local limit = deadline.new(options.timeout(op, opts))
  local execd, err = self.sandbox:execd_endpoint(op, limit)
  if not execd then return nil, err end
  local client, arguments = self.sandbox.client:for_op(op):within(limit), { ... }
  return requests.retry_until_registered(op, self._registered_by, function()
    return route(client, execd, self.id, arguments[1])
  end)
end

function Command:_status(op, opts)
  return call(self, op, opts, requests.status)
end

function Command:_logs(op, cursor, opts)
  return call(self, op, opts, requests.logs, cursor)
end

local function interrupt(client, execd, id)
  return client:interrupt_command(execd, id)
end

--- Stops it: DELETE /command of execd, which sends SIGTERM to its processes, and SIGKILL after 3 seconds. The call succeeds for a command
--- that has ended already.
--- ```lua
--- assert(command:kill())
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function Command:kill(opts)
  local ok, err = call(self, "command:kill", opts, interrupt)
  if ok then return true end
  if tostring(err.message):find("is not running", 1, true) then return true end
  return nil, err
end

local function input_of(self, op)
  return self._input or options.raise(op, "the command was not started here with stdin = true")
end

local input_options = { timeout = "seconds" }

--- Writes to the standard input of a command that was started with `stdin = true`. Waits while the command does not read it, and a mebibyte
--- is on its way. No byte is lost or doubled when a connection is cut.
--- ```lua
--- local command = assert(sandbox:start("sort > /tmp/sorted", { stdin = true }))
--- assert(command:write("b\na\n"))
--- ```
---@param bytes string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err code `stdin_closed`: the command has closed its standard input, or has ended
function Command:write(bytes, opts)
  local op = "command:write"
  options.argument(op, "the input", bytes, "string")
  opts = options.check(op, opts, input_options)
  return input_of(self, op):write(op, bytes, opts.timeout)
end

--- Ends the standard input of a command that was started with `stdin = true`, and waits until the command has been given all of it. Calling
--- it a second time has no effect.
--- ```lua
--- assert(command:close_stdin())
--- print(assert(command:wait()).exit_code)
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default: none
---@return true? ok
---@return opensandbox.Error? err
function Command:close_stdin(opts)
  local op = "command:close_stdin"
  opts = options.check(op, opts, input_options)
  return input_of(self, op):close(op, opts.timeout)
end

class.check_colon(Command, "command")

return command

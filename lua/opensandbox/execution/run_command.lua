--- Runs a command: POST /command, and its stream of events up to the event that proves that it ended.
--
-- The call returns at the terminal event. execd keeps the stream open for a second after it; the rest is read in the background, so
-- that the connection can be reused. If the stream ends without a terminal event, the command's status and output are requested
-- (stream_recovery.lua). An outcome that cannot be proved is an error, which carries the output that arrived.

local capabilities = require "opensandbox.http.capabilities"
local command_input = require "opensandbox.execution.command_input"
local command_requests = require "opensandbox.execution.command_requests"
local durable_run = require "opensandbox.execution.durable_run"
local execution = require "opensandbox.execution.execution"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local redirected_output = require "opensandbox.execution.redirected_output"
local shell = require "opensandbox.base.shell"
local stream_recovery = require "opensandbox.execution.stream_recovery"
local tables = require "opensandbox.base.tables"

local run_command = {}

--- The result of a command. If a signal ended the command, the `exit_code` is -1, and `signal` is set. If its `timeout` ended the command,
--- `timed_out` is set, too.
--- ```lua
--- local result = assert(sandbox:run("make test", { timeout = 60 }))
--- if result.timed_out then print("stopped after 60 s") end
--- print(result.exit_code, result.signal, result.duration, result.stdout, result.stderr)
--- print(result.stdout_dropped, result.stderr_dropped, result.recovered, result.id, result.error and result.error.value)
--- ```
---@class opensandbox.CommandResult
---@field id? string execd's id of the command
---@field exit_code? integer 0 on success; -1 when a signal ended it; nil for a background command
---@field signal? string name of the signal that ended it: "killed", "terminated"
---@field timed_out? boolean the command's timeout ended it
---@field stdout string its standard output
---@field stderr string its error output
---@field stdout_dropped integer bytes left out in the middle because of max_output
---@field stderr_dropped integer the same for `stderr`
---@field duration number seconds, from execd if it reports them, else measured here
---@field recovered? boolean the event stream broke, and the result was obtained by other requests
---@field error? table { name, value, traceback } as execd reported it

--- The options of `client:run_command`.
--- ```lua
--- local started = assert(client:run_command(execd, "npm run dev", { background = true }))
--- print(started.id)
--- ```
---@class opensandbox.RunCommandOpts: opensandbox.RunOpts
---@field background? boolean return once the command has started

local run_options = {
  cwd = "nonempty string", timeout = "seconds", env = "environment", uid = "natural", gid = "natural", background = "boolean",
  shell = "boolean",
  capture = "nonempty string", durable = "boolean", stdin = "any",
  on_stdout = "function", on_stderr = "function", on_event = "function", max_output = "natural", idle_timeout = "seconds",
}

local function checked_list(op, given)
  local list = options.argument(op, "the command", given, "string list")
  if #list == 0 or list[1] == "" then options.raise(op, "the command must not be an empty list") end
  return list
end

--- Returns the command line for the shell. A string is one already; the arguments of a list are quoted.
---@param op string
---@param given string|string[]
---@return string
function run_command.line(op, given)
  if type(given) == "table" then
    given = shell.join(checked_list(op, given))
  else
    options.argument(op, "the command", given, "command line")
  end
  if given:find("%z") then options.raise(op, "the command holds a NUL byte") end
  return given
end

local CommandExecution = execution.class({}, {
  execution_complete = function(self, event)
    self:record_terminal_event(event)
    if not self.opts.background then self.exit_code = 0 end
  end,
})

-- A command in the background that has no id cannot be reached again.
function CommandExecution:on_terminal()
  local result, err = execution.base.on_terminal(self)
  if result and self.opts.background and not self.id then
    return nil, self.exchange:error { kind = "protocol", code = "unexpected_response", result = result,
      message = "the command was started, but no event carries its id" }
  end
  return result, err
end

CommandExecution.recover = stream_recovery
CommandExecution.abandon = execution.stop_when_id_known

function CommandExecution:stop_remote(is_silent)
  command_requests.stop(self.client, self.endpoint, self.op, self.id, not is_silent, self.opts.after_stop)
end

local function start(client, execd, op, body, opts)
  return execution.start(CommandExecution, client, execd, {
    op = op, path = "/command", json = body, timeout = opts.timeout and opts.timeout + execution.SERVER_TIMEOUT_GRACE or 0,
    budget = opts.timeout, -- which an error names
  }, opts)
end

-- Uses `argv`, which execd has since September 2026. An older execd rejects the request without starting anything; then the quoted
-- command line is sent.
local function start_without_shell(client, execd, op, argv, body, opts)
  if capabilities.get(client, execd, "argv") == false then return start(client, execd, op, body, opts) end
  local line = body.command
  body.command, body.argv = nil, json.array(argv)
  local result, err = start(client, execd, op, body, opts)
  if result or err.status ~= 400 then return result, err end
  body.command, body.argv = line, nil
  result, err = start(client, execd, op, body, opts)
  if result or err.status ~= 400 then capabilities.set(client, execd, "argv", false) end
  return result, err
end

--- Checks the arguments of a run, and prepares it. Nothing is sent.
---@param op string the method that the user called
---@param given string|string[]
---@param opts? opensandbox.RunCommandOpts
---@return table prepared for run_command.run
function run_command.prepare(op, given, opts)
  local line = run_command.line(op, given)
  opts = options.check(op, opts, run_options)
  paths.check_directory(op, opts.cwd)
  if opts.gid and not opts.uid then options.raise(op, "option 'gid' needs option 'uid'") end
  if opts.capture and opts.capture ~= "exact" then options.raise(op, "option 'capture' can only be \"exact\"") end
  if opts.background and (opts.capture or opts.durable or opts.stdin) then
    options.raise(op, "option 'background' does not go with 'capture', 'durable' and 'stdin', which need the end of the command")
  end
  if opts.shell == false then
    if type(given) ~= "table" then options.raise(op, "option 'shell': only a list can be started without a shell") end
    if opts.capture or opts.stdin then options.raise(op, "options 'capture' and 'stdin' need the shell") end
  end
  local argv = opts.shell == false and checked_list(op, given) or nil
  return { op = op, opts = opts, argv = argv, input = command_input.check(op, opts.stdin), body = {
    command = line, cwd = opts.cwd, background = opts.background or nil, uid = opts.uid, gid = opts.gid,
    timeout = opts.timeout and math.ceil(opts.timeout * 1000) or nil,
    envs = opts.env and next(opts.env) and opts.env or nil,
  } }
end

--- Runs a prepared command and waits for its end: POST /command. The options choose among five ways, each of which wraps the one
--- before:
---   plain             the events of one request
---   shell = false     the same, with `argv`, on an execd that supports it
---   durable           in the background, followed by its log
---   stdin             with its input in a file
---   capture = "exact" with its output redirected to files
---@param client opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param prepared table
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function run_command.run(client, execd, prepared)
  local op, opts = prepared.op, prepared.opts
  client = client:for_op(op)
  local function run(body, own_opts)
    if prepared.argv then return start_without_shell(client, execd, op, prepared.argv, body, own_opts) end
    return start(client, execd, op, body, own_opts)
  end
  if opts.durable then run = durable_run.wrap(run, client, execd) end
  if prepared.input then run = command_input.wrap(run, client, execd, prepared.input) end
  if opts.capture then run = redirected_output.wrap(run, client, execd) end
  return run(tables.merge(prepared.body), opts)
end

return run_command

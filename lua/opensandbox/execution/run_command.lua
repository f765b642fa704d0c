--- Running a command: POST /command, and its stream of events up to the proof that it ended.
--
-- The call returns at the terminal event. execd keeps the stream open for a second after it; the rest is drained in the background,
-- so that the connection can be used again. A stream that ends without a terminal event is settled by asking for the command's status and
-- output (recovery.lua); what that cannot prove is an error that carries what arrived.

local durable = require "opensandbox.execution.durable_run"
local exact = require "opensandbox.execution.redirected_output"
local json = require "opensandbox.base.json"
local capabilities = require "opensandbox.http.capabilities"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local recovery = require "opensandbox.execution.stream_recovery"
local routes = require "opensandbox.execution.command_requests"
local run = require "opensandbox.execution.execution"
local shell = require "opensandbox.base.shell"
local tables = require "opensandbox.base.tables"

local run_command = {}

---@class opensandbox.CommandResult
---@field id? string execd's id of the command
---@field exit_code? integer 0 on success; -1 when a signal ended it; nil for a background command
---@field signal? string the signal's name when one ended it: "killed", "terminated"
---@field timed_out? boolean the command's timeout ended it
---@field stdout string
---@field stderr string
---@field stdout_dropped integer bytes left out in the middle because of max_output
---@field stderr_dropped integer
---@field duration number seconds, from execd where it says, else measured here
---@field recovered? boolean the stream of events broke, and the result was found out in another way
---@field error? table { name, value, traceback } as execd reported it

local known_options = {
  cwd = "nonempty string", timeout = "seconds", env = "environment", uid = "natural", gid = "natural",
  background = "boolean", shell = "boolean",
  capture = "nonempty string", durable = "boolean",
  on_stdout = "function", on_stderr = "function", on_event = "function", max_output = "natural", idle_timeout = "seconds",
}

local function checked_list(op, given)
  local list = options.argument(op, "the command", given, "string list")
  if #list == 0 or list[1] == "" then options.raise(op, "the command must not be an empty list") end
  return list
end

-- The command line of what `run` takes: a string is for the shell, a list is quoted argument by argument.
local function line_of(op, given)
  if type(given) == "table" then
    given = shell.join(checked_list(op, given))
  else
    options.argument(op, "the command", given, "nonempty string")
  end
  if given:find("%z") then options.raise(op, "the command holds a NUL byte") end
  return given
end

local Run = run.kind({}, {
  execution_complete = function(self, event)
    self:ended(event)
    if not self.opts.background then self.exit_code = 0 end
  end,
})

Run.settle = recovery

function Run:stop(silent)
  self.client.http:send_to_endpoint(self.endpoint, routes.interrupt(self.op, self.id), not silent)
end

Run.abandon = run.stop_once_known

local function start(self, execd, op, body, opts)
  return run.start(Run, self, execd, {
    op = op, path = "/command", json = body, timeout = opts.timeout and opts.timeout + run.GRACE or 0,
  }, opts)
end

-- Without a shell: `argv`, which execd has since September 2026. An older one says no before it starts anything, and is then given the
-- same arguments quoted.
local function start_without_shell(self, execd, op, argv, body, opts)
  if capabilities.get(self, execd, "argv") == false then return start(self, execd, op, body, opts) end
  local line = body.command
  body.command, body.argv = nil, json.array(argv)
  local result, err = start(self, execd, op, body, opts)
  if result or err.status ~= 400 then return result, err end
  body.command, body.argv = line, nil
  result, err = start(self, execd, op, body, opts)
  if result or err.status ~= 400 then capabilities.set(self, execd, "argv", false) end
  return result, err
end

--- Checks the arguments of a run, and prepares it. Nothing is sent.
---@param op string the method that the user called
---@param given string|string[]
---@param opts? table as for the client method run_command
---@return table prepared for run_command.run
function run_command.prepare(op, given, opts)
  local line = line_of(op, given)
  opts = options.check(op, opts, known_options)
  paths.check_directory(op, opts.cwd)
  if opts.gid and not opts.uid then options.raise(op, "option 'gid' needs option 'uid'") end
  if opts.capture and opts.capture ~= "exact" then options.raise(op, "option 'capture' can only be \"exact\"") end
  if opts.background and (opts.capture or opts.durable) then
    options.raise(op, "option 'background' does not go with 'capture' and 'durable', which wait for the end")
  end
  if opts.shell == false then
    if type(given) ~= "table" then options.raise(op, "option 'shell': only a list can be started without a shell") end
    if opts.capture then options.raise(op, "option 'capture' needs the shell") end
  end
  return { op = op, opts = opts, argv = opts.shell == false and checked_list(op, given) or nil, body = {
    command = line, cwd = opts.cwd, background = opts.background or nil, uid = opts.uid, gid = opts.gid,
    timeout = opts.timeout and math.ceil(opts.timeout * 1000) or nil,
    envs = opts.env and next(opts.env) and opts.env or nil,
  } }
end

--- The command line for a session: a string is for the shell, a list is quoted argument by argument.
run_command.line = line_of

--- Runs a prepared command and waits for its end: POST /command. The options choose among four ways to do so, each around the one before:
---   plain             the events of one request
---   shell = false     the same, with `argv`, on an execd that knows it
---   durable           in the background, followed by its log
---   capture = "exact" with its output redirected to files
---@param client opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param prepared table
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function run_command.run(client, execd, prepared)
  local op, opts = prepared.op, prepared.opts
  local function begin(body, own_opts)
    if prepared.argv then return start_without_shell(client, execd, op, prepared.argv, body, own_opts) end
    return start(client, execd, op, body, own_opts)
  end
  if opts.durable then begin = durable.over(begin, client, execd, op) end
  if opts.capture then begin = exact.over(begin, client, execd, op) end
  return begin(tables.merge(prepared.body), opts)
end

return run_command

--- Running a command: POST /command, and its stream of events up to the proof that it ended.
--
-- The call returns at the terminal event. execd keeps the stream open for a second after it; the rest is drained in the background,
-- so that the connection can be used again. A stream that ends without a terminal event is settled by asking for the command's status and
-- output (recovery.lua); what that cannot prove is an error that carries what arrived.

local durable = require "opensandbox.execution.durable_run"
local exact = require "opensandbox.execution.redirected_output"
local json = require "opensandbox.base.json"
local lacks = require "opensandbox.http.capabilities"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local recovery = require "opensandbox.execution.stream_recovery"
local routes = require "opensandbox.execution.command_requests"
local run = require "opensandbox.execution.execution"
local shell = require "opensandbox.base.shell"

local command = {}

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
  cwd = "text", timeout = "seconds", env = "variables", uid = "count", gid = "count", background = "boolean", shell = "boolean",
  capture = "text", durable = "boolean",
  on_stdout = "function", on_stderr = "function", on_event = "function", max_output = "count", idle_timeout = "seconds",
}

local function check_list(op, given)
  options.argument(op, "the command", given, "list")
  if #given == 0 or given[1] == "" then options.raise(op, "the command must not be an empty list") end
end

--- The command line of what `run` takes: a string is for the shell, a list is quoted argument by argument.
function command.line(op, given)
  if type(given) == "table" then
    check_list(op, given)
    given = shell.join(given)
  else
    options.argument(op, "the command", given, "text")
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
  self.client:_forget(self.client:_endpoint(self.endpoint, routes.interrupt(self.id)), not silent)
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
  if lacks.known(self, execd, "argv") then return start(self, execd, op, body, opts) end
  local line = body.command
  body.command, body.argv = nil, json.array(argv)
  local result, err = start(self, execd, op, body, opts)
  if result or err.status ~= 400 then return result, err end
  body.command, body.argv = line, nil
  result, err = start(self, execd, op, body, opts)
  if result or err.status ~= 400 then lacks.learn(self, execd, "argv", true) end
  return result, err
end

--- Runs a command and waits for its end: POST /command.
---
--- A non-zero exit code is a result. An error is what kept the result from us: it carries what had arrived as `err.result`.
---
--- When the stream of events breaks, the result is found out by the command's status and output files, where execd keeps them, and has
--- `recovered`; else the error has kind `stream`, and the exit code in `err.result` if it is known.
---
--- `capture = "exact"` gives the bytes as they were written, redirected to files in the sandbox's /tmp that are fetched and removed; the
--- callbacks get them at the end. `durable` runs the command in the background and follows its log in short requests, so that no cut
--- connection disturbs it; its two streams come as one, in the order and with the bytes they were written, as `stdout`.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string what discover_execd returns, or a URL
---@param given string|string[] for the shell, or a program and its arguments
---@param opts? table cwd, env, timeout (seconds; execd kills the command then), uid, gid, background (return once started), shell (false: start a list's program without a shell, where execd can), capture ("exact"), durable, on_stdout, on_stderr (called with text as it comes), on_event, max_output (bytes kept of each stream), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function command.run_command(self, execd, given, opts)
  local op = "run_command"
  local line = command.line(op, given)
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
  local body = {
    command = line, cwd = opts.cwd, background = opts.background or nil, uid = opts.uid, gid = opts.gid,
    timeout = opts.timeout and math.ceil(opts.timeout * 1000) or nil,
    envs = opts.env and next(opts.env) and opts.env or nil,
  }
  local function begin(own_body, own_opts)
    if opts.shell == false then return start_without_shell(self, execd, op, given, own_body, own_opts) end
    return start(self, execd, op, own_body, own_opts)
  end
  if opts.durable then begin = durable.over(begin, self, execd, op) end
  if opts.capture then begin = exact.over(begin, self, execd, op) end
  return begin(body, opts)
end

return command

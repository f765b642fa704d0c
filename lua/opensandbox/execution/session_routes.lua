--- Shell sessions of execd: a client method for each route. A session keeps its directory and its exported variables from one run
--- to the next. Each run is a new bash.
--
-- execd mixes the stderr of a run into its stdout and drops blank lines. Variables that are not exported are lost, and so are the
-- changes of a run that ends by `exit` or by a signal.

local command_input = require "opensandbox.execution.command_input"
local create_rollback = require "opensandbox.http.create_rollback"
local errors = require "opensandbox.base.errors"
local execution = require "opensandbox.execution.execution"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local run_command = require "opensandbox.execution.run_command"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local session_routes = {}

-- Seconds that execd gets, after the timeout of a run, to report that it killed the shell. They are few, because execd never
-- reports that if a background process keeps the output open.
local GRACE_PERIOD = 2

local function session_path(op, id)
  return "/session/" .. url.escape(options.path_segment(op, "the session id", id))
end

local create_options = { cwd = "nonempty string", timeout = "seconds" }

--- Creates a session: POST /session. Nothing runs in it yet.
--- ```lua
--- local session = assert(client:create_session(execd, { cwd = "/work" }))
--- ```
---@param execd opensandbox.Endpoint|string
---@param opts? { cwd?: string, timeout?: opensandbox.Duration } cwd: a directory, which is created if it is missing; timeout in seconds
---@return string? id
---@return opensandbox.Error? err
function session_routes:create_session(execd, opts)
  local op = self.op or "create_session"
  opts = options.check(op, opts, create_options)
  paths.check_directory(op, opts.cwd)
  local request = { op = op, method = "POST", path = "/session", json = { cwd = opts.cwd }, timeout = opts.timeout,
    decode = function(object)
      if not url.is_segment(object.session_id) then return nil, "session id" end
      return object.session_id
    end }
  create_rollback(self, request, function(id) return self:delete_session_request(execd, id) end, { best_effort = true })
  return self.http:call_endpoint(execd, request)
end

--- Internal: returns the prepared request that deletes a session, for deletes in the background.
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function session_routes:delete_session_request(execd, id)
  local op = "delete_session"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = session_path(op, id), may_repeat = true })
end

--- Deletes a session and kills its processes: DELETE /session/{id}. If the session does not exist, that is a success.
--- ```lua
--- assert(client:delete_session(execd, id))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function session_routes:delete_session(execd, id, opts)
  local op = self.op or "delete_session"
  return errors.ignore_absence(self.http:call_endpoint(execd, { op = op, timeout = options.timeout(op, opts),
    method = "DELETE", path = session_path(op, id), shielded = true }))
end

-- A run is stopped by closing the connection: execd then kills its bash. Any other request would delete the session.
local SessionExecution = execution.class {}

-- The events carry the session's id; a run has none.
function SessionExecution:result()
  local result = execution.base.result(self)
  result.id = nil
  return result
end

-- execd reports that the timeout ended a run by an error that it appends to the stream.
function SessionExecution:on_server_error()
  local problem = self.server_error
  if not problem.message:find("timeout after", 1, true) then return execution.base.on_server_error(self) end
  self.exit_code, self.signal, self.timed_out = -1, "killed", true
  self.error_event = { name = problem.code, value = problem.message, traceback = {} }
  return self:result()
end

function SessionExecution:on_timeout(err)
  err.message = ("not finished in time: timeout of %s s ran out, and %d s later the command's output was still open"):format(
    numbers.format(self.opts.timeout), GRACE_PERIOD)
  err.hint = "execd kills the shell alone. A process that the command started may keep the output open. Redirect the output "
    .. "of background processes"
end

--- The options of a run in a session.
--- ```lua
--- local result = assert(session:run("sort", {
---   cwd = "/work", timeout = 60, stdin = "b\na\n", on_stdout = io.write, on_event = function(event) print(event.type) end,
---   max_output = 65536, idle_timeout = 30,
--- }))
--- ```
---@class opensandbox.SessionRunOpts
---@field cwd? string directory to run in; the session stays in it
---@field timeout? opensandbox.Duration after which execd kills the shell; default: none
---@field stdin? string|file*|{ path: string }|fun(): string? the standard input, as of opensandbox.RunOpts
---@field on_stdout? fun(text: string) called with output as it arrives
---@field on_event? fun(event: table) called with each event of execd
---@field max_output? integer bytes of output to keep; default: the client's
---@field idle_timeout? opensandbox.Duration without a byte from execd; default: the client's

local run_options = {
  cwd = "nonempty string", timeout = "seconds", stdin = "any", on_stdout = "function", on_event = "function",
  max_output = "natural", idle_timeout = "seconds",
}

--- Runs a command in a session and waits for its end: POST /session/{id}/run.
---
--- It works like `run_command`, but stderr is mixed into stdout, blank lines are missing, and the result has no id. If the wait
--- ends before the command does, its shell is killed, and the session stays. The call also waits for background processes of the
--- command, unless their output is redirected.
--- ```lua
--- print(assert(client:run_in_session(execd, id, "pwd")).stdout)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param given string|string[] a command line for the shell, or a program and its arguments
---@param opts? opensandbox.SessionRunOpts
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function session_routes:run_in_session(execd, id, given, opts)
  local op = self.op or "run_in_session"
  local path = session_path(op, id) .. "/run"
  local line = run_command.line(op, given)
  opts = options.check(op, opts, run_options)
  paths.check_directory(op, opts.cwd)
  local timeout, input = opts.timeout, command_input.check(op, opts.stdin)
  local function run(command)
    return execution.start(SessionExecution, self, execd, {
      op = op, path = path, timeout = timeout and timeout + GRACE_PERIOD or 0,
      json = { command = command, cwd = opts.cwd, timeout = timeout and math.ceil(timeout * 1000) or nil },
    }, opts)
  end
  if not input then return run(line) end
  return command_input.run_in_session(self:for_op(op), execd, input, line, run)
end

return session_routes

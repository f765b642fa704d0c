--- Shell sessions of execd: a client method for each route. A session keeps its directory and its exported variables from one run to
--- the next; each run is a new bash.
--
-- A run's stderr comes among its stdout, and execd drops blank lines. What is not exported is lost, and so is what a run changes that
-- ends by `exit` or a signal.

local create_rollback = require "opensandbox.http.create_rollback"
local run_command = require "opensandbox.execution.run_command"
local errors = require "opensandbox.base.errors"
local numbers = require "opensandbox.base.numbers"
local options = require "opensandbox.base.options"
local paths = require "opensandbox.base.paths"
local run = require "opensandbox.execution.execution"
local url = require "opensandbox.base.url"

local session = {}

local GRACE = 2 -- seconds that execd gets, beyond a run's timeout, to say that it ended it

local function session_path(op, id)
  return "/session/" .. url.escape(options.path_segment(op, "the session id", id))
end

local create_options = { cwd = "nonempty string" }

--- Makes a session: POST /session. Nothing runs in it yet.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param opts? table cwd (made if it is missing)
---@return string? id
---@return opensandbox.Error? err
function session.create_session(self, execd, opts)
  local op = self.op or "create_session"
  opts = options.check(op, opts, create_options)
  paths.check_directory(op, opts.cwd)
  local request = { op = op, method = "POST", path = "/session", json = { cwd = opts.cwd }, decode = function(answer)
    if type(answer.session_id) ~= "string" then return nil, "session id" end
    return answer.session_id
  end }
  create_rollback(self, request, function(id) return self:delete_session_request(execd, id) end, { best_effort = true })
  return self.http:call_endpoint(execd, request)
end

--- Internal: the prepared request that deletes a session, for deletes in the background.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return table request
function session.delete_session_request(self, execd, id)
  local op = "delete_session"
  return self.http:endpoint_request(execd, { op = op, method = "DELETE", path = session_path(op, id), may_repeat = true })
end

--- Deletes a session, and kills what runs in it: DELETE /session/{id}. One that is gone already is a success.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function session.delete_session(self, execd, id)
  local op = self.op or "delete_session"
  local _, err = self.http:call_endpoint(execd, { op = op, method = "DELETE", path = session_path(op, id), shielded = true })
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

-- A run is stopped by closing the connection, on which execd kills its bash: every other way would delete the session.
local Run = run.kind {}

-- Its events have the session's id, not one of the run.
function Run:result()
  local result = run.base.result(self)
  result.id = nil
  return result
end

-- That its timeout ended a run, execd says by an error without a type.
function Run:failed()
  local failure = self.failure
  if not failure.message:find("timeout after", 1, true) then return run.base.failed(self) end
  self.exit_code, self.signal, self.timed_out = -1, "killed", true
  self.report = { name = failure.code, value = failure.message, traceback = {} }
  return self:result()
end

function Run:overdue(err)
  err.message = ("not finished in time: timeout of %s s ran out, and %d s later the command's output was still open"):format(
    numbers.format(self.opts.timeout), GRACE)
  err.hint = "execd kills the shell alone: a process that the command started may hold its output, and go on. Redirect the output "
    .. "of what stays behind"
end

local run_options = {
  cwd = "nonempty string", timeout = "seconds", on_stdout = "function", on_event = "function", max_output = "natural",
  idle_timeout = "seconds",
}

--- Runs a command in a session and waits for its end: POST /session/{id}/run.
---
--- As `run_command`, but what it writes to stderr comes as stdout, blank lines are missing, and the result has no id. When the wait ends
--- before the command does, its shell is killed; the session stays. The end of what the command leaves in the background is waited for,
--- unless its output is redirected.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@param given string|string[] for the shell, or a program and its arguments
---@param opts? table cwd (stays for the runs after it), timeout (seconds; execd kills the shell then), on_stdout (called with text as it comes), on_event, max_output (bytes kept), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function session.run_in_session(self, execd, id, given, opts)
  local op = self.op or "run_in_session"
  local path = session_path(op, id) .. "/run"
  local line = run_command.line(op, given)
  opts = options.check(op, opts, run_options)
  paths.check_directory(op, opts.cwd)
  local timeout = opts.timeout
  return run.start(Run, self, execd, { op = op, path = path, timeout = timeout and timeout + GRACE or 0,
    json = { command = line, cwd = opts.cwd, timeout = timeout and math.ceil(timeout * 1000) or nil } }, opts)
end

return session

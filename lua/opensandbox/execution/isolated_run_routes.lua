--- Runs in an isolated session: in the foreground with a stream of events, in the background with a status and a log.
--
-- The stream has neither an id nor pings, and stderr arrives as stdout. The code runs in the session's shell, see
-- isolated_script.lua. execd has one way to stop a run: it ends the session when the run's timeout has passed, or when the
-- connection is closed.

local call = require "opensandbox.http.call"
local capabilities = require "opensandbox.http.capabilities"
local command_requests = require "opensandbox.execution.command_requests"
local execution = require "opensandbox.execution.execution"
local fields = require "opensandbox.base.fields"
local isolated_errors = require "opensandbox.execution.isolated_errors"
local isolated_script = require "opensandbox.execution.isolated_script"
local json = require "opensandbox.base.json"
local options = require "opensandbox.base.options"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local isolated_run_routes = {}

local GRACE_PERIOD = 2 -- seconds that execd gets, beyond a run's timeout, to report the end of the run
local BACKGROUND = "isolated background"

local function session_path(op, id, rest)
  return "/v1/isolated/session/" .. url.escape(options.path_segment(op, "the session id", id)) .. rest
end

--- The result of a run in an isolated session.
--- ```lua
--- local result = assert(isolated:run("exit 3"))
--- print(result.exit_code, result.session_ended) --> 3    true
--- ```
---@class opensandbox.IsolatedResult: opensandbox.CommandResult
---@field session_ended? boolean the session has ended with this run

local Run = execution.class { noun = "code" }

function Run:on_timeout(err)
  err.message = ("not finished in time: timeout of %d s ran out, and %d s later execd had not ended the run"):format(
    math.ceil(self.opts.timeout), GRACE_PERIOD)
  err.hint = nil
end

-- Parts of execd's messages when the shell has exited. A race decides which message it is.
local SHELL_EXITED = { "without end marker", "file already closed", "process has exited", "session not started", "write stdin" }

local function has_shell_exited(text)
  for _, words in ipairs(SHELL_EXITED) do
    if text:find(words, 1, true) then return true end
  end
  return false
end

-- Returns the outcome when execd reports a problem instead of an exit code.
local function outcome_of_problem(self, result)
  local text = tostring(self.error_event.value)
  local exited = has_shell_exited(text)
  local timeout = self.opts.timeout and math.ceil(self.opts.timeout)
  if text == "context deadline exceeded" or (exited and execution.has_used_timeout(result.duration, timeout)) then
    result.timed_out, result.session_ended, result.exit_code, result.signal = true, true, -1, "interrupt"
    return result
  end
  if not exited then
    return nil, self.exchange:error { kind = "state", code = "run_failed", message = text, result = result,
      hint = "Delete the session: the rest of the output would come with the next run" }
  end
  result.session_ended = true
  return nil, self.exchange:error { kind = "state", code = "session_ended", session_ended = true, result = result,
    message = "the session has ended with this run, without an exit code: " .. text,
    hint = "Create another session. `exit`, `exec` and a failure under `set -e` end the shell: write ( set -e; ... ) for code "
      .. "that may exit" }
end

function Run:on_terminal()
  if self.server_error then return self:on_server_error() end
  local result = self:result()
  if not self.error_event then return result end
  if not result.exit_code then return outcome_of_problem(self, result) end
  local problem = isolated_script.cd_problem(result, self.opts)
  if not problem then return result end
  return nil, self.exchange:error { kind = "state", code = "start_failed", result = result,
    message = "the code was not started: " .. problem }
end

-- The kinds of errors after which the connection is closed before the run has ended. execd then ends the session.
local CLOSING_KINDS = { cancelled = true, closed = true, timeout = true, stream = true, transport = true }

local function note_closed_connection(err)
  local was_closed = CLOSING_KINDS[err.kind] and not err.not_sent or err.kind == "protocol" and err.result
  if not was_closed then return end
  err.session_ended = true
  if err.result then err.result.session_ended = true end
  err.hint = (err.hint and err.hint .. ". " or "") .. "The session ends with the connection: create another session"
end

-- Feeds text to the session's shell and reads the events to the end of the run.
local function run_text(self, op, execd, path, text, opts)
  local timeout = opts.timeout and math.ceil(opts.timeout)
  return isolated_errors.call_with(self, op, execd, "isolated", function()
    local result, err = execution.start(Run, self, execd, {
      op = op, path = path, timeout = timeout and timeout + GRACE_PERIOD or 0, idle_timeout = opts.idle_timeout or 0,
      json = { code = text, timeout_seconds = timeout },
    }, opts)
    if err then note_closed_connection(err) end
    return result, err
  end)
end

local function check_code(op, code)
  options.argument(op, "the code", code, "nonempty string")
  if not code:find("%S") then options.raise(op, "the code must not be empty") end
end

--- The options of a run in an isolated session.
--- ```lua
--- local result = assert(isolated:run("make", {
---   cwd = "src", env = { CC = "clang" }, timeout = 60, on_stdout = io.write, on_event = function(event) print(event.type) end,
---   max_output = 65536, idle_timeout = 120,
--- }))
--- ```
---@class opensandbox.IsolatedRunOpts
---@field cwd? string directory to enter, relative to the current directory of the session; the session stays in it
---@field env? table<string, string> variables for this run
---@field timeout? opensandbox.Duration rounded up to whole ones; execd then ends the run together with the session
---@field on_stdout? fun(text: string) called with output as it arrives
---@field on_event? fun(event: table) called with every event of execd
---@field max_output? integer bytes of output to keep in the result
---@field idle_timeout? opensandbox.Duration without output after which the call fails; default: none, because execd sends no pings

local run_options = {
  cwd = "nonempty string", env = "environment", timeout = "seconds", on_stdout = "function", on_event = "function",
  max_output = "natural", idle_timeout = "seconds",
}

--- Runs code in the session's shell and waits for its end: POST /v1/isolated/session/{id}/run.
---
--- Directory, variables, functions and shell options stay for the next run, except the variables of `env`. The code has no
--- standard input. The result is that of `run_command`, but stderr arrives as stdout, blank lines are missing, and there is no
--- id.
---
--- The session ends with the run if the shell exits (`exit`, `exec`, a failure under `set -e`). It also ends if the call ends
--- before the code does: after `timeout`, a cancelled task, an error in a callback, or a broken connection. `session_ended` of
--- the result or of the error is then true. An exit of the shell is an error, because execd does not report the exit code: write
--- `( set -e; ... )` for code that may exit. The runs of a session wait for each other. A process that a run leaves in the
--- background writes into the output of later runs.
--- ```lua
--- print(assert(client:run_isolated(execd, id, "pwd")).stdout)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param code string for bash
---@param opts? opensandbox.IsolatedRunOpts
---@return opensandbox.IsolatedResult? result
---@return opensandbox.Error? err
function isolated_run_routes:run_isolated(execd, id, code, opts)
  local op = self.op or "run_isolated"
  local path = session_path(op, id, "/run")
  check_code(op, code)
  opts = options.check(op, opts, run_options)
  isolated_script.check_env(op, opts.env)
  return run_text(self, op, execd, path, isolated_script.foreground(code, opts), opts)
end

--- Internal: runs a script of the library in the session, as `run_isolated`. Its stderr is part of `stdout`.
---@param execd opensandbox.Endpoint|string
---@param id string
---@param script string for any POSIX shell
---@param opts table cwd, timeout (seconds), on_stdout, max_output
---@return opensandbox.IsolatedResult? result
---@return opensandbox.Error? err
function isolated_run_routes:run_isolated_helper(execd, id, script, opts)
  local op = self.op
  return run_text(self, op, execd, session_path(op, id, "/run"), isolated_script.helper(script, opts.cwd),
    { timeout = opts.timeout, on_stdout = opts.on_stdout, max_output = opts.max_output })
end

--- A run in the background, as the route returns it.
--- ```lua
--- local run = assert(client:start_isolated(execd, id, "sleep 60"))
--- print(run.id, run.session_id, run.started_at)
--- ```
---@class opensandbox.IsolatedRun
---@field id string its name
---@field session_id string the session that it runs in
---@field started_at? number Unix seconds

-- Checks that execd has runs in the background. An execd before 1.0.22 would start a run in the foreground, which can be stopped
-- only with its session. Such an execd does not know the route of the status. Any other refusal of an unknown run means that it
-- does.
local function probe_background(self, op, execd, id)
  local _, err = self:for_op(op):get_isolated_run(execd, id, "none")
  local is_known = not err or err.code ~= "unsupported" and err.status and err.status >= 400 and err.status < 500
  if not is_known then return nil, err end
  capabilities.set(self, execd, BACKGROUND, true)
  return true
end

--- The options of a run in the background.
--- ```lua
--- local run = assert(isolated:start("./server", { cwd = "bin", env = { PORT = "8000" } }))
--- ```
---@class opensandbox.IsolatedStartOpts
---@field cwd? string directory to run in, relative to the current directory of the session
---@field env? table<string, string> variables for this run

local start_options = { cwd = "nonempty string", env = "environment" }

--- Starts code in the background: POST /v1/isolated/session/{id}/run (execd 1.0.22). It runs in another shell, which has the
--- directory and the exported variables of the session. It has no time limit, and ends with its session. A session with a
--- read-only workspace refuses it.
--- ```lua
--- local run = assert(client:start_isolated(execd, id, "sleep 60"))
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string
---@param code string for bash
---@param opts? opensandbox.IsolatedStartOpts
---@return opensandbox.IsolatedRun? run
---@return opensandbox.Error? err
function isolated_run_routes:start_isolated(execd, id, code, opts)
  local op = self.op or "start_isolated"
  local path = session_path(op, id, "/run")
  check_code(op, code)
  opts = options.check(op, opts, start_options)
  isolated_script.check_env(op, opts.env)
  local env = opts.env and next(opts.env) and opts.env or nil
  if capabilities.get(self, execd, BACKGROUND) == nil then
    local _, err = probe_background(self, op, execd, id)
    if err then return nil, err end
  end
  return isolated_errors.call_with(self, op, execd, BACKGROUND, function()
    local request = { op = op, method = "POST", path = path, headers = {}, timeout = self.http.timeouts.timeout, may_repeat = false,
      json = { code = isolated_script.background(code, opts), envs = env, background = true } }
    local ex, err = call.open(self.http, self.http:endpoint_request(execd, request))
    if not ex then return nil, err end
    local body
    body, err = ex:body(call.MAX_BODY_SIZE)
    if not body then return nil, err end
    local response = json.decode(body)
    if type(response) ~= "table" or not url.is_segment(response.run_id) then
      return nil, call.unexpected_response(ex, "the answer holds no run")
    end
    return { id = response.run_id, session_id = id, started_at = time.parse(response.started_at) }
  end)
end

local function run_path(op, id, run_id, rest)
  return session_path(op, id, "/runs/" .. url.escape(options.path_segment(op, "the run id", run_id)) .. (rest or ""))
end

--- The status of a run in the background.
--- ```lua
--- local status = assert(client:get_isolated_run(execd, id, run_id))
--- print(status.id, status.session_id, status.running, status.exit_code, status.error, status.started_at, status.finished_at)
--- ```
---@class opensandbox.IsolatedRunStatus
---@field id string its name
---@field session_id string the session that it runs in
---@field running boolean it has not ended
---@field exit_code? integer nil while it runs
---@field error? string "session terminated" when its session ended before it did
---@field started_at? number Unix seconds
---@field finished_at? number Unix seconds

--- Returns the status of a run in the background: GET /v1/isolated/session/{id}/runs/{run_id}.
--- ```lua
--- print(assert(client:get_isolated_run(execd, id, run_id)).running)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string of the session
---@param run_id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.IsolatedRunStatus? status
---@return opensandbox.Error? err
function isolated_run_routes:get_isolated_run(execd, id, run_id, opts)
  local op = self.op or "get_isolated_run"
  local request = { op = op, timeout = options.timeout(op, opts), method = "GET", path = run_path(op, id, run_id) }
  function request.decode(response)
    if type(response.running) ~= "boolean" then return nil, "status" end
    return { id = run_id, session_id = id, running = response.running,
      exit_code = fields.exit_code(response.exit_code), error = fields.text(response.error),
      started_at = time.parse(response.started_at), finished_at = time.parse(response.finished_at) }
  end
  return isolated_errors.call(self, execd, BACKGROUND, request)
end

--- Returns output of a run in the background, stdout and stderr in the order they were written: GET .../runs/{run_id}/logs.
--- ```lua
--- local text, cursor = client:get_isolated_run_logs(execd, id, run_id, 0)
--- ```
---@param execd opensandbox.Endpoint|string
---@param id string of the session
---@param run_id string
---@param cursor? integer byte offset to go on from, default 0
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return string? text at most 16 MiB of it
---@return integer|opensandbox.Error cursor for the next call, or the error
function isolated_run_routes:get_isolated_run_logs(execd, id, run_id, cursor, opts)
  local op = self.op or "get_isolated_run_logs"
  local path = run_path(op, id, run_id, "/logs")
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "natural") end
  local request = command_requests.log_request(op, path, cursor or 0, "execd-isolated-tail-cursor")
  request.timeout = options.timeout(op, opts)
  local log, err = isolated_errors.call(self, execd, BACKGROUND, request)
  if not log then return nil, err end
  return log.text, log.cursor
end

return isolated_run_routes

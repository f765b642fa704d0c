--- What runs in an isolated session: in the foreground with a stream of events, in the background with a status and a log.
--
-- The stream has neither an id nor pings, and what the code writes to stderr comes as stdout. The code is fed to the session's shell:
-- `exit` ends the session, and a program that reads stdin swallows the rest of the code, unless it has `</dev/null`.

local call = require "opensandbox.http.call"
local json = require "opensandbox.base.json"
local capabilities = require "opensandbox.http.capabilities"
local options = require "opensandbox.base.options"
local routes = require "opensandbox.execution.command_requests"
local run = require "opensandbox.execution.execution"
local support = require "opensandbox.execution.isolated_errors"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local isolated_run = {}

local GRACE = 2 -- seconds that execd gets, beyond a run's timeout, to interrupt it and to say so
local BACKGROUND = "isolated background"

local function session_path(op, id, rest)
  return "/v1/isolated/session/" .. url.escape(options.path_segment(op, "the session id", id)) .. rest
end

-- Closing the connection interrupts a run, so that nothing is to be sent when nobody waits for it any more.
local Run = run.class { noun = "code" }

function Run:on_timeout(err)
  err.message = ("not finished in time: timeout of %d s ran out, and %d s later the code still ran"):format(
    math.ceil(self.opts.timeout), GRACE)
  err.hint = "execd interrupts it with SIGINT alone. What goes on blocks every later run of the session: delete the session"
end

function Run:on_terminal()
  if self.server_error then return self:on_server_error() end
  local timeout = self.opts.timeout
  local result = self:result()
  if not self.error_event then return result end
  if timeout and result.duration >= math.ceil(timeout) * 0.98 then
    result.timed_out = true
    if not result.exit_code then result.exit_code, result.signal = -1, "interrupt" end
  end
  if result.exit_code then return result end
  local text = tostring(self.error_event.value)
  local ended = text:find("without end marker", 1, true) or text:find("session process has exited", 1, true)
  return nil, self.exchange:error { kind = "state", code = ended and "session_ended" or "run_failed", message = text,
    result = result,
    hint = ended and "The session's shell has ended, as `exit` makes it do: make another session, and write ( exit 1 )" or nil }
end

local function check_code(op, code)
  options.argument(op, "the code", code, "nonempty string")
  if not code:find("%S") then options.raise(op, "the code must not be empty") end
end

local function environment(env)
  return env and next(env) and env or nil
end

local run_options = {
  env = "environment", timeout = "seconds", on_stdout = "function", on_event = "function", max_output = "natural",
  idle_timeout = "seconds",
}

--- Runs code in the session's bash and waits for its end: POST /v1/isolated/session/{id}/run.
---
--- As `run_command`, but what it writes to stderr comes as stdout, blank lines are missing, and the result has no id. With `env` it
--- runs in a subshell: its directory and variables do not last. Never `exit` outside of ( ): that ends the session. What reads stdin needs
--- `</dev/null`. When the wait ends before the code does, the code is interrupted; the session stays.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@param code string for bash
---@param opts? table env, timeout (whole seconds, else rounded up; execd interrupts the code then), on_stdout (called with text as it comes), on_event, max_output (bytes kept), idle_timeout (seconds without output, default none: there are no pings)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function isolated_run.run_isolated(self, execd, id, code, opts)
  local op = self.op or "run_isolated"
  local path = session_path(op, id, "/run")
  check_code(op, code)
  opts = options.check(op, opts, run_options)
  local timeout = opts.timeout and math.ceil(opts.timeout)
  return support.ask(self, op, execd, "isolated", function()
    return run.start(Run, self, execd, {
      op = op, path = path, timeout = timeout and timeout + GRACE or 0, idle_timeout = opts.idle_timeout or 0,
      json = { code = code, envs = environment(opts.env), timeout_seconds = timeout },
    }, opts)
  end)
end

---@class opensandbox.IsolatedRun
---@field id string
---@field session_id string
---@field started_at? number Unix seconds

local start_options = { env = "environment" }

--- Starts code in the background: POST /v1/isolated/session/{id}/run (execd 1.0.22). It runs as long as it takes, and ends with its
--- session.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string
---@param code string for bash
---@param opts? table env
---@return opensandbox.IsolatedRun? run
---@return opensandbox.Error? err
function isolated_run.start_isolated(self, execd, id, code, opts)
  local op = self.op or "start_isolated"
  local path = session_path(op, id, "/run")
  check_code(op, code)
  opts = options.check(op, opts, start_options)
  return support.ask(self, op, execd, BACKGROUND, function()
    local request = { op = op, method = "POST", path = path, headers = {}, timeout = self.http.timeouts.timeout, may_repeat = false,
      json = { code = code, envs = environment(opts.env), background = true } }
    local ex, err = call.open(self.http, self.http:endpoint_request(execd, request))
    if not ex then return nil, err end
    if ex.status ~= 202 then
      -- An older one takes it for a run in the foreground, which ends with the connection.
      ex:close()
      capabilities.set(self, execd, BACKGROUND, false)
      return nil, support.missing(op, execd, BACKGROUND)
    end
    local body
    body, err = ex:body(call.MAX_BODY_SIZE)
    if not body then return nil, err end
    local answer = json.decode(body)
    if type(answer) ~= "table" or type(answer.run_id) ~= "string" then
      return nil, call.unexpected_response(ex, "the answer holds no run")
    end
    return { id = answer.run_id, session_id = id, started_at = time.parse(answer.started_at) }
  end)
end

local function run_path(op, id, run_id, rest)
  return session_path(op, id, "/runs/" .. url.escape(options.path_segment(op, "the run id", run_id)) .. (rest or ""))
end

---@class opensandbox.IsolatedRunStatus
---@field id string
---@field session_id string
---@field running boolean
---@field exit_code? integer
---@field error? string "session terminated" when its session ended before it did
---@field started_at? number Unix seconds
---@field finished_at? number Unix seconds

--- How a run in the background is doing: GET /v1/isolated/session/{id}/runs/{run_id}.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string of the session
---@param run_id string
---@return opensandbox.IsolatedRunStatus? status
---@return opensandbox.Error? err
function isolated_run.get_isolated_run(self, execd, id, run_id)
  local op = self.op or "get_isolated_run"
  return support.call(self, execd, BACKGROUND, { op = op, method = "GET", path = run_path(op, id, run_id), decode = function(answer)
    if type(answer.running) ~= "boolean" then return nil, "status" end
    return { id = run_id, session_id = id, running = answer.running, exit_code = answer.exit_code, error = answer.error,
      started_at = time.parse(answer.started_at), finished_at = time.parse(answer.finished_at) }
  end })
end

--- Output of a run in the background, stdout and stderr in the order they were written: GET .../runs/{run_id}/logs.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string
---@param id string of the session
---@param run_id string
---@param cursor? integer byte offset to go on from, default 0
---@return string? text at most 16 MiB of it
---@return integer|opensandbox.Error cursor for the next call, or the error
function isolated_run.get_isolated_run_logs(self, execd, id, run_id, cursor)
  local op = self.op or "get_isolated_run_logs"
  local path = run_path(op, id, run_id, "/logs")
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "natural") end
  local log, err = support.call(self, execd, BACKGROUND, routes.log_request(op, path, cursor or 0, "execd-isolated-tail-cursor"))
  if not log then return nil, err end
  return log.text, log.cursor
end

return isolated_run

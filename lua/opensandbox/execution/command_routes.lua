--- The command routes of execd: a client method for each route.

local command_requests = require "opensandbox.execution.command_requests"
local options = require "opensandbox.base.options"
local run_command = require "opensandbox.execution.run_command"

---@class (partial) opensandbox.Client
local command_routes = {}

--- Runs a command and waits for its end: POST /command.
---
--- A non-zero exit code is a result. If the result could not be obtained, an error is returned; `err.result` holds the partial
--- result.
---
--- If the event stream breaks, the result is obtained from the command's status and from the output files that execd to 1.1.0
--- keeps; it then has the field `recovered`. If that is not possible, the error has kind `stream`, and `err.result` holds the exit
--- code if it is known.
---
--- With `capture = "exact"` the result holds the bytes as they were written. They are redirected to files in the sandbox's /tmp,
--- which are downloaded and removed; the callbacks are called at the end. With `durable` the command runs in the background, and
--- its log is read in short requests, so that no cut connection disturbs it. Both of its streams are then `stdout`, in the order
--- and with the bytes as written.
--- `stdin` is uploaded to a file in the sandbox's /tmp, which is removed afterwards.
--- ```lua
--- local result = assert(client:run_command(execd, "make test", { cwd = "/work", timeout = 600 }))
--- ```
---@param execd opensandbox.Endpoint|string an endpoint of discover_execd, or a URL
---@param given string|string[] a command line for the shell, or a program and its arguments
---@param opts? opensandbox.RunCommandOpts
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function command_routes:run_command(execd, given, opts)
  return run_command.run(self, execd, run_command.prepare(self.op or "run_command", given, opts))
end

--- Returns the status of a command: GET /command/status/{id}.
--- ```lua
--- print(assert(client:get_command_status(execd, id)).running)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function command_routes:get_command_status(endpoint, id, opts)
  local op = self.op or "get_command_status"
  options.path_segment(op, "the command id", id)
  return command_requests.status(self, endpoint, id, { timeout = options.timeout(op, opts) })
end

--- Returns output of a background command, stdout and stderr in the order in which they were written: GET /command/{id}/logs.
--- ```lua
--- local text, cursor = client:get_command_logs(execd, id, 0)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param cursor? integer byte offset where to begin, default 0
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return string? text at most 16 MiB of a longer log
---@return integer|opensandbox.Error cursor for the next call, or the error
function command_routes:get_command_logs(endpoint, id, cursor, opts)
  local op = self.op or "get_command_logs"
  options.path_segment(op, "the command id", id)
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "natural") end
  local log, err = command_requests.logs(self, endpoint, id, cursor or 0, { timeout = options.timeout(op, opts) })
  if not log then return nil, err end
  return log.text, log.cursor
end

--- Stops a running command: DELETE /command. Its process group receives SIGTERM and, after 3 seconds, SIGKILL.
--- ```lua
--- assert(client:interrupt_command(execd, id))
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function command_routes:interrupt_command(endpoint, id, opts)
  local op = self.op or "interrupt_command"
  local request = command_requests.interrupt(op, options.path_segment(op, "the command id", id))
  request.shielded, request.timeout = true, options.timeout(op, opts)
  local _, err = self.http:call_endpoint(endpoint, request)
  if err then return nil, err end
  return true
end

return command_routes

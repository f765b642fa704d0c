--- The command routes of execd: a client method for each route.

local options = require "opensandbox.base.options"
local requests = require "opensandbox.execution.command_requests"
local run_command = require "opensandbox.execution.run_command"

local command_routes = {}

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
function command_routes.run_command(self, execd, given, opts)
  return run_command.run(self, execd, run_command.prepare(self.op or "run_command", given, opts))
end

--- How a command is doing: GET /command/status/{id}.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@return opensandbox.CommandStatus? status
---@return opensandbox.Error? err
function command_routes.get_command_status(self, endpoint, id)
  return requests.status(self, endpoint, options.path_segment(self.op or "get_command_status", "the command id", id))
end

--- Output of a background command, stdout and stderr in the order they were written: GET /command/{id}/logs.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@param cursor? integer byte offset to go on from, default 0
---@return string? text of a very long log some 16 MiB at a time
---@return integer|opensandbox.Error cursor for the next call, or the error
function command_routes.get_command_logs(self, endpoint, id, cursor)
  local op = self.op or "get_command_logs"
  options.path_segment(op, "the command id", id)
  if cursor ~= nil then options.argument(op, "the cursor", cursor, "natural") end
  local log, err = requests.logs(self, endpoint, id, cursor or 0)
  if not log then return nil, err end
  return log.text, log.cursor
end

--- Ends a running command: SIGTERM to its process group, SIGKILL after 3 seconds: DELETE /command.
---@param self opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param id string
---@return true? ok
---@return opensandbox.Error? err
function command_routes.interrupt_command(self, endpoint, id)
  local op = self.op or "interrupt_command"
  local request = requests.interrupt(op, options.path_segment(op, "the command id", id))
  request.shielded = true
  local _, err = self.http:call_endpoint(endpoint, request)
  if err then return nil, err end
  return true
end

return command_routes

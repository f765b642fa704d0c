--- Errors as data.
--
-- A failure at run time is returned as `nil, err`, where `err` is a table with fields for programs that prints as one line for people.
-- The texts may change between versions; the fields do not. Texts can come from a hostile server, so they are made printable and short.

local each = require "opensandbox.base.each"
local lazy = require "opensandbox.base.lazy"
local numbers = require "opensandbox.base.numbers"

-- Files that are loaded with the first error.
local parts = lazy.modules { printable = "opensandbox.base.printable" }

--- The kind of a failure: `err.kind`.
--- ```lua
--- local result, err = sandbox:run("make test")
--- if not result and err.kind == "stream" then io.write(err.result.stdout) end
--- ```
---@alias opensandbox.ErrorKind
---| "transport" # the request could not be sent, or the connection broke
---| "timeout" # a time limit ran out; `timeout_option` names the option
---| "http" # the server refused the request; `status` and `code` say why
---| "stream" # the response broke off, and the result could not be proved; `result` holds the output that arrived
---| "protocol" # no OpenSandbox server sends such a response
---| "state" # the sandbox, a file or this machine is not in the state that the call needs
---| "cancelled" # the task was cancelled
---| "closed" # the object or the client is closed

--- The code of a failure: `err.code`. The codes in lower case are the library's, with their kinds. Those in upper case are the server's and
--- execd's, which have more of them than these.
--- ```lua
--- local sandbox, err = client:connect(id)
--- if not sandbox and err.code == "sandbox_gone" then sandbox = assert(client:create { image = "python:3.12" }) end
--- ```
---@alias opensandbox.ErrorCode
---| "bad_archive" # protocol: the sandbox's tar sent something that is not an archive
---| "bad_response" # protocol: the response is not HTTP. Check that the URL points at an OpenSandbox server
---| "body_failed" # state: the reader function or the handle of an upload failed
---| "body_too_large" # protocol: the response is larger than such a response can be
---| "broken_event" # stream: an event of the stream could not be read
---| "cancelled" # cancelled: the task was cancelled
---| "cannot_poll" # state: `wait_for_port` or `wait_for_file` cannot poll in this image, for example without `sleep`
---| "capture_failed" # state: the output could not be redirected to files, for example because /tmp is not writable
---| "check_failed" # state: `check` of a pool refused a sandbox
---| "close_timeout" # timeout: the server did not answer the close of a WebSocket
---| "closed" # closed: the object or the client is closed
---| "command_ended" # state: the command ended before `wait_for_log` found a line that matches
---| "compare_unavailable" # state: the options only_changed and delete_extra need find and cksum, which the sandbox does not have
---| "connect_failed" # transport: the connection was refused, or the host is unreachable
---| "connect_timeout" # timeout: no connection within the option `connect_timeout`
---| "create_failed" # state: `warm_up` or `on_state` of a pool raised an error
---| "cut" # stream: the response ended before it was complete
---| "delete_failed" # state: files could not be deleted in an isolated session
---| "directory_not_empty" # state: `rmdir` of a directory that is not empty. Use `remove(path, { recursive = true })`
---| "exit_code_unknown" # stream: the command ended, but no exit code could be obtained
---| "failed" # transport: the request failed for another reason, which the message says
---| "file_changed" # state: the file changed while it was downloaded. Download it again
---| "file_exists" # state: the target of a move exists
---| "follow_timeout" # timeout: the option timeout of `command:events` ran out
---| "forked" # closed: the process forked while the request ran
---| "frame_too_large" # protocol: one event is larger than the limit
---| "idle_timeout" # timeout: no byte arrived within the option `idle_timeout`
---| "input_unsure" # stream: input of a terminal may not have arrived, because a connection was cut
---| "list_too_long" # state: the list of the files in the sandbox is longer than `max_output`
---| "local_file" # state: a file of this machine cannot be read or written
---| "message_too_large" # protocol: a message of a WebSocket is too large
---| "name_refused" # state: a name of a directory upload needs tar, which the sandbox does not have
---| "no_descriptors" # transport: too many files are open. Raise the limit (`ulimit -n`)
---| "no_memory" # transport: there is not enough memory
---| "no_sidecar" # state: the sandbox was made from a template, and has no egress sidecar
---| "not_a_directory" # state: the path is not a directory
---| "not_a_file" # state: the path is not a regular file
---| "not_answered" # timeout: `wait_for_url` got no answer with the right status in time
---| "not_closed" # timeout: the pool's sandboxes were not deleted in time; the deletes continue
---| "not_filled" # timeout: the pool has fewer than `min_idle` ready sandboxes
---| "not_found" # timeout: `wait_for_file` did not find the path in time
---| "not_listening" # timeout: `wait_for_port` found no process that listens in time
---| "not_logged" # timeout: `wait_for_log` found no line that matches in time
---| "not_paused" # timeout: the sandbox was not paused in time
---| "not_ready" # timeout: no command could run in time, or the snapshot was not Ready in time
---| "other_server" # state: the handle belongs to a sandbox of another server
---| "output_differs" # stream: the stored output of a command differs from the output that had arrived
---| "output_lost" # stream: a part of the output is lost. The command ended, and `result.exit_code` is known; a terminal continues
---| "output_unread" # state: the terminal's command waits because its output is not read
---| "outside_workspace" # state: a path outside of the directories of an isolated session
---| "pool_exhausted" # timeout: `acquire` found no capacity in time
---| "proxy_failed" # transport: the proxy cannot be reached, or refuses to connect
---| "receive_failed" # transport: the connection broke before the response
---| "redirect" # protocol: the server answered with a redirect, which is never followed
---| "refused" # stream: execd refused the connection of a terminal, for a reason that the proxy does not pass on
---| "resolve_failed" # transport: the host name cannot be resolved
---| "run_failed" # state: a run in an isolated session did not start
---| "sandbox_failed" # state: the sandbox has failed; the message has the server's reason
---| "sandbox_gone" # state: the sandbox was deleted, or its lifetime is over
---| "sandbox_paused" # state: the sandbox is paused. Resume it first
---| "sandbox_pausing" # state: the sandbox is being paused
---| "sandbox_stopping" # state: the sandbox is being deleted
---| "sandbox_terminated" # state: the sandbox has ended
---| "send_failed" # transport: the connection broke while the request was sent
---| "session_ended" # state: the isolated session has ended
---| "sink_failed" # state: the local file of a download could not be written
---| "snapshot_deleting" # state: the snapshot is being deleted
---| "snapshot_failed" # state: the snapshot has failed; the message has the server's reason
---| "start_failed" # state: the command could not be started, for example because `cwd` does not exist
---| "stdin_closed" # state: the command has closed its standard input, or has ended
---| "stdin_failed" # stream: the script that passes the input to a command has ended
---| "store_failed" # state: the store of a pool failed; the message has its reason
---| "store_foreign" # state: the store of a pool holds something of another program
---| "store_timeout" # timeout: the store of a pool did not answer within the option `store_timeout`
---| "store_unreachable" # state: the store of a pool cannot be reached
---| "symlink_refused" # state: the files of an isolated session do not follow this symlink
---| "terminal_ended" # state: the command of the terminal has ended
---| "timeout" # timeout: the call was not finished within the option `timeout_option`
---| "tls_failed" # transport: TLS failed. Check the certificate, or the option `tls`
---| "unexpected_response" # protocol: a required part of the response is missing, or has the wrong type
---| "unsafe_archive" # state: the sandbox's archive holds a name that would leave the target directory. Nothing is written there
---| "unsupported" # state: this version of the server or of execd does not have the feature
---| "verify_failed" # state: the checksums of a transfer differ
---| "verify_unavailable" # state: `verify` needs the program cksum in the sandbox
---| "wait_timeout" # timeout: the command or the task has not ended in time; it continues
---| "warm_up_failed" # state: `warm_up` of a pool refused a sandbox
---| "watch_timeout" # timeout: the time of `files:watch` is over
---| "watch_unavailable" # state: `files:watch` needs find, stat and cksum, which the sandbox does not have
---| "websocket_violation" # protocol: the server violated the WebSocket protocol
---| "wrong_id" # state: the session of a terminal's id belongs to another terminal
---| "STDIN_WRITE_FAILED" # stream: the terminal did not take its input
---| "TAKEN_OVER" # state: another client has taken the terminal over
---| "ALREADY_CONNECTED" # state: another client is connected to the terminal. Use the option `takeover`
---| "VALIDATION" # http: the server refused fields of the request; the message names them
---| "HTTP_404" # http: and so on for each status: the response has no code of its own
---| "FILE_NOT_FOUND" # http: execd does not find the file, or the directory does not exist
---| "SESSION_NOT_FOUND" # state: the isolated session has ended, or never existed
---| "RUNTIME_ERROR" # http: execd could not do it; the message has the system's reason

--- The error that a failed call returns after nil. `tostring` makes one line of it, and `..` joins it to strings. The texts may change
--- between versions; the fields do not.
--- ```lua
--- local result, err = sandbox:run("make test", { timeout = 600 })
--- if not result then
---   print(err.kind, err.code, err.message, err.op, err.status, err.url, err.request_id, err.sandbox_id, err.hint)
---   if err.kind == "timeout" then print("raise the option", err.timeout_option) end
---   if err.retryable then print("try again in", err.retry_after, "s; tried", err.attempts, "times; not sent:", err.not_sent) end
---   if err.result then io.write(err.result.stdout) end
---   if err.session_ended then print("the isolated session is gone") end
---   if err.terminal_continues then print("call the method of the terminal again") end
---   if err.terminal_unreachable then print("call the method of the terminal again, or detach and attach later") end
---   print(err.command_id, err.cause)
--- end
--- ```
---@class opensandbox.Error
---@field kind opensandbox.ErrorKind the kind of failure
---@field code opensandbox.ErrorCode|string the server's code, else one of the library
---@field message string a description of the failure
---@field op string the method that the caller called: `create_sandbox`, `sandbox:run`, `files:read` ...
---@field status? integer the HTTP status
---@field url? string the request's method and URL, without credentials and query: "GET http://..."
---@field request_id? string the server's name for the request, for its logs
---@field sandbox_id? string the sandbox that the call was about
---@field timeout_option? string for kind `timeout`: the option whose time ran out
---@field timer? string internal, for kind `timeout`: the core's time limit: `connect_timeout`, `timeout` or `idle_timeout`
---@field attempts? integer how often the request was tried
---@field not_sent? boolean no byte of the request has reached the server
---@field command_id? string for a command: execd's id of it
---@field retryable boolean true if the same call may succeed later, without harm
---@field retry_after? number seconds the server asks to wait
---@field hint? string the remedy
---@field result? opensandbox.CommandResult for a command: the output that had arrived
---@field session_ended? boolean for a run in an isolated session: the session has ended with it
---@field terminal_continues? boolean of a terminal: input or output may be lost, but the terminal continues. The error is returned once
---@field terminal_unreachable? boolean of a terminal: it was not reached for 75 seconds, and may still run. Call the method again, or detach and attach later
---@field cause? opensandbox.Error the error behind this one

local errors = {}

-- Bytes of each text.
local MAX_LENGTH = { message = 1000, hint = 1000, code = 100, url = 500, request_id = 200, sandbox_id = 200 }
local MAX_LINE = 4000 -- bytes

local Error = {}
Error.__index = Error
Error.__name = "opensandbox.Error"

function Error:__tostring()
  local line = { self.op and (self.op .. ": ") or "", self.message or self.code or "unknown error" }
  local details = {}
  if self.status then details[#details + 1] = "HTTP " .. self.status end
  if self.code and self.code ~= "HTTP_" .. tostring(self.status) then details[#details + 1] = self.code end
  if self.url then details[#details + 1] = self.url end
  if self.request_id then details[#details + 1] = "request " .. self.request_id end
  if #details > 0 then line[#line + 1] = " [" .. table.concat(details, ", ") .. "]" end
  if self.hint then line[#line + 1] = ". " .. self.hint end
  return parts.printable(table.concat(line), MAX_LINE)
end

--- Makes `"failed: " .. err` work.
function Error.__concat(left, right)
  return tostring(left) .. tostring(right)
end

--- Makes an error of the given fields.
---@param fields table
---@return opensandbox.Error
function errors.new(fields)
  if fields.retryable == nil then fields.retryable = false end
  for name, limit in each(MAX_LENGTH) do
    if type(fields[name]) == "string" then fields[name] = parts.printable(fields[name], limit) end
  end
  return setmetatable(fields, Error)
end

--- Makes the fields of an error of kind `timeout`: the rule for its text and its hint.
---@param facts table code; text (the event that did not happen); option (the name of the caller's option); seconds (its value); hint (instead of the general one); any other field of an error
---@return table fields for errors.new
function errors.timeout_fields(facts)
  local fields = {}
  for name, value in each(facts) do fields[name] = value end
  fields.text, fields.option, fields.seconds = nil, nil, nil
  fields.kind, fields.timeout_option = "timeout", facts.option
  fields.message = ("%s: %s of %s s ran out"):format(facts.text, facts.option, numbers.format(facts.seconds or 0, "%.6g"))
  fields.hint = facts.hint or ("Raise the option %s if it needs longer"):format(facts.option)
  return fields
end

--- Makes an error of kind `timeout`.
---@param facts table as for timeout_fields, with `op`
---@return opensandbox.Error
function errors.timeout(facts)
  return errors.new(errors.timeout_fields(facts))
end

--- Makes an error about a file of this machine.
---@param op string
---@param path string
---@param problem string the system's message, which can contain the path
---@return opensandbox.Error
function errors.local_file(op, path, problem)
  local text = problem:find(path, 1, true) and problem or path .. ": " .. problem
  return errors.new { kind = "state", code = "local_file", op = op, message = text }
end

--- Returns whether a value is an error of this library.
--- ```lua
--- local ok, problem = opensandbox.pcall(work)
--- if not ok and opensandbox.is_error(problem) then print(problem.kind, problem.code) end
--- ```
---@param value any
---@return boolean
function errors.is(value)
  return getmetatable(value) == Error
end

--- Returns true for a 404 about the resource, and false for a 404 about an unknown route.
---@param err opensandbox.Error
function errors.is_absence(err)
  return err.status == 404 and err.code ~= "HTTP_404"
end

--- Returns the result of a call that deletes something. The call succeeds if the object does not exist any more.
---@param _ any the response
---@param err? opensandbox.Error
---@return true? ok
---@return opensandbox.Error? err
function errors.ignore_absence(_, err)
  if err and not errors.is_absence(err) then return nil, err end
  return true
end

--- Returns true if execd or a sidecar does not know the route or the method, because it is older or another service.
---@param err opensandbox.Error
function errors.is_unknown_route(err)
  -- An error with a code of its own is about a resource, whose name may be anything.
  return err.status == 405 or (err.code == "HTTP_404" and tostring(err.message):find("page not found", 1, true) ~= nil)
end

return errors

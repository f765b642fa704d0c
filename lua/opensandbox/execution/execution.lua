--- An execution: something that execd runs and reports as a stream of events, up to the event that proves that it ended.
--
-- Commands, shell sessions, code contexts and isolated sessions each have a class of executions. This file holds their common part.
-- A class overrides some of these methods:
--
--   method            called                                            overridden by
--   handlers          for each event, by its type                       command, code
--   decode_text       for the text of an output event                   code
--   result            to build the result                               session, code
--   on_terminal       after the terminal event                          command, isolated
--   on_server_error   after an error that execd appended to the stream  session, code
--   on_stream_end     at the end of a stream without a terminal event   code
--   on_timeout        when the timeout for the whole has passed         session, code, isolated
--   abandon           when the caller stops waiting                     command, code
--   stop_remote       to stop the process in the sandbox                command, code
--   recover           when the stream broke after the first event       command, code

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local output_buffer = require "opensandbox.execution.output_buffer"
local run_result = require "opensandbox.execution.run_result"
local url = require "opensandbox.base.url"

local execution = {}

local DRAIN_TIMEOUT = 5        -- seconds: execd keeps a stream open for 1 to 3 s after its end
local TIMEOUT_TOLERANCE = 0.98 -- execd's timer and its clock differ by a little

local TOO_LONG_HINT = "Linux takes at most 128 KiB in one argument or variable: write the text to a file with files:write, or pass "
  .. "it as the standard input (option stdin)"

--- Seconds that execd gets, after the timeout of a process, to kill the process and to report that.
execution.SERVER_TIMEOUT_GRACE = 10

--- Returns whether a process has run for its whole timeout.
---@param duration number seconds, from execd
---@param timeout? number seconds; nil: no limit
---@return boolean
function execution.has_used_timeout(duration, timeout)
  return timeout ~= nil and duration >= timeout * TIMEOUT_TOLERANCE
end

--- Returns whether a process was ended by its timeout. execd reports that as any other SIGKILL.
---@param exit_code? integer
---@param duration number seconds
---@param timeout? number seconds
---@return true?
function execution.timed_out(exit_code, duration, timeout)
  return exit_code == -1 and execution.has_used_timeout(duration, timeout) or nil
end

--- Returns the name of the signal that ended a process, if one did.
---@param exit_code? integer
---@param text string execd's reason: "signal: killed"
---@return string?
function execution.signal(exit_code, text)
  return exit_code == -1 and (text:match("signal: (.+)") or "unknown") or nil
end

---@class opensandbox.Execution
---@field client opensandbox.Client
---@field endpoint opensandbox.Endpoint|string of execd
---@field op string the method that the user called
---@field opts table the options of the call
---@field exchange table the exchange that carries the stream
---@field started_at number on the clock of core.now(); the moment of the request, then of the first event
---@field server_started_at? number milliseconds, from the first event
---@field max_output integer bytes of each stream to keep
---@field idle_timeout number seconds without a byte after which the stream counts as broken
---@field stdout table buffer, of output_buffer.lua
---@field stderr table buffer
---@field id? string execd's id, from the first event
---@field exit_code? integer
---@field signal? string name of the signal that ended the process
---@field timed_out? boolean its timeout ended it
---@field duration? number seconds, from execd
---@field error_event? table name, value and traceback, when execd reported that it did not end well
---@field terminal_seen? boolean the terminal event or an appended error has arrived
---@field server_error? table code and message that execd appended to the stream
---@field corrupt? string why the events cannot be trusted
local Execution = {}
Execution.__index = Execution

--- The base class, for methods that extend those of a class.
execution.base = Execution

--- The noun for the process in error messages.
Execution.noun = "command"

--- Returns the text that an output event stands for.
Execution.decode_text = output_buffer.line

local function append_output(self, buffer, callback, text)
  -- After corruption nothing is added, so that the text the callback has received stays a prefix of the output.
  if type(text) ~= "string" or self.corrupt then return end
  text = self.decode_text(text)
  buffer:append(text)
  if callback then self.exchange:call_user(callback, text) end
end

--- Handlers by the type of the event. An event of another type is ignored.
local handlers = {}
Execution.handlers = handlers

function handlers.stdout(self, event) append_output(self, self.stdout, self.opts.on_stdout, event.text) end

function handlers.stderr(self, event) append_output(self, self.stderr, self.opts.on_stderr, event.text) end

function handlers.init(self, event)
  if self.server_started_at and self.server_started_at == event.timestamp then
    self.corrupt = "the event stream restarted in the middle" -- the same event again; earlier output would follow it
  end
  self.started_at = core.now()
  self.server_started_at = event.timestamp
end

--- Records the terminal event. The duration is taken from execd where it reports one, because events can arrive late.
function Execution:record_terminal_event(event)
  self.terminal_seen = true
  if type(event.execution_time) == "number" then
    self.duration = event.execution_time / 1000
  elseif type(event.timestamp) == "number" and type(self.server_started_at) == "number" then
    self.duration = math.max(event.timestamp - self.server_started_at, 0) / 1000
  end
end

function handlers.execution_complete(self, event)
  self:record_terminal_event(event)
  self.exit_code = 0
end

--- Returns the error of an event. The sandbox is not trusted: a traceback holds strings alone.
---@return table name, value, traceback
function execution.error_of(event)
  local given = type(event.error) == "table" and event.error or {}
  local traceback = {}
  for i, line in ipairs(type(given.traceback) == "table" and given.traceback or {}) do traceback[i] = tostring(line) end
  return { name = given.ename, value = given.evalue, traceback = traceback }
end

handlers["error"] = function(self, event)
  local error_event = execution.error_of(event)
  self:record_terminal_event(event)
  if error_event.value == nil then self.corrupt = "the terminal event does not report how the command ended" end
  self:set_error(error_event)
end

--- Records the error that execd reported. The exit code is its value, if that is a whole number.
---@param error_event table name, value, traceback
function Execution:set_error(error_event)
  self.error_event = error_event
  local value = tostring(error_event.value)
  self.exit_code = value:find("^%-?%d%d?%d?%d?%d?%d?%d?%d?%d?%d?$") and tonumber(value) or nil
  self.signal = execution.signal(self.exit_code, error_event.traceback[1] or "")
end

local function dispatch(self, event)
  local handler = self.handlers[event.type]
  -- The id is set first: if the callback raises, the command is stopped by it.
  if event.type == "init" and not self.id and url.is_segment(event.text) then self.id = event.text end
  if self.opts.on_event then self.exchange:call_user(self.opts.on_event, event) end
  if handler then
    handler(self, event)
  elseif event.type == nil and type(event.code) == "string" and event.message ~= nil then
    -- After a failure behind the first event, execd appends its error body to the stream.
    self.terminal_seen = true
    self.server_error = { code = event.code, message = tostring(event.message) }
  end
end

--- Returns the result as far as it is known.
---@return opensandbox.CommandResult
function Execution:result()
  local stdout, stdout_dropped = self.stdout:text()
  local stderr, stderr_dropped = self.stderr:text()
  local duration = self.duration or core.now() - self.started_at
  return run_result {
    id = self.id, exit_code = self.exit_code, signal = self.signal, duration = duration,
    timed_out = self.timed_out or execution.timed_out(self.exit_code, duration, self.opts.timeout),
    stdout = stdout, stderr = stderr, stdout_dropped = stdout_dropped, stderr_dropped = stderr_dropped,
    error = self.error_event,
  }
end

--- Returns the hint for a command that was not started, if it is too long.
---@param text string execd's reason
---@return string? hint
function execution.length_hint(text)
  return text:find("argument list too long", 1, true) and TOO_LONG_HINT or nil
end

--- Returns the outcome of an error that execd appended to the stream. If the session is busy with another run, this one did not
--- start.
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Execution:on_server_error()
  local problem = self.server_error
  local is_busy = problem.message:find("session is busy", 1, true) ~= nil
  return nil, self.exchange:error { kind = "state", code = is_busy and "busy" or problem.code, message = problem.message,
    retryable = is_busy, result = self:result(), hint = execution.length_hint(problem.message) }
end

--- Returns the outcome after the terminal event.
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Execution:on_terminal()
  local ex = self.exchange
  if self.server_error then return self:on_server_error() end
  if self.error_event and not self.exit_code then
    local text = tostring(self.error_event.value)
    local trace = table.concat(self.error_event.traceback, " ")
    if (text .. trace):find("no child processes", 1, true) then
      return nil, ex:error { kind = "stream", code = "exit_code_unknown", result = self:result(),
        message = "the command ended, but this execd lost its exit code: " .. text }
    end
    return nil, ex:error { kind = "state", code = "start_failed", result = self:result(), hint = execution.length_hint(text),
      message = "the command could not be started: " .. text }
  end
  return self:result()
end

--- Called when the caller stops waiting. Returns true if the exchange must stay open in the background. Owners of waits have this
--- method.
---@return boolean
function Execution.abandon() return false end

--- Stops the process in the sandbox without waiting for the response.
---@param is_silent? boolean the server does not answer: closing the client does not wait for it either
function Execution.stop_remote(_, is_silent) end -- luacheck: ignore 212

--- An `abandon` for classes with `stop_remote`, which needs the id from the first event: until then the stream is read in the
--- background.
---@param self opensandbox.Execution
---@return boolean
function execution.stop_when_id_known(self)
  local ex = self.exchange
  if self.terminal_seen or not (self.id or ex:sent()) then return false end
  if self.id then
    self:stop_remote()
    return false
  end
  ex:take_over()
  self.client.cleanup:spawn(function()
    local frame = ex:head() and ex:frame()
    while frame and not self.id do
      local event = json.decode_raw(frame)
      if type(event) == "table" and event.type == "init" and url.is_segment(event.text) then
        self.id = event.text
        self:stop_remote()
      else
        frame = ex:frame()
      end
    end
    ex:close()
  end)
  return true
end

--- Called when the timeout for the whole has passed and the connection is closed. It may add to the error.
---@param err opensandbox.Error
function Execution:on_timeout(err) -- luacheck: ignore 212
  if self.id then self:stop_remote() end
end

--- Determines in another way how an execution ended, after its stream broke.
---@param err opensandbox.Error why the stream broke
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err the error to return
function Execution.recover(_, err) return nil, err end

-- Returns the outcome when the stream ended or fell silent before the terminal event, or when its events cannot be trusted.
local function on_stream_broken(self, err)
  local ex = self.exchange
  if self.terminal_seen then
    err = ex:error { kind = "stream", code = "broken_event", message = self.corrupt }
  elseif not err then
    if not self.id and (ex.headers["content-type"] or ""):find("html", 1, true) then
      return nil, call.unexpected_response(ex, "the response is not an event stream")
    end
    err = ex:error { kind = "stream", code = "cut",
      message = ("the event stream ended before the %s did%s"):format(self.noun,
        (self.id or self:result().stdout ~= "") and "" or ", without a single event") }
  end
  local was_abandoned = err.kind == "cancelled" or err.kind == "closed" -- `abandon` has been called
  local explained = was_abandoned and err or ex:explain(err)
  if explained ~= err then
    explained.result = self:result()
    explained.command_id = explained.result.id
    return nil, explained
  end
  if err.kind == "timeout" and err.timer == "timeout" then
    self:on_timeout(err)
  elseif self.id and not was_abandoned then
    local result
    result, err = self:recover(err)
    if result then return result end
  end
  err.result = self:result()
  err.command_id = err.result.id
  return nil, err
end

--- Called when the stream ended without an error and without a terminal event. Returns the outcome.
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function Execution:on_stream_end()
  return on_stream_broken(self)
end

-- Returns whether a frame that is not JSON started as an event.
local function is_truncated_event(frame)
  return frame:find('^{+"') ~= nil
end

-- Reads the events to the end of the execution.
local function follow(self)
  local ex, opts = self.exchange, self.opts
  local next_event = opts.on_event and ex.any_event or ex.output_event
  while true do
    -- Lines of output take a short path: half a million of them must not cost a second.
    local stream, text = next_event(ex)
    if stream == "stdout" then
      append_output(self, self.stdout, opts.on_stdout, text)
    elseif stream then
      append_output(self, self.stderr, opts.on_stderr, text)
    else
      local frame, err = text, nil
      if not frame then frame, err = ex:frame() end
      if err then return on_stream_broken(self, err) end
      if not frame then return self:on_stream_end() end
      local event = json.decode_raw(frame)
      if type(event) == "table" then
        dispatch(self, event)
      elseif is_truncated_event(frame) then
        self.corrupt = self.corrupt or "an event of the stream is truncated" -- it may have been output
      end -- any other text that is not JSON is ignored, as by all clients, because it proves nothing
      if self.terminal_seen then
        ex:detach(DRAIN_TIMEOUT)
        if self.corrupt then return on_stream_broken(self) end
        return self:on_terminal()
      end
    end
  end
end

--- Makes a class of executions.
---@param methods table methods that override those of the base class
---@param own_handlers? table handlers that override those of the base class, by the type of the event
---@return table class
function execution.class(methods, own_handlers)
  methods.__index = methods
  if own_handlers then methods.handlers = setmetatable(own_handlers, { __index = handlers }) end
  return setmetatable(methods, { __index = Execution })
end

--- Starts an execution and follows it to its end.
---@param class table of execution.class
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param request table op, path, json, headers; `timeout` (seconds for the whole, 0: none)
---@param opts table on_stdout, on_stderr, on_event, max_output, idle_timeout, timeout, and those that the class reads
---@param fields? table further fields of the object, for its class
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function execution.start(class, client, endpoint, request, opts, fields)
  local max_output = opts.max_output or client.max_output
  local self = setmetatable(fields or {}, class)
  self.client, self.endpoint, self.op, self.opts = client, endpoint, request.op, opts
  self.started_at, self.max_output = core.now(), max_output
  self.stdout, self.stderr = output_buffer.new(max_output), output_buffer.new(max_output)
  request.method, request.may_repeat, request.max_event = "POST", false, call.MAX_EVENT_SIZE
  request.headers = { Accept = "text/event-stream" }
  request.idle_timeout = request.idle_timeout or opts.idle_timeout or client.http.timeouts.idle_timeout
  self.idle_timeout = request.idle_timeout
  function request.on_abandon(ex)
    self.exchange = ex
    return self:abandon()
  end
  local ex, err = call.open(client.http, client.http:endpoint_request(endpoint, request))
  if not ex then return nil, err end
  self.exchange = ex
  return follow(self)
end

return execution

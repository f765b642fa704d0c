--- A run: something that execd executes and reports as a stream of events, up to the proof that it ended.
--
-- Commands, shell sessions, code and isolated sessions have runs. What they share is here; where they differ, their kind of run (see
-- `run.kind`) has methods of its own.

local call = require "opensandbox.http.call"
local capture = require "opensandbox.execution.output_buffer"
local core = require "opensandbox.core"
local json = require "opensandbox.base.json"

local run = {}

local DRAIN = 5              -- seconds: execd's tail is 1, or 3 where it was raised
local LONGEST_EVENT = 64 * 1024 * 1024 -- bytes

--- seconds that execd gets, beyond the timeout of what it runs, to end it and to say so
run.GRACE = 10

--- Whether it was the timeout that ended a run: execd reports that as any other kill.
---@return true?
function run.timed_out(exit_code, duration, timeout)
  return exit_code == -1 and timeout and duration >= timeout * 0.98 and true or nil
end

local Run = {}
Run.__index = Run

--- What a kind falls back on in a method of its own.
run.base = Run

--- The text that an event of output stands for.
Run.text_of = capture.line

--- What runs, in the words of errors.
Run.what = "command"

local function output(self, store, callback, text)
  if type(text) ~= "string" or self.broken then return end -- what was told stays the beginning of the whole
  text = self.text_of(text)
  store:append(text)
  if callback then self.exchange:call_user(callback, text) end
end

--- What each type of event does. One that is not here is passed over.
local handlers = {}
Run.handlers = handlers

function handlers.stdout(self, event) output(self, self.stdout, self.opts.on_stdout, event.text) end

function handlers.stderr(self, event) output(self, self.stderr, self.opts.on_stderr, event.text) end

function handlers.init(self, event)
  if self.began_there and self.began_there == event.timestamp then
    self.broken = "the event stream began anew in the middle" -- the very event again, and behind it what was told before
  end
  self.began = core.now()
  self.began_there = event.timestamp
end

--- The terminal event. How long the run took is best known where it ran: events may come late.
function Run:ended(event)
  self.done = true
  if type(event.execution_time) == "number" then
    self.duration = event.execution_time / 1000
  elseif type(event.timestamp) == "number" and type(self.began_there) == "number" then
    self.duration = math.max(event.timestamp - self.began_there, 0) / 1000
  end
end

function handlers.execution_complete(self, event)
  self:ended(event)
  self.exit_code = 0
end

handlers["error"] = function(self, event)
  local report = type(event.error) == "table" and event.error or {}
  self:ended(event)
  local traceback = type(report.traceback) == "table" and report.traceback or {}
  if report.evalue == nil then self.broken = "the event of the end does not say how it ended" end
  self:reported { name = report.ename, value = report.evalue, traceback = traceback }
end

--- What is known of a run that did not end well: `report` has name, value and traceback.
function Run:reported(report)
  self.report = report
  local value = tostring(report.value)
  self.exit_code = value:find("^%-?%d+$") and tonumber(value) or nil
  if self.exit_code == -1 then
    self.signal = tostring(report.traceback[1] or ""):match("signal: (.+)") or "unknown"
  end
end

local function handle(self, event)
  local handler = self.handlers[event.type]
  if event.type == "init" and not self.id then self.id = event.text end -- first: a callback that raises has the command stopped
  if self.opts.on_event then self.exchange:call_user(self.opts.on_event, event) end
  if handler then
    handler(self, event)
  elseif event.type == nil and type(event.code) == "string" and event.message ~= nil then
    -- A failure after the first event: execd appends its error body to the stream.
    self.done = true
    self.failure = { code = event.code, message = tostring(event.message) }
  end
end

--- The result as far as it is known.
function Run:result()
  local stdout, stdout_dropped = self.stdout:text()
  local stderr, stderr_dropped = self.stderr:text()
  local duration = self.duration or core.now() - self.began
  return {
    id = self.id, exit_code = self.exit_code, signal = self.signal, duration = duration,
    timed_out = self.timed_out or run.timed_out(self.exit_code, duration, self.opts.timeout),
    stdout = stdout, stderr = stderr, stdout_dropped = stdout_dropped, stderr_dropped = stderr_dropped,
    error = self.report,
  }
end

--- The outcome of a failure that came after the first event. Where another run holds the place, this one did not begin.
function Run:failed()
  local failure = self.failure
  local is_busy = failure.message:find("session is busy", 1, true) ~= nil
  return nil, self.exchange:error { kind = "state", code = is_busy and "busy" or failure.code, message = failure.message,
    retryable = is_busy, result = self:result() }
end

--- The outcome after the terminal event.
function Run:finish()
  local ex = self.exchange
  if self.failure then return self:failed() end
  if self.report and not self.exit_code then
    local text = tostring(self.report.value)
    local trace = table.concat(self.report.traceback, " ")
    if (text .. trace):find("no child processes", 1, true) then
      return nil, ex:error { kind = "stream", code = "exit_code_unknown", result = self:result(),
        message = "the command ended, but this execd lost its exit code: " .. text }
    end
    return nil, ex:error { kind = "state", code = "start_failed", result = self:result(),
      message = "the command could not be started: " .. text }
  end
  return self:result()
end

--- Nobody waits for the run any more. Returns whether the exchange goes on in the background for it.
function Run.abandon() return false end

--- For kinds with `stop`, which takes the id that comes with the first event: until then the stream goes on in the background.
function run.stop_once_known(self)
  local ex = self.exchange
  if self.done or not (self.id or ex:sent()) then return false end
  if self.id then
    self:stop()
    return false
  end
  ex:take_over()
  self.client.cleanup:spawn(function()
    local frame = ex:head() and ex:frame()
    while frame and not self.id do
      local event = json.decode_raw(frame)
      if type(event) == "table" and event.type == "init" then
        self.id = event.text
        self:stop()
      else
        frame = ex:frame()
      end
    end
    ex:close()
  end)
  return true
end

--- Stops the run on the server, without waiting for the answer. `silent`: the server does not answer anyway.
function Run.stop() end

--- The time for the whole has run out, and the connection is closed; `err` says so, and may be told more.
function Run:overdue()
  if self.id then self:stop() end
end

--- Finds out by other ways how a run ended whose stream broke: gives its result, or nil and the error to return.
function Run.settle(_, err) return nil, err end

-- The stream ended, or went silent, before the terminal event; or what it held cannot be trusted.
function Run:cut(err)
  local ex = self.exchange
  if self.done then
    err = ex:error { kind = "stream", code = "broken_event", message = self.broken }
  elseif not err then
    if not self.id and (ex.headers["content-type"] or ""):find("html", 1, true) then
      return nil, call.unexpected_response(ex, "the answer is not an event stream")
    end
    err = ex:error { kind = "stream", code = "cut",
      message = ("the event stream ended before the %s did%s"):format(self.what,
        (self.id or self:result().stdout ~= "") and "" or ", without a single event") }
  end
  local gave_up = err.kind == "cancelled" or err.kind == "closed" -- the exchange has seen to it
  local explained = gave_up and err or ex:explain(err)
  if explained ~= err then
    explained.result = self:result()
    explained.command_id = explained.result.id
    return nil, explained
  end
  if err.kind == "timeout" and err.timer == "timeout" then
    self:overdue(err)
  elseif self.id and not gave_up then
    local result
    result, err = self:settle(err)
    if result then return result end
  end
  err.result = self:result()
  err.command_id = err.result.id
  return nil, err
end

--- The stream has ended, and ended well: was that the proof?
function Run:at_end()
  return self:cut()
end

-- Whether a frame that is not JSON began as an event.
local function is_torn(frame)
  return frame:find('^{+"') ~= nil
end

--- Follows the events to the end of the run.
function Run:follow()
  local ex, opts = self.exchange, self.opts
  local next_event = opts.on_event and ex.any_event or ex.output_event
  while true do
    -- Lines of output without a detour: half a million of them must not cost a second.
    local stream, text = next_event(ex)
    if stream == "stdout" then
      output(self, self.stdout, opts.on_stdout, text)
    elseif stream then
      output(self, self.stderr, opts.on_stderr, text)
    else
      local frame, err = text, nil
      if not frame then frame, err = ex:frame() end
      if err then return self:cut(err) end
      if not frame then return self:at_end() end
      local event = json.decode_raw(frame)
      if type(event) == "table" then
        handle(self, event)
      elseif is_torn(frame) then
        self.broken = self.broken or "an event of the stream is torn" -- it may have been output
      end -- what else is not JSON is passed over, as every client does: it proves nothing
      if self.done then
        ex:drain(DRAIN)
        if self.broken then return self:cut() end
        return self:finish()
      end
    end
  end
end

--- A kind of run: `methods` and `handlers` over those that all have.
function run.kind(methods, own_handlers)
  methods.__index = methods
  if own_handlers then methods.handlers = setmetatable(own_handlers, { __index = handlers }) end
  return setmetatable(methods, { __index = Run })
end

--- Starts a run and follows it to its end.
---@param kind table from run.kind
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param request table op, path, json, headers; `timeout` (seconds for the whole, 0: none)
---@param opts table on_stdout, on_stderr, on_event, max_output, idle_timeout, timeout, and what the kind looks at
---@param own? table fields that the run has from the beginning, for its kind
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function run.start(kind, client, endpoint, request, opts, own)
  local limit = opts.max_output or client.max_output
  local self = setmetatable(own or {}, kind)
  self.client, self.endpoint, self.op, self.opts, self.began, self.limit = client, endpoint, request.op, opts, core.now(), limit
  self.stdout, self.stderr = capture.new(limit), capture.new(limit)
  request.method, request.may_repeat, request.max_event = "POST", false, LONGEST_EVENT
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
  return self:follow()
end

return run

--- Running a command: POST /command, and its stream of events up to the proof that it ended.
--
-- The call returns at the terminal event. execd keeps the stream open for a second after it; the rest is drained in the background,
-- so that the connection can be used again. A stream that ends without a terminal event is an error that carries what arrived.

local call = require "opensandbox.call"
local capture = require "opensandbox.capture"
local core = require "opensandbox.core"
local json = require "opensandbox.json"
local options = require "opensandbox.options"
local shell = require "opensandbox.shell"
local task = require "opensandbox.task"
local url = require "opensandbox.url"

local command = {}

local GRACE = 10             -- seconds that execd gets, beyond the command's timeout, to end it and to say so
local DRAIN = 5              -- seconds: execd's tail is 1, or 3 where it was raised
local LONGEST_EVENT = 64 * 1024 * 1024 -- bytes

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
---@field error? table { name, value, traceback } as execd reported it

local known_options = {
  cwd = "text", timeout = "seconds", env = "strings", uid = "count", gid = "count", background = "boolean",
  on_stdout = "function", on_stderr = "function", on_event = "function", max_output = "count", idle_timeout = "seconds",
}

--- The command line of what `run` takes: a string is for the shell, a list is quoted argument by argument.
function command.line(op, given)
  if type(given) == "table" then
    options.argument(op, "the command", given, "list")
    if #given == 0 or given[1] == "" then options.raise(op, "the command must not be an empty list") end
    given = shell.join(given)
  else
    options.argument(op, "the command", given, "text")
  end
  if given:find("%z") then options.raise(op, "the command holds a NUL byte") end
  return given
end

-- The state of a run: what has arrived, and how it ended.
local Run = {}
Run.__index = Run

local function output(run, store, callback, text)
  if type(text) ~= "string" then return end
  text = capture.line(text)
  store:append(text)
  if callback then run.exchange:guard(callback, text) end
end

local handlers = {}

function handlers.stdout(run, event) output(run, run.stdout, run.opts.on_stdout, event.text) end

function handlers.stderr(run, event) output(run, run.stderr, run.opts.on_stderr, event.text) end

function handlers.init(run, event)
  run.began = core.now()
  run.began_there = event.timestamp
end

-- The terminal event. How long the command took is best known where it ran: events may come late.
local function ended(run, event)
  run.done = true
  if type(event.execution_time) == "number" then
    run.duration = event.execution_time / 1000
  elseif type(event.timestamp) == "number" and type(run.began_there) == "number" then
    run.duration = math.max(event.timestamp - run.began_there, 0) / 1000
  end
end

function handlers.execution_complete(run, event)
  ended(run, event)
  if not run.opts.background then run.exit_code = 0 end
end

handlers["error"] = function(run, event)
  local report = type(event.error) == "table" and event.error or {}
  ended(run, event)
  local traceback = type(report.traceback) == "table" and report.traceback or {}
  run.report = { name = report.ename, value = report.evalue, traceback = traceback }
  run.exit_code = tonumber(tostring(report.evalue):match("^%-?%d+"))
  if run.exit_code ~= tonumber(report.evalue) then run.exit_code = nil end -- it only began like a number
  if run.exit_code == -1 then
    run.signal = tostring(run.report.traceback[1] or ""):match("signal: (.+)") or "unknown"
  end
end

local function handle(run, event)
  local handler = handlers[event.type]
  if event.type == "init" then run.id = event.text end -- first: a callback that raises has the command stopped
  if run.opts.on_event then run.exchange:guard(run.opts.on_event, event) end
  if handler then
    handler(run, event)
  elseif event.type == nil and type(event.code) == "string" and event.message ~= nil then
    -- A failure after the first event: execd appends its error body to the stream.
    run.done = true
    run.failure = { code = event.code, message = tostring(event.message) }
  end
end

function Run:result()
  local stdout, stdout_dropped = self.stdout:text()
  local stderr, stderr_dropped = self.stderr:text()
  local duration = self.duration or core.now() - self.began
  local limit = self.opts.timeout
  return {
    id = self.id, exit_code = self.exit_code, signal = self.signal, duration = duration,
    timed_out = (self.exit_code == -1 and limit and duration >= limit * 0.98) and true or nil,
    stdout = stdout, stderr = stderr, stdout_dropped = stdout_dropped, stderr_dropped = stderr_dropped,
    error = self.report,
  }
end

-- The outcome after the terminal event.
function Run:finish()
  local result = self:result()
  local ex = self.exchange
  if self.failure then
    return nil, ex:error { kind = "state", code = self.failure.code, message = self.failure.message, result = result }
  end
  if self.report and not self.exit_code then
    local text = tostring(self.report.value)
    local trace = table.concat(self.report.traceback, " ")
    if (text .. trace):find("no child processes", 1, true) then
      return nil, ex:error { kind = "stream", code = "exit_code_unknown", result = result,
        message = "the command ended, but this execd lost its exit code: " .. text }
    end
    return nil, ex:error { kind = "state", code = "start_failed", result = result,
      message = "the command could not be started: " .. text }
  end
  return result
end

-- Stops the command on the server, without waiting for the answer; closing the client does, unless the server is silent anyway.
function Run:interrupt(silent)
  self.client:_forget(self.client:_endpoint(self.execd, {
    op = "interrupt_command", method = "DELETE", path = "/command" .. url.query { { "id", self.id } }, may_repeat = false,
  }), not silent)
end

-- Nobody waits for the command any more. Its id comes with the first event: until then it cannot be stopped, so the stream goes on in
-- the background up to there. Returns whether it does.
function Run:abandon()
  local ex = self.exchange
  if self.done or not (self.id or ex.transfer:sent()) then return false end
  if self.id then
    self:interrupt()
    return false
  end
  ex.call.on_abandon = nil
  task.background(self.client, function()
    local frame = ex:head() and ex:frame()
    while frame and not self.id do
      local event = json.decode_raw(frame)
      if type(event) == "table" and event.type == "init" then
        self.id = event.text
        self:interrupt()
      else
        frame = ex:frame()
      end
    end
    ex:close()
  end)
  return true
end

-- The error for a stream that ended, or went silent, before the terminal event.
function Run:cut(err)
  local ex = self.exchange
  if not err then
    if not self.id and (ex.headers["content-type"] or ""):find("html", 1, true) then
      return call.surprise(ex, "the answer is not an event stream")
    end
    err = ex:error { kind = "stream", code = "cut",
      message = "the event stream ended before the command did" .. (self.id and "" or ", without a single event") }
  end
  if err.kind == "timeout" and self.id then self:interrupt(err.clock == "idle_timeout") end
  err.result = self:result()
  err.command_id = self.id
  return err
end

function Run:events()
  local ex, opts = self.exchange, self.opts
  local transfer = ex.transfer
  local next_event = not opts.on_event and transfer.event or function() return nil, transfer:frame() end
  while true do
    -- Lines of output without a detour: half a million of them must not cost a second.
    local stream, text = next_event(transfer)
    if stream == "stdout" then
      output(self, self.stdout, opts.on_stdout, text)
    elseif stream then
      output(self, self.stderr, opts.on_stderr, text)
    else
      local frame, err = text, nil
      if not frame then frame, err = ex:frame() end
      if not frame then return nil, self:cut(err) end
      local event = json.decode_raw(frame)
      if type(event) == "table" then -- what is not JSON is passed over, as every client does: it proves nothing
        handle(self, event)
        if self.done then
          ex:drain(DRAIN)
          return self:finish()
        end
      end
    end
  end
end

--- Runs a command and waits for its end: POST /command.
---
--- A non-zero exit code is a result. An error is what kept the result from us: it carries what had arrived as `err.result`.
---@param self opensandbox.Client
---@param execd opensandbox.Endpoint|string what discover_execd returns, or a URL
---@param given string|string[] for the shell, or a program and its arguments
---@param opts? table cwd, env, timeout (seconds; execd kills the command then), uid, gid, background (return once started), on_stdout, on_stderr (called with text as it comes), on_event, max_output (bytes kept of each stream), idle_timeout (seconds)
---@return opensandbox.CommandResult? result
---@return opensandbox.Error? err
function command.run_command(self, execd, given, opts)
  local op = "run_command"
  local line = command.line(op, given)
  opts = options.check(op, opts, known_options)
  if opts.gid and not opts.uid then options.raise(op, "option 'gid' needs option 'uid'") end
  local body, problem = json.encode {
    command = line, cwd = opts.cwd, background = opts.background or nil, uid = opts.uid, gid = opts.gid,
    timeout = opts.timeout and math.ceil(opts.timeout * 1000) or nil,
    envs = opts.env and next(opts.env) and opts.env or nil,
  }
  if not body then options.raise(op, problem) end
  local request = self:_endpoint(execd, {
    op = op, method = "POST", path = "/command", body = body, may_repeat = false, framed = true, frame_limit = LONGEST_EVENT,
    headers = { ["Content-Type"] = "application/json", Accept = "text/event-stream" },
    timeout = opts.timeout and opts.timeout + GRACE or 0,
    idle_timeout = opts.idle_timeout or self._clocks.idle_timeout,
  })
  local limit = opts.max_output or self.max_output
  local run = setmetatable({
    client = self, execd = execd, opts = opts, began = core.now(), stdout = capture.new(limit), stderr = capture.new(limit),
  }, Run)
  function request.on_abandon(ex)
    run.exchange = ex
    return run:abandon()
  end
  local ex, err = call.open(self, request)
  if not ex then return nil, err end
  run.exchange = ex
  return run:events()
end

return command

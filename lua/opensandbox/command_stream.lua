--- The events of a command in the foreground, one by one: `sandbox:stream()`.
--
-- A task runs the command and puts its events into a queue of limited size. While the queue is full the task waits, so that nothing is
-- lost and little is held, however slow the reader is. The task does not refer to the stream: when the stream is closed or collected, the
-- task is cancelled, which stops the command.

local class = require "opensandbox.base.class"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local loop = require "opensandbox.loop"
local options = require "opensandbox.base.options"
local scheduler = require "opensandbox.loop.scheduler"
local tables = require "opensandbox.base.tables"
local task_group = require "opensandbox.loop.task_group"

local OP = "sandbox:stream"
local MAX_QUEUED = 256 * 1024    -- bytes of text that wait for the reader
local EVENT_SIZE = 64            -- bytes that an event counts beside its text, because many lines are empty
local MAX_OUTPUT = 64 * 1024     -- bytes of each stream that an error's `result` has
local STOP_TIMEOUT = 2           -- seconds that `close` waits for the request that stops the command

-- One run of a command, which the stream and its task share.
local Run = {}
Run.__index = Run

-- Puts an event into the queue. Called by the task.
function Run:put(event)
  self.last = self.last + 1
  self.events[self.last] = event
  self.size = self.size + #event.text + EVENT_SIZE
  scheduler.wake_all(self.readers)
  local wait = self.size > MAX_QUEUED and scheduler.expect { registry = self.writers, key = {} }
  while self.size > MAX_QUEUED do
    local interruption, reason = loop.wait(wait)
    if interruption then error(loop.interrupted(OP, interruption, reason), 0) end
  end
end

-- Takes the next event out of the queue. Called by the reader.
function Run:take()
  local event = self.events[self.first]
  if not event then return nil end
  self.events[self.first] = nil
  self.first = self.first + 1
  self.size = self.size - #event.text - EVENT_SIZE
  if self.size <= MAX_QUEUED then
    scheduler.wake_all(self.writers)
  end
  return event
end

-- Starts the task.
function Run:start()
  local execute = self.execute
  self.process = core.process()
  self.task = self.tasks:spawn(function()
    local ok, result, err = coxpcall.pcall(execute)
    if ok then self.result, self.err = result, err else self.raised = { value = result } end
    self.has_ended = true
    scheduler.wake_all(self.readers)
  end)
end

--- Internal: stops the command without waiting. Waits call this when the host has ended the coroutine of the reader.
function Run:abandon()
  self.is_closed = true
  if self.task and self.process == core.process() then self.task:cancel() end
  scheduler.wake_all(self.readers)
end

--- Internal: stops the command when the client is closed.
---@return opensandbox.TaskGroup tasks that end soon
function Run:on_client_close()
  self:abandon()
  return self.tasks
end

--- Output of a command, or its end.
--- ```lua
--- for event in sandbox:stream("make test") do
---   if event.type == "exit" then
---     print(event.id, event.exit_code, event.signal, event.timed_out, event.duration, event.error, event.recovered)
---   else
---     io.write(event.text)
---   end
--- end
--- ```
---@class opensandbox.StreamEvent
---@field type string "stdout", "stderr", or "exit" for the last event
---@field text? string stdout, stderr: one or more lines with their ends
---@field id? string exit: execd's id of the command
---@field exit_code? integer exit: 0 on success; -1 when a signal ended it
---@field signal? string exit: name of the signal that ended it
---@field timed_out? boolean exit: the command's timeout ended it
---@field duration? number exit: seconds
---@field error? table exit: { name, value, traceback } as execd reported it
---@field recovered? boolean exit: the event stream broke, and the rest was obtained by other requests

--- The events of a command: `sandbox:stream`.
--- ```lua
--- for event in sandbox:stream("make test") do print(event.type) end
--- ```
---@class opensandbox.CommandStream
local Stream = {}
Stream.__index = Stream
Stream.__name = "opensandbox.CommandStream"

local command_stream = {}

local function closed_error(self)
  return errors.new { kind = "closed", code = "closed", op = OP, sandbox_id = self._sandbox_id, message = "the stream is closed" }
end

-- Returns the last event, or nil and the error.
local function outcome(self)
  local run = self._run
  self._finished = true
  if run.raised then error(run.raised.value, 0) end
  local result = run.result
  if not result then return nil, run.err end
  return { type = "exit", id = result.id, exit_code = result.exit_code, signal = result.signal, timed_out = result.timed_out,
    duration = result.duration, error = result.error, recovered = result.recovered }
end

--- Waits for the next event and returns it. The first call starts the command. If the task that waits is cancelled, the command is stopped.
--- ```lua
--- local stream = sandbox:stream("make test")
--- local event, err = stream:next()
--- ```
---@return opensandbox.StreamEvent? event nil after the last one
---@return opensandbox.Error? err
function Stream:next()
  local run = self._run
  if self._finished then return nil end
  if not run.task and not run.is_closed then run:start() end
  local wait
  while true do
    if run.is_closed then
      self._finished = true
      return nil, closed_error(self)
    end
    local event = run:take()
    if event then return event end
    if run.has_ended then return outcome(self) end
    if wait then
      local interruption, reason = loop.wait(wait)
      if interruption then
        self._finished = true
        run:abandon()
        return nil, loop.interrupted(OP, interruption, reason)
      end
    end
    wait = wait or scheduler.expect { registry = run.readers, key = {}, owner = run } -- and check again
  end
end

-- For `for event in sandbox:stream(command) do`. An error is raised, because a loop would hide it.
function Stream:__call()
  local event, err = self:next()
  if err then error(err, 0) end
  return event
end

--- Stops the command if it runs, and waits until that was sent. Later calls of `next` return an error.
--- ```lua
--- local stream = sandbox:stream("tail -f /var/log/app.log")
--- print(assert(stream:next()).text)
--- stream:close()
--- ```
---@return true
function Stream:close()
  local run = self._run
  run:abandon()
  if run.process == core.process() then run.tasks:join(deadline.new(STOP_TIMEOUT)) end
  return true
end

Stream.__close = Stream.close

--- The options of `sandbox:stream`.
--- ```lua
--- local stream = sandbox:stream("sort", {
---   cwd = "/work", env = { LC_ALL = "C" }, timeout = "1m", uid = 1000, gid = 1000, stdin = "b\na\n", durable = false,
---   idle_timeout = 30,
--- })
--- for event in sandbox:stream({ "ls", "-l" }, { shell = false }) do print(event.text) end
--- ```
---@class opensandbox.StreamOpts
---@field cwd? string the directory to run in, which must exist; default: the image's
---@field env? table<string, string> environment variables, in addition to the sandbox's
---@field timeout? opensandbox.Duration execd kills the command then, and up to 10 s more pass for the rest of its output; default: none
---@field uid? integer the user to run as; default: execd's
---@field gid? integer needs uid
---@field stdin? string|file*|{ path: string }|fun(): string? the standard input, as of opensandbox.RunOpts
---@field shell? boolean false: starts a list without a shell
---@field durable? boolean follows the log in short requests; all output is "stdout" then
---@field idle_timeout? opensandbox.Duration without an event, default: the client's

local stream_options = {
  cwd = "nonempty string", env = "environment", timeout = "seconds", uid = "natural", gid = "natural", stdin = "any",
  shell = "boolean", durable = "boolean", idle_timeout = "seconds",
}

--- Makes a stream. Nothing is sent.
---@param sandbox opensandbox.Sandbox
---@param opts? opensandbox.StreamOpts
---@param prepare fun(op: string, opts: table): fun() checks the command and the options, and returns the function that runs it
---@return opensandbox.CommandStream
function command_stream.new(sandbox, opts, prepare)
  opts = options.check(OP, opts, stream_options)
  local run = setmetatable({
    events = {}, first = 1, last = 0, size = 0, -- size in bytes
    readers = {}, writers = {},                  -- waiters
    tasks = task_group.new(), task = nil, process = core.process(),
    has_ended = false, is_closed = false, result = nil, err = nil, raised = nil,
  }, Run)
  run.execute = prepare(OP, tables.merge(opts, {
    on_stdout = function(text) run:put { type = "stdout", text = text } end,
    on_stderr = function(text) run:put { type = "stderr", text = text } end,
    max_output = MAX_OUTPUT,
  }))
  sandbox.client:add_close_listener(run)
  return setmetatable({ _run = run, _sandbox_id = sandbox.id, _finished = false,
    _finalizer = finalizer(function() run:abandon() end) }, Stream)
end

class.check_colon(Stream, "stream")

return command_stream

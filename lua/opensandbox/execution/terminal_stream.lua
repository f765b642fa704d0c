--- The connection to a terminal session, which survives its WebSockets.
--
-- A WebSocket that ends too early is replaced by a new one in a background task, while any code waits for the terminal. The new one begins at
-- the first byte that was not received. Before it is opened, execd is asked whether the command runs, because a WebSocket to a session that
-- has ended would start the command again. Another client that takes the terminal over ends the stream.
--
-- Input is sent once. A pong answers the ping behind each piece of input when execd has passed it on. Input without a pong at the end of a
-- WebSocket may have been lost, which is reported once.
--
-- Several coroutines can use a stream. Whichever is running takes the messages that have arrived, and wakes the others.

local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadlines = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local execution = require "opensandbox.execution.execution"
local exit_code_of = require("opensandbox.base.fields").exit_code
local json = require "opensandbox.base.json"
local loop = require "opensandbox.loop"
local shared_wait = require "opensandbox.loop.shared_wait"
local tables = require "opensandbox.base.tables"
local task = require "opensandbox.loop.task"
local terminal_output = require "opensandbox.execution.terminal_output"
local terminal_script = require "opensandbox.execution.terminal_script"

local terminal_stream = {}

local STDIN, STDOUT, STDERR, REPLAY = "\0", 1, 2, 3 -- channels: the first byte of a binary message
local MAX_UNREAD = 1024 * 1024 -- bytes of output kept here; more stay in the connection, and the command waits
local UNREAD_TIMEOUT = 5       -- seconds: execd disconnects a client that does not read for 10
local NO_LIMIT = deadlines.new()
local MAX_INPUT = 64 * 1024    -- bytes of a message
local MAX_DELAY = 2            -- seconds between two attempts
local MAX_REFUSALS = 5         -- of the first WebSocket
local TAKEN_OVER = 4001        -- close code
local POLICY_VIOLATION = 1008  -- close code of the server's proxy where execd has refused the connection
local PING = json.encode { type = "ping" }
local CHECK_IMAGE = "Check the execd image that the server gives its sandboxes"
local MAX_PINGS = 64           -- without a pong
local MAX_NOTICES = 16         -- that nobody has received
local MAX_ERROR_TEXT = 1000    -- bytes
local MAX_EXIT_CODE = 255
local MAX_OFFSET = 2 ^ 52      -- bytes: every number of Lua is exact up to there

--- The seconds after which a series of attempts to attach is given up. execd may keep the place of a connection that was cut for 60.
terminal_stream.REATTACH_TIMEOUT = 75

---@class opensandbox.TerminalStream
---@field output opensandbox.TerminalOutput
---@field exit_code? integer the command has ended, and all its output was received
---@field failure? opensandbox.Error nothing more is received
local Stream = {}
Stream.__index = Stream

--- Makes a stream. Nothing is sent.
---@param options table client; sandbox_id; endpoint (a function of op); id (of the session); token (of its marks, or nil); since (offset or nil); takeover; pipes (instead of a terminal); fresh (the session was created just now); size (cols and rows, or nil); on_exit (called once when the command has ended)
---@return opensandbox.TerminalStream
function terminal_stream.new(options)
  return setmetatable({
    client = options.client, sandbox_id = options.sandbox_id, endpoint = options.endpoint, id = options.id, token = options.token,
    on_exit = options.on_exit,
    output = terminal_output.new(options.token, options.since or 0),
    any_start = options.since == nil,  -- it may begin later than at its offset
    takeover = options.takeover or options.fresh, -- a fresh session can only have an earlier connection of this stream
    pipes = options.pipes,
    must_ask = not options.fresh,      -- whether the command runs, before the next WebSocket
    news = shared_wait.new(options.client.http.transport),
    size = options.size,               -- cols and rows, sent after each attach
    connection = nil,                  -- the current WebSocket
    accepted = false,                  -- execd has sent something on it
    was_accepted = false,              -- or on an earlier one
    refusal = nil, refusals = 0,       -- error of a WebSocket that was closed before, and the number of those in a row
    exit_frame = nil,                  -- exit code reported by execd
    last_problem = nil,                -- why the last attempt to attach failed, or the last WebSocket was closed
    series = nil,                      -- attempts to attach: backoff, limit
    attached_at = nil,                 -- when the last WebSocket was opened, and the offset of the output then
    attached_offset = nil,
    outages = 0, outage = nil,         -- series that were given up, and the last error
    notices = {},                      -- errors to be reported once
    sent = 0, acknowledged = 0,        -- bytes of input
    pings = {},                        -- values of `sent` at pings without a pong
    ping_due = false,                  -- input was sent since the last ping
  }, Stream)
end

--- Makes an error of the stream.
---@param op string
---@param fields table
---@return opensandbox.Error
function Stream:error(op, fields)
  fields.op, fields.sandbox_id = op, self.sandbox_id
  return errors.new(fields)
end

-- Returns a copy of an error that names the method that the user called.
local function for_op(op, err)
  local copy = tables.merge(err)
  copy.op = op
  return errors.new(copy)
end

local function fail(self, err)
  self.failure = self.failure or err
  self.output:flush()
end

-- Adds an error that does not end the terminal.
local function add_notice(self, fields)
  if #self.notices >= MAX_NOTICES then return end
  fields.kind, fields.terminal_continues = "stream", true
  self.notices[#self.notices + 1] = fields
end

-- The command has ended, and all its output was received. Its exit code is -1 where the sandbox reports one that no process can have.
local function finish(self, exit_code)
  self.exit_code = exit_code >= 0 and exit_code <= MAX_EXIT_CODE and exit_code or -1
  local connection = self.connection
  self.connection = nil
  self.output:flush()
  if connection then
    if self.token then connection:try_send("binary", STDIN .. terminal_script.acknowledgement(self.token)) end
    connection:detach()
  end
  if self.on_exit then self.on_exit() end
end

local frames = {}

function frames.connected(self)
  self.any_start = false -- what is sent again came before
  if not self.size then return end
  self.connection:try_send("text", json.encode { type = "resize", cols = self.size.cols, rows = self.size.rows })
end

function frames.exit(self, frame)
  self.exit_frame = self.exit_frame or exit_code_of(frame.exit_code) or -1
end

function frames.pong(self)
  self.acknowledged = table.remove(self.pings, 1) or self.acknowledged
end

function frames.error(self, frame)
  local code, text = frame.code, type(frame.error) == "string" and frame.error:sub(1, MAX_ERROR_TEXT) or "execd does not say why"
  if code == "START_FAILED" then
    fail(self, self:error("sandbox:terminal", { kind = "state", code = code, message = "the command was not started: " .. text,
      hint = execution.length_hint(text) or "Check the option 'cwd', and that the image has a shell" }))
  elseif code == "STDIN_WRITE_FAILED" then
    add_notice(self, { code = "STDIN_WRITE_FAILED", message = "the terminal did not take its input: " .. text })
  end
end

-- Ends the stream because of what execd has sent.
local function give_up(self, problem)
  fail(self, self:error("sandbox:terminal", problem))
  self.connection:detach()
  self.connection = nil
end

-- Ends the stream when its output has the mark of the command's end, or shows that this is not its session.
local function check_output(self)
  local problem
  if self.output.exit_code then
    return finish(self, self.output.exit_code)
  elseif self.output:is_of_another() then
    problem = { code = "wrong_id", message = ("the session %s belongs to a terminal with another id"):format(self.id),
      hint = "Use the terminal's id as sandbox:terminal or detach has returned it" }
  elseif self.output:is_foreign() then
    problem = { code = "unsupported", message = "this execd ignores the command of a terminal: that needs execd 1.0.19 or newer",
      hint = CHECK_IMAGE }
  else
    return
  end
  problem.kind = "state"
  give_up(self, problem)
end

local function on_replay(self, bytes)
  if #bytes < 9 then return end
  local offset = 0
  for index = 2, 9 do
    offset = offset * 256 + bytes:byte(index)
    if offset > MAX_OFFSET then
      return give_up(self, { kind = "protocol", code = "unexpected_response",
        message = "execd sent output with an offset that no output has", hint = CHECK_IMAGE })
    end
  end
  local lost = self.output:replay(offset, bytes:sub(10))
  if lost and not self.any_start then
    add_notice(self, { code = "output_lost", hint = "Read the output more often: execd keeps its last mebibyte",
      message = ("%d bytes of output before the offset %d are lost"):format(lost, offset) })
  end
  check_output(self)
end

local function on_message(self, kind, bytes)
  if not self.accepted then
    self.accepted, self.was_accepted = true, true
    self.refusal, self.refusals = nil, 0
  end
  local channel = kind == "binary" and bytes:byte()
  if channel == STDOUT or channel == STDERR then
    self.output:add(bytes:sub(2))
    check_output(self)
  elseif channel == REPLAY then
    on_replay(self, bytes)
  elseif kind == "text" then
    local frame = json.decode(bytes)
    local handler = type(frame) == "table" and frames[frame.type]
    if handler then handler(self, frame) end
  end
end

-- The current WebSocket has ended.
local function on_end(self)
  local connection = self.connection
  self.connection = nil
  local err = connection:failure()
  local code, reason = connection:close_status()
  local unsure = self.sent - self.acknowledged
  self.acknowledged, self.pings, self.ping_due = self.sent, {}, false
  if self.exit_frame then
    return finish(self, self.exit_frame)
  elseif code == TAKEN_OVER then
    return fail(self, self:error("sandbox:terminal", { kind = "state", code = "TAKEN_OVER",
      message = "another client has taken the terminal over", hint = "Attach again with its id and takeover = true" }))
  elseif err and (err.kind == "protocol" or err.kind == "closed") then
    return fail(self, err)
  end
  if unsure > 0 then
    add_notice(self, { code = "input_unsure", retryable = false,
      message = ("the connection was cut: the last %d bytes of input may not have arrived"):format(unsure),
      hint = "They are not sent again, because a command could run twice. Read the output to see whether they arrived" })
  end
  local why = err and err.message or ("close code %s %s"):format(tostring(code), reason or "")
  local moment = self.accepted and "soon after" or "before"
  local problem = self:error("sandbox:terminal", { kind = "stream", code = "refused", cause = err,
    message = ("the connection was closed %s the terminal was connected (%s)"):format(moment, why),
    hint = "Check that execd runs, and that the proxies before it pass WebSockets on" })
  if self.accepted then
    self.last_problem = problem
  else
    self.refusals, self.refusal_code, self.refusal = self.refusals + 1, code, problem
  end
end

-- Takes the messages that have arrived, while there is room for output.
local function receive(self)
  local changed = false
  while self.connection and self.output.size < MAX_UNREAD do
    local kind, bytes = self.connection:next_message()
    if kind then
      on_message(self, kind, bytes)
    elseif self.connection:is_open() then
      break
    else
      on_end(self)
    end
    changed = true
  end
  if self.connection and self.ping_due and #self.pings < MAX_PINGS and self.connection:try_send("text", PING) then
    self.ping_due = false
    self.pings[#self.pings + 1] = self.sent
  end
  self.full_since = self.output.size >= MAX_UNREAD and (self.full_since or core.now()) or nil
  if changed then self.news:wake() end
end

-- Returns an error that repetition does not mend, or nil.
local function final_error(err)
  local is_final = err.kind == "state" or err.kind == "closed" or err.kind == "protocol"
    or (err.kind == "http" and err.status < 500 and err.status ~= 429 and err.status ~= 408)
  return is_final and err or nil
end

-- Returns whether a WebSocket may be opened, because the command runs or has not been started. Otherwise returns nil and an error.
local function may_connect(self, view, execd, limit)
  if not self.must_ask then return true end
  local session, err = view:get_pty_session(execd, self.id, { timeout = limit:clamp(view.http.timeouts.timeout) })
  if not session then return nil, err end
  if not self.was_accepted then self.output:limit_offset(session.output_offset) end
  if session.running or (session.output_offset == 0 and not self.was_accepted) then return true, nil, session.running end
  return nil, self:error(view.op, { kind = "state", code = "terminal_ended",
    message = "the command of the terminal has ended while no client was connected, so that its exit code is not known",
    hint = "A process in the sandbox, or another client, has ended its shell" })
end

-- Makes one attempt to attach. Returns true, or nil and an error.
local function attach(self, op, limit)
  local view = self.client:for_op(op)
  local execd, err = self.endpoint(op)
  if not execd then return nil, err end
  local ok, problem, is_running = may_connect(self, view, execd, limit)
  if not ok then return nil, problem end
  if self.refusal and self.refusal_code == POLICY_VIOLATION and is_running and not self.takeover then
    self.refusal.kind, self.refusal.code = "state", "ALREADY_CONNECTED" -- the server's proxy does not pass the reason on
    self.refusal.hint = "Another client probably has the terminal. Use takeover = true"
    return nil, self.refusal
  end
  self.must_ask, self.accepted = true, false
  local connection
  connection, err = view:connect_pty_session(execd, self.id, { since = self.output.offset, takeover = self.takeover,
    pipes = self.pipes, timeout = limit:clamp(view.http.timeouts.timeout) }, self.news)
  if not connection then return nil, err end
  if self.failure then
    connection:detach()
    return nil, self.failure
  end
  self.connection, self.refusal = connection, nil
  self.attached_offset, self.attached_at = self.output.offset, core.now()
  self.news:wake()
  local news = self.news:expect()
  receive(self)
  while self.connection and not self.accepted do
    local interruption, reason = self.news:wait(news)
    if interruption then return nil, loop.interrupted(op, interruption, reason) end
    receive(self)
  end
  if self.accepted or self.failure then
    self.takeover = true -- of the place that execd still keeps for this connection after it was cut
    return true
  end
  return nil, self.refusal
end

-- Continues or begins a series of attempts to attach. A WebSocket that is closed soon after it was accepted is a failed attempt, too, so that
-- no server can keep the client busy: the next attempt is delayed. If it brought no output, the series continues.
local function next_series(self)
  local is_recent = self.attached_at and core.now() < self.attached_at + MAX_DELAY
  if not (self.series and is_recent and self.output.offset == self.attached_offset) then
    self.series = { backoff = backoffs.new(nil, MAX_DELAY), limit = deadlines.new(terminal_stream.REATTACH_TIMEOUT) }
  end
  return self.series, is_recent and self.last_problem or nil
end

-- A task: attaches to the session, and tries again after failures that may pass.
local function attach_until_accepted(self, op)
  local series, err = next_series(self)
  local limit = series.limit
  local problem -- of the last attempt
  while not self.failure do
    if not err then
      local attached
      attached, err = attach(self, op, limit)
      if attached or self.failure then return end
    end
    local is_hopeless = self.refusals >= MAX_REFUSALS and not self.was_accepted
    if final_error(err) or is_hopeless then return fail(self, err) end
    local has_passed = limit:has_passed()
    if has_passed and err.kind == "timeout" then err = problem or err end -- the last attempt had less time than a request needs
    problem, self.last_problem = err, err
    if has_passed then
      err.terminal_unreachable = self.was_accepted or nil
      self.outages, self.outage, self.series = self.outages + 1, err, nil
      return
    end
    err = loop.sleep(op, limit:clamp(series.backoff:next()))
    if err then return fail(self, err) end
  end
end

-- Attaches in the background, unless that is under way.
local function ensure_attached(self, op)
  if self.attaching or self.connection or self.exit_code or self.failure then return end
  self.attaching = true
  task.spawn_detached(function()
    local ok, problem = coxpcall.pcall(attach_until_accepted, self, op)
    if ok then return end
    fail(self, errors.is(problem) and problem or self:error(op, { kind = "state", code = "failed", message = tostring(problem) }))
  end, function()
    self.attaching = false
    self.news:wake()
  end)
end

-- Returns the error when output fills the buffer for some time, and nobody reads it.
local function unread_error(self, op)
  if not self.full_since or core.now() < self.full_since + UNREAD_TIMEOUT then return nil end
  return self:error(op, { kind = "state", code = "output_unread",
    message = ("%d bytes of output wait to be read"):format(self.output.size),
    hint = "Read the output in another task, or use on_output" })
end

--- Waits until `attempt` returns a value other than nil, or an error. It is called again when something has changed.
---@param op string the method that the user called
---@param options table limit (a Deadline; nil: no limit), needs_room (the wait fails when nobody reads the output), keeps_notices (they are left for others), passive (the same, and after an outage others must attach)
---@param attempt fun(stream: opensandbox.TerminalStream): any, opensandbox.Error?
---@return any value nil without an error when the time has passed
---@return opensandbox.Error? err
function Stream:wait_until(op, options, attempt)
  local limit = options.limit or NO_LIMIT
  local outages, news = self.outages, self.news:expect()
  local has_waited = false
  while true do
    receive(self)
    if #self.notices > 0 and not options.passive and not options.keeps_notices then
      return nil, self:error(op, table.remove(self.notices, 1))
    end
    local value, err = attempt(self)
    if value ~= nil or err then return value, err end
    if self.failure then return nil, for_op(op, self.failure) end
    if self.outages > outages and not options.passive then return nil, for_op(op, self.outage) end
    err = options.needs_room and unread_error(self, op)
    if err then return nil, err end
    -- It waits once even if there is no time, because bytes arrive only while code waits.
    if has_waited and limit:has_passed() then return nil end
    if self.outages == outages then ensure_attached(self, op) end
    local seconds = limit:remaining()
    if options.needs_room and self.full_since then
      seconds = limit:clamp(math.max(self.full_since + UNREAD_TIMEOUT - core.now(), 0))
    end
    local interruption, reason = self.news:wait(news, seconds)
    if interruption == "refused" and limit.seconds == 0 then return nil end
    if interruption then return nil, loop.interrupted(op, interruption, reason) end
    has_waited = true
    if self.connection then outages = self.outages end
  end
end

--- Attaches for the first time, and waits until the command is about to start, or runs. Output that is lost is reported afterwards, by the
--- first call of a terminal that the user can go on with.
---@param op string
---@param limit opensandbox.Deadline
---@return true? ok
---@return opensandbox.Error? err
function Stream:open(op, limit)
  local ok, err = self:wait_until(op, { limit = limit, keeps_notices = true }, function()
    if (self.accepted and self.output.started) or self.exit_code then return true end
  end)
  if ok or err then return ok, err end
  return nil, self:error(op, errors.timeout_fields { code = "timeout", text = "the terminal was not connected in time",
    option = "timeout", seconds = limit.seconds, timer = "timeout", cause = self.last_problem })
end

--- Waits for output.
---@param op string
---@param options table as of wait_until
---@return string? bytes nil without an error: after the last byte, or when the time has passed
---@return opensandbox.Error? err
---@return boolean? timed_out
function Stream:read(op, options)
  local bytes, err = self:wait_until(op, options, function()
    local text = self.output:take()
    if text then return text end
    if self.exit_code then return false end
  end)
  if bytes then self.news:wake() end -- there is room again
  return bytes or nil, err, bytes == nil and err == nil
end

--- Queues a message if there is room for it. Does not wait.
---@param kind string "text" or "binary"
---@param bytes string
---@param size integer bytes of input in it
---@return true? sent
function Stream:try_send(kind, bytes, size)
  if not (self.connection and self.accepted and self.connection:try_send(kind, bytes)) then return nil end
  self.sent, self.ping_due = self.sent + size, true
  return true
end

local function input_timeout(self, op, limit)
  return self:error(op, errors.timeout_fields { code = "timeout", text = "the terminal does not take its input", option = "timeout",
    seconds = limit.seconds, timer = "timeout" })
end

-- Sends a message when there is room for it.
local function send(self, op, options, kind, bytes, size)
  local ok, err = self:wait_until(op, options, function()
    if self.exit_code then
      return nil, self:error(op, { kind = "state", code = "terminal_ended", message = "the command of the terminal has ended" })
    end
    return self:try_send(kind, bytes, size)
  end)
  if not ok then return nil, err or input_timeout(self, op, options.limit) end
  receive(self) -- sends the ping
  return true
end

--- Sends input, and waits only while the queue is full.
---@param op string
---@param options table as of wait_until
---@param bytes string
---@return true? ok
---@return opensandbox.Error? err
function Stream:write(op, options, bytes)
  local limit = options.limit
  for first = 1, #bytes, MAX_INPUT do
    -- A terminal that takes each piece in time must not lengthen the whole.
    if first > 1 and limit and limit:has_passed() then return nil, input_timeout(self, op, limit) end
    local piece = bytes:sub(first, first + MAX_INPUT - 1)
    local ok, err = send(self, op, options, "binary", STDIN .. piece, #piece)
    if not ok then return nil, err end
  end
  return true
end

--- Sends a command of the protocol.
---@param op string
---@param options table as of wait_until
---@param frame table
---@return true? ok
---@return opensandbox.Error? err
function Stream:send_frame(op, options, frame)
  if frame.type == "resize" then self.size = { cols = frame.cols, rows = frame.rows } end -- sent again after a cut
  return send(self, op, options, "text", json.encode(frame), frame.type == "signal" and 1 or 0)
end

--- Closes the stream in a background task. For finalizers, which must do little: a loop in a finalizer, compiled by LuaJIT 2.1.0-beta3, may
--- never end.
function Stream:close_in_background()
  self.client.cleanup:spawn(function() self:close() end)
end

--- Disconnects. The session continues. Does not wait.
function Stream:close()
  fail(self, self:error("terminal:close", { kind = "closed", code = "closed", message = "the terminal is closed" }))
  local connection = self.connection
  self.connection = nil
  if connection then connection:detach() end
  self.news:wake()
end

return terminal_stream

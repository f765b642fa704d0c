--- A client of a terminal session, and the frames between them.

local json = require "opensandbox.base.json"
local websocket = require "opensandbox.devserver.http.websocket"

local STDIN, REPLAY = 0, 3 -- channels: the first byte of a binary frame
local MAX_VIOLATIONS = 5   -- attempts of a viewer to write
local MAX_SIZE = 65535     -- columns and rows
local SIGNALS = { SIGINT = "sigint", SIGTERM = "sigterm", SIGKILL = "sigkill", SIGQUIT = "sigquit", SIGHUP = "sighup" }

local Client = {}
Client.__index = Client

-- An offset of the replay: eight bytes, the highest first.
local function big_endian(number)
  local bytes = {}
  for index = 8, 1, -1 do
    bytes[index] = string.char(number % 256)
    number = math.floor(number / 256)
  end
  return table.concat(bytes)
end

--- Connects a client to a session: answers its opening handshake, replays what it has missed, and starts the process.
---@param terminal table
---@param request table
---@param response table
---@param options table `role` ("holder" or "viewer"), `since` (the offset of the replay), `has_pty`
local function connect(terminal, request, response, options)
  local self = setmetatable({ terminal = terminal, role = options.role, violations = 0 }, Client)
  self.socket = websocket.accept(request, response, {
    on_message = function(type, bytes) self:_receive(type, bytes) end,
    on_close = function() terminal:detach(self) end,
  })
  if not self.socket then return end
  local previous = options.role == "holder" and terminal.holder
  if previous then previous.socket:close(4001, "TAKEN_OVER") end
  local bytes, offset = terminal.buffer:read(options.since)
  if bytes ~= "" then self:_replay(offset, bytes) end
  terminal:attach(self)
  -- The mode of a process that runs does not change.
  local mode = terminal:is_running() and terminal.mode or options.has_pty and "pty" or "pipe"
  self:_send_json { type = "connected", session_id = terminal.id, mode = mode, role = options.role }
  if options.role == "viewer" then return end
  local problem = terminal:start(options.has_pty)
  if not problem then return end
  self:_fail("START_FAILED", problem)
  terminal:detach(self)
  self.socket:close(1011, "")
end

function Client:_send_json(value)
  self.socket:send("text", json.encode(value) .. "\n")
end

function Client:_fail(code, message)
  self:_send_json { type = "error", error = message, code = code }
end

function Client:_replay(offset, bytes)
  self.socket:send("binary", string.char(REPLAY) .. big_endian(offset) .. bytes)
end

--- Sends output. A viewer receives it as a replay.
---@param channel integer
---@param offset integer of the first byte in the session's whole output
---@param data string
function Client:output(channel, offset, data)
  if self.role == "viewer" then return self:_replay(offset, data) end
  self.socket:send("binary", string.char(channel) .. data)
end

--- Returns whether the client has not received much of what was sent. `callback` is called once when it has.
function Client:is_full(callback)
  if not self.socket:is_full() then return false end
  self.socket.on_drain = callback
  return true
end

--- Sends the exit code, and closes the connection.
function Client:exit(code)
  self:_send_json { type = "exit", exit_code = code }
  self.socket:close(1000, "process exited")
end

-- Returns whether the client may write. A viewer that tries too often is disconnected.
function Client:_may_write()
  if self.role == "holder" then return true end
  self:_fail("READ_ONLY", "viewer connections are read-only")
  self.violations = self.violations + 1
  if self.violations == MAX_VIOLATIONS then
    self.terminal:detach(self)
    self.socket:disconnect()
  end
  return false
end

-- Writes input. No further message is handled before the process has taken it.
function Client:_write(bytes)
  local process = self.terminal.process
  if bytes == "" or not self:_may_write() or not process then return end
  self.socket:pause()
  process:write(bytes, function(problem)
    if problem then self:_fail("STDIN_WRITE_FAILED", problem) end
    self.socket:resume()
  end)
end

local function is_size(value)
  return type(value) == "number" and value % 1 == 0 and value >= 1 and value <= MAX_SIZE
end

local commands = {}

function commands.ping(self) self:_send_json { type = "pong" } end

function commands.stdin(self, frame)
  if type(frame.data) == "string" then self:_write(frame.data) end
end

function commands.resize(self, frame)
  if not self:_may_write() or not is_size(frame.cols) or not is_size(frame.rows) then return end
  if self.terminal.process then self.terminal.process:resize(frame.cols, frame.rows) end
end

function commands.signal(self, frame)
  local name = self:_may_write() and SIGNALS[frame.signal]
  if name and self.terminal.process then self.terminal.process:signal(name) end
end

-- Messages that cannot be understood are ignored, except for those with an unknown type.
function Client:_receive(kind, bytes)
  if kind == "binary" then
    if bytes:byte() == STDIN then self:_write(bytes:sub(2)) end
    return
  end
  local frame = json.decode(bytes)
  if type(frame) ~= "table" or type(frame.type) ~= "string" then return end
  local command = commands[frame.type]
  if command then return command(self, frame) end
  self:_fail("INVALID_FRAME", ("unknown frame type %q"):format(frame.type))
end

return { connect = connect }

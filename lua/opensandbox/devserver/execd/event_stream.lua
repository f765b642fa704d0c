--- An event stream: of a command, what it writes, as it writes it, and how it ended; of other runs, what their owner sends.
--
-- A command's output files are read when the system reports a change. All output is read no faster than the client takes
-- the events.

local uv = require "luv"
local frames = require "opensandbox.devserver.execd.events"
local guard = require "opensandbox.devserver.base.safe_callback"
local timer = require "opensandbox.devserver.base.timer"

local PING_INTERVAL = 3000
local POLL_INTERVAL = 100      -- where the system does not report changes
local PIECE = 64 * 1024
local WAITING_LIMIT = 1024 * 1024
local HEADERS = {
  { "Cache-Control", "no-cache" }, { "Content-Type", "text/event-stream" }, { "X-Accel-Buffering", "no" },
}

local Stream = {}
Stream.__index = Stream

--- Begins a stream. What is set as its `on_gone` is called once when the client goes before the end.
-- @param sandbox its `grace` is how long, in milliseconds, the connection is held open after the end
-- @param id what the first event says; without it, there are neither that nor pings
local function new(response, sandbox, id)
  local self = setmetatable({ response = response, grace = sandbox.grace, handles = {}, sources = {} }, Stream)
  local headers = {}
  for _, pair in ipairs(HEADERS) do headers[#headers + 1] = pair end
  if response.keep_alive then headers[#headers + 1] = { "Connection", "keep-alive" } end
  local function gone()
    local callback = not self.closed and self.on_gone
    self.on_gone = nil
    if callback then callback() end
  end
  response.on_gone = gone
  response.on_abort = function()
    gone()
    self:close()
  end
  response:stream(200, headers)
  if not id then return self end
  self:send { frames.text("init", id), frames.text("ping", "pong") }
  self:every(PING_INTERVAL, function()
    if not sandbox.paused then self:send { frames.text("ping", "pong") } end
  end)
  return self
end

-- Calls `callback` after each interval until the stream is closed.
function Stream:every(milliseconds, callback)
  self.handles[#self.handles + 1] = timer.every(milliseconds, callback, function() self.response:abort() end)
end

--- Sends events.
function Stream:send(list)
  if self.closed or #list == 0 then return end
  self.response:write(list, function()
    if self.blocked and self.response.waiting < WAITING_LIMIT then self:_release() end
  end)
end

function Stream:_release()
  local resume = self.blocked
  self.blocked = nil
  if resume then resume() end
end

--- Whether the client has so much to take that its producer should wait; then `resume` is called when it may go on, which
-- it also may when the client has gone.
function Stream:full(resume)
  if self.closed or self.response.waiting <= WAITING_LIMIT then return false end
  self.blocked = resume
  return true
end

--- Streams a command until it has ended and all its output is sent.
function Stream:follow(command)
  self.command = command
  for index, kind in ipairs { "stdout", "stderr" } do
    local path = command.files[index]
    self.sources[index] = { fd = assert(uv.fs_open(path, "r", 0)), offset = 0, lines = frames.lines(kind) }
    local watcher = uv.new_fs_event()
    self.handles[#self.handles + 1] = watcher
    if not watcher:start(path, {}, guard.wrap(function() self:pump() end)) and index == 1 then
      self:every(POLL_INTERVAL, function() self:pump() end)
    end
  end
  command:when_ended(function() self:pump() end)
  self:pump()   -- what was written before the watchers began
end

-- Adds what the output files have gained to `list`; whether there was anything.
function Stream:read(list)
  local any = false
  for _, source in ipairs(self.sources) do
    local data = uv.fs_read(source.fd, PIECE, source.offset)
    if data and data ~= "" then
      any = true
      source.offset = source.offset + #data
      source.lines:feed(data, list)
    end
  end
  return any
end

function Stream:pump()
  if self.closed or self.blocked or self.ended then return end
  -- Asked before the last read: what was written before the end is then surely read.
  local running = self.command.running
  local list = {}
  while self:read(list) do
    self:send(list)
    list = {}
    if self:full(function() self:pump() end) then return end
  end
  if running then return end
  for _, source in ipairs(self.sources) do source.lines:finish(list) end
  local command = self.command
  if command.problem then
    list[#list + 1] = frames.failure(("%d"):format(command.exit_code), command.problem)
  else
    list[#list + 1] = frames.complete(command.milliseconds)
  end
  self:finish(list)
end

--- Sends the last events, and ends the stream after the grace time.
function Stream:finish(list)
  self.ended = true
  if self.grace == 0 then return self:stop(list) end
  self:send(list)
  self:every(self.grace, function()
    self:close()
    self.response:finish()
  end)
end

--- Sends the last events, and ends the stream at once.
function Stream:stop(list)
  if self.closed then return end
  self:send(list)
  self:close()
  self.response:finish()
end

--- Ends the stream at once with a message that is not an event, as execd does for what fails after the first event.
function Stream:fail(message)
  self:stop { frames.untyped(message) }
end

-- Gives back everything but the response. The command goes on.
function Stream:close()
  if self.closed then return end
  self.closed = true
  for _, handle in ipairs(self.handles) do handle:close() end
  for _, source in ipairs(self.sources) do uv.fs_close(source.fd) end
  self:_release()
end

return { new = new }

--- An event stream: the output of a command as it is written, and how the command ended; or events that the owner of a run sends.
--
-- A command's output files are read when the system reports a change. No output is read faster than the client receives the events.

local uv = require "luv"
local events = require "opensandbox.devserver.execd.events"
local safe_callback = require "opensandbox.devserver.base.safe_callback"
local timer = require "opensandbox.devserver.base.timer"

local PING_INTERVAL = 3000     -- milliseconds
local POLL_INTERVAL = 100      -- milliseconds, where the system does not report changes
local CHUNK_SIZE = 64 * 1024
local MAX_WAITING = 1024 * 1024 -- bytes that the client has not received yet
local HEADERS = {
  { "Cache-Control", "no-cache" }, { "Content-Type", "text/event-stream" }, { "X-Accel-Buffering", "no" },
}

local Stream = {}
Stream.__index = Stream

--- Begins a stream. Its field `on_gone` is called once when the client goes away before the end.
---@param response table
---@param sandbox table its `grace` is how long the connection stays open after the end, in milliseconds
---@param id? string of the first event; without it, neither that event nor pings are sent
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
  self:send { events.text("init", id), events.text("ping", "pong") }
  self:every(PING_INTERVAL, function()
    if not sandbox.paused then self:send { events.text("ping", "pong") } end
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
    if self.blocked and self.response.waiting < MAX_WAITING then self:_release() end
  end)
end

function Stream:_release()
  local resume = self.blocked
  self.blocked = nil
  if resume then resume() end
end

--- Returns whether so much waits for the client that its producer should pause. Then `resume` is called when the producer may continue,
-- also when the client has gone.
function Stream:full(resume)
  if self.closed or self.response.waiting <= MAX_WAITING then return false end
  self.blocked = resume
  return true
end

--- Streams a command until it has ended and all its output is sent.
function Stream:follow(command)
  self.command = command
  for index, kind in ipairs { "stdout", "stderr" } do
    local path = command.files[index]
    self.sources[index] = { fd = assert(uv.fs_open(path, "r", 0)), offset = 0, lines = events.lines(kind) }
    local watcher = uv.new_fs_event()
    self.handles[#self.handles + 1] = watcher
    if not watcher:start(path, {}, safe_callback.wrap(function() self:pump() end)) and index == 1 then
      self:every(POLL_INTERVAL, function() self:pump() end)
    end
  end
  command:when_ended(function() self:pump() end)
  self:pump() -- output that was written before the watchers started
end

-- Adds the events of new output to `list`. Returns whether there was any.
function Stream:read(list)
  local any = false
  for _, source in ipairs(self.sources) do
    local data = uv.fs_read(source.fd, CHUNK_SIZE, source.offset)
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
  -- Checked before the last read, so that everything that was written before the end is read.
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
    list[#list + 1] = events.failure(("%d"):format(command.exit_code), command.problem)
  else
    list[#list + 1] = events.complete(command.milliseconds)
  end
  self:finish(list)
end

--- Sends the last events, and closes the stream after the grace time.
function Stream:finish(list)
  self.ended = true
  if self.grace == 0 then return self:stop(list) end
  self:send(list)
  self:every(self.grace, function()
    self:close()
    self.response:finish()
  end)
end

--- Sends the last events, and closes the stream at once.
function Stream:stop(list)
  if self.closed then return end
  self:send(list)
  self:close()
  self.response:finish()
end

--- Closes the stream at once with a message that is not an event, as execd does for a failure after the first event.
function Stream:fail(message)
  self:stop { events.untyped(message) }
end

-- Releases everything but the response. The command runs on.
function Stream:close()
  if self.closed then return end
  self.closed = true
  for _, handle in ipairs(self.handles) do handle:close() end
  for _, source in ipairs(self.sources) do uv.fs_close(source.fd) end
  self:_release()
end

return { new = new }

--- Pipes between the server and a process of a sandbox.
--
-- Real pipes, not luv's own, which are sockets: a program can open /dev/stdout and /dev/stderr by name only when they are
-- pipes or files. And read by the server when it wants: before it looks at what a process says on one pipe, it can take
-- everything the process wrote before on another.

local uv = require "luv"
local guard = require "opensandbox.devserver.base.safe_callback"

local PIECE = 64 * 1024   -- what a pipe holds

local pipe = {}

local Reader = {}
Reader.__index = Reader

--- A pipe that the server reads.
-- @param on_data called with each piece, and with nil at the end
-- @treturn table the reader
-- @treturn number the descriptor for the process, to be closed here once the process has it
function pipe.reader(on_data)
  local ends = assert(uv.pipe({ nonblock = true }, {}))
  local self = setmetatable({ fd = ends.read, poll = assert(uv.new_poll(ends.read)), on_data = on_data }, Reader)
  self:resume()
  return self, ends.write
end

-- Hands one piece over; whether there may be another.
function Reader:_take()
  if self.closed then return false end
  local data, _, code = uv.fs_read(self.fd, PIECE, -1)
  if not data and code == "EAGAIN" then return false end
  if not data or data == "" then
    self:close()
    self.on_data(nil)
    return false
  end
  self.on_data(data)
  return true
end

--- Lets what the process writes wait in the pipe.
function Reader:pause()
  if not self.closed then self.poll:stop() end
end

function Reader:resume()
  if self.closed then return end
  self.poll:start("r", guard.wrap(function() self:_take() end))
end

--- Takes what has been written until now.
function Reader:drain()
  -- Two pieces hold it all; who writes without end does not keep the server here.
  if self:_take() then self:_take() end
end

function Reader:close()
  if self.closed then return end
  self.closed = true
  self.poll:stop()
  self.poll:close()
  uv.fs_close(self.fd)
end

--- A pipe that the server writes.
-- @treturn userdata the luv pipe to write to
-- @treturn number the descriptor for the process, to be closed here once the process has it
function pipe.writer()
  local ends = assert(uv.pipe({}, { nonblock = true }))
  local handle = uv.new_pipe(false)
  assert(handle:open(ends.write))
  return handle, ends.read
end

return pipe

--- Pipes between the server and a process of a sandbox.
--
-- They are pipes of the kernel. luv's own are sockets, and a program cannot open those by the names /dev/stdout and /dev/stderr.
-- The server reads them when it wants: before it handles a message on one pipe, it can read everything that the process wrote on
-- another one before.

local uv = require "luv"
local safe_callback = require "opensandbox.devserver.base.safe_callback"

local CAPACITY = 64 * 1024 -- bytes that a pipe holds

local pipe = {}

local Reader = {}
Reader.__index = Reader

--- Creates a pipe that the server reads.
---@param on_data fun(data?: string) called with each piece, and with nil at the end
---@return table reader
---@return integer fd for the process; to be closed by the caller after the process has been started
function pipe.reader(on_data)
  local ends = assert(uv.pipe({ nonblock = true }, {}))
  local self = setmetatable({ fd = ends.read, poll = assert(uv.new_poll(ends.read)), on_data = on_data, received = 0 }, Reader)
  self:resume()
  return self, ends.write
end

-- Reads one piece. Returns whether there may be another one.
function Reader:_read()
  if self.closed then return false end
  local data, _, code = uv.fs_read(self.fd, CAPACITY, -1)
  if not data and code == "EAGAIN" then return false end
  if not data or data == "" then
    self:close()
    self.on_data(nil)
    return false
  end
  self.received = self.received + #data
  self.on_data(data)
  return true
end

--- Stops reading, so that the process waits when the pipe is full.
function Reader:pause()
  if not self.closed then self.poll:stop() end
end

function Reader:resume()
  if self.closed then return end
  self.poll:start("r", safe_callback.wrap(function() self:_read() end))
end

--- Reads the bytes that have been written so far.
function Reader:drain()
  -- A pipe holds no more. A process that writes on must not keep the server here.
  local limit = self.received + 2 * CAPACITY
  while self.received < limit and self:_read() do end -- luacheck: ignore 542
end

function Reader:close()
  if self.closed then return end
  self.closed = true
  self.poll:stop()
  self.poll:close()
  uv.fs_close(self.fd)
end

--- Creates a pipe that the server writes.
---@return userdata pipe of luv
---@return integer fd for the process; to be closed by the caller after the process has been started
function pipe.writer()
  local ends = assert(uv.pipe({}, { nonblock = true }))
  local handle = uv.new_pipe(false)
  assert(handle:open(ends.write))
  return handle, ends.read
end

return pipe

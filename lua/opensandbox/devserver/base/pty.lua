--- A pseudo-terminal between the server and a process of a sandbox.

local uv = require "luv"
local core = require "opensandbox.core"
local safe_callback = require "opensandbox.devserver.base.safe_callback"

local READ_SIZE = 4096
local CAPACITY = 256 * 1024 -- bytes that the kernel may hold

local Pty = {}
Pty.__index = Pty

--- Opens a pseudo-terminal.
---@param path string that of the multiplexer
---@param columns integer
---@param rows integer
---@param on_data fun(data: string)
---@return table? pty
---@return integer|string fd for the process, to be closed by the caller after the process has been started; else the problem
local function open(path, columns, rows, on_data)
  local master, slave = core.open_pty(path)
  if not master then return nil, slave end
  local self = setmetatable({ fd = master, handle = uv.new_pipe(false), on_data = on_data }, Pty)
  assert(self.handle:open(master))
  self:resize(columns, rows)
  self:resume()
  return self, slave
end

--- Sets the size of the terminal.
function Pty:resize(columns, rows)
  core.resize_pty(self.fd, columns, rows)
end

--- Stops reading, so that the process waits when the kernel holds no more.
function Pty:pause()
  if not self.handle:is_closing() then self.handle:read_stop() end
end

function Pty:resume()
  if self.handle:is_closing() then return end
  self.handle:read_start(safe_callback.wrap(function(_, data)
    -- A read fails when no process has the terminal open. The caller that started the process notices its end by other means.
    if data then self.on_data(data) end
  end))
end

--- Reads the bytes that have been written so far.
function Pty:drain()
  local received = 0
  while received < CAPACITY do
    local data = uv.fs_read(self.fd, READ_SIZE, -1)
    if not data or data == "" then return end
    received = received + #data
    self.on_data(data)
  end
end

--- Writes input of the process.
---@param data string
---@param callback fun(problem?: string) called when the kernel has taken it
function Pty:write(data, callback)
  if self.handle:is_closing() then return callback("ECANCELED") end
  self.handle:write(data, safe_callback.wrap(callback))
end

--- Closes the terminal. The processes that still have it lose it.
function Pty:close()
  if not self.handle:is_closing() then self.handle:close() end
end

return { open = open }

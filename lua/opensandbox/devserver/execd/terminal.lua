--- A terminal session: its process, its output, and the clients that are connected to it. One client, the holder, may write; viewers
-- may not.
--
-- The process starts with the first holder. It survives a client that goes away. When it has ended, the next holder starts it again.

local random = require "opensandbox.base.random"
local replay_buffer = require "opensandbox.devserver.execd.replay_buffer"
local tables = require "opensandbox.base.tables"
local terminal_process = require "opensandbox.devserver.execd.terminal_process"
local timer = require "opensandbox.devserver.base.timer"

-- Milliseconds that output waits where it is to be lost at the exit. Real servers lose what they did not read in time.
local LOSS_WINDOW = 50

local Terminal = {}
Terminal.__index = Terminal

--- Creates a session. Nothing is started.
---@param sandbox table
---@param options table `command`, `cwd` (a place), `loses_output`: whether output from just before the exit is lost
local function new(sandbox, options)
  return setmetatable({
    id = random.uuid(), sandbox = sandbox, command = options.command, cwd = options.cwd, loses_output = options.loses_output,
    buffer = replay_buffer.new(), viewers = {}, mode = "pty",
  }, Terminal)
end

--- Returns whether the process runs.
function Terminal:is_running()
  return self.process ~= nil
end

--- Starts the process, unless it runs.
---@param has_pty boolean
---@return string? problem
function Terminal:start(has_pty)
  if self.process then return nil end
  self.mode = has_pty and "pty" or "pipe"
  local process, problem
  process, problem = terminal_process.start(self.sandbox, {
    command = self.command, cwd = self.cwd, has_pty = has_pty, keeps_output = not self.loses_output,
    on_output = function(channel, data)
      if not self.loses_output then return self:_output(channel, data) end
      timer.after(LOSS_WINDOW, function()
        if self.process == process then self:_output(channel, data) end
      end)
    end,
    on_exit = function(code) self:_exited(code) end,
  })
  self.process = process
  return problem
end

-- Calls `visit` for each client.
function Terminal:_each_client(visit)
  if self.holder then visit(self.holder) end
  for _, viewer in ipairs(tables.keys(self.viewers)) do visit(viewer) end
end

function Terminal:_output(channel, data)
  local offset = self.buffer.total
  self.buffer:append(data)
  self:_each_client(function(client) client:output(channel, offset, data) end)
  self:_pace()
end

-- Lets the process wait as long as a client does not keep up.
function Terminal:_pace()
  local is_full = false
  self:_each_client(function(client)
    if client:is_full(function() self:_pace() end) then is_full = true end
  end)
  if not self.process or is_full == self.is_paused then return end
  self.is_paused = is_full
  if is_full then self.process:pause() else self.process:resume() end
end

function Terminal:_exited(code)
  self.process, self.is_paused = nil, nil
  self:_each_client(function(client) client:exit(code) end)
  self.holder, self.viewers = nil, {}
end

--- Connects a client.
function Terminal:attach(client)
  if client.role == "viewer" then self.viewers[client] = true else self.holder = client end
end

--- Disconnects a client that has gone.
function Terminal:detach(client)
  self.viewers[client] = nil
  if self.holder == client then self.holder = nil end
  self:_pace()
end

--- Kills the process group.
---@param killed fun() called when the signal was sent
function Terminal:kill(killed)
  if self.process then return self.process:signal("sigkill", killed) end
  killed()
end

return { new = new }

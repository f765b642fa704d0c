--- The isolated sessions of a sandbox, and the collection of idle ones.

local isolated_session = require "opensandbox.devserver.execd.isolated_session"
local timer = require "opensandbox.devserver.base.timer"

local Sessions = {}
Sessions.__index = Sessions

--- Creates the sessions of a sandbox.
---@param sandbox table
---@param collect_interval integer milliseconds between two collections of idle sessions
local function new(sandbox, collect_interval)
  -- `existing` counts the sessions that have processes, those included that are being opened or closed.
  return setmetatable({ sandbox = sandbox, by_id = {}, list = {}, existing = 0, collect_interval = collect_interval }, Sessions)
end

function Sessions:_remove(session)
  self.by_id[session.id] = nil
  for index, member in ipairs(self.list) do
    if member == session then table.remove(self.list, index) end
  end
  if not self.list[1] and self.collector then
    self.collector:close()
    self.collector = nil
  end
end

-- Closes the sessions whose idle time is over. As in execd, they live until the collector comes.
function Sessions:_collect()
  for index = #self.list, 1, -1 do
    local session = self.list[index]
    if session:idle_remaining() == 0 and session:is_idle() then session:close() end
  end
end

function Sessions:_ended()
  self.existing = self.existing - 1
  self:_check_empty()
end

function Sessions:_check_empty()
  local callback = self.existing == 0 and self.on_empty
  if not callback then return end
  self.on_empty = nil
  callback()
end

--- Opens a session.
---@param options table those of isolated_session
---@param callback fun(session?: table, problem?: string)
function Sessions:open(options, callback)
  self.existing = self.existing + 1
  isolated_session.open(self.sandbox, options, function(session, problem)
    if not session then
      self:_ended()
    elseif self.closed then
      session:close()
      session, problem = nil, "the sandbox has ended"
    else
      self.by_id[session.id] = session
      table.insert(self.list, session)
      self.collector = self.collector or timer.every(self.collect_interval, function() self:_collect() end)
    end
    callback(session, problem)
  end, function(session) self:_remove(session) end, function() self:_ended() end)
end

--- Closes all sessions, and opens no more.
---@param callback fun() called when all have ended
function Sessions:close_all(callback)
  self.closed, self.on_empty = true, callback
  for index = #self.list, 1, -1 do self.list[index]:close() end
  self:_check_empty()
end

return { new = new }

--- A group of background tasks that clean up for a client: they stop or delete things whose owner was cancelled or collected.
--- Closing the client waits for them.

local core = require "opensandbox.core"
local task = require "opensandbox.loop.task"

---@class opensandbox.TaskGroup
local TaskGroup = {}
TaskGroup.__index = TaskGroup

local task_group = {}

---@return opensandbox.TaskGroup
function task_group.new()
  return setmetatable({ tasks = {} }, TaskGroup)
end

--- Starts a function in a task that does not end when the host ends the caller's coroutine. An error that it raises is reported like
--- that of any other task.
---@param fn fun()
---@return opensandbox.Task
function TaskGroup:spawn(fn)
  local one = task.spawn_detached(fn, function(ended) self.tasks[ended] = nil end)
  self.tasks[one] = true
  return one
end

--- Waits until all tasks have ended, those that are added meanwhile included.
---@param deadline number on the clock of core.now()
---@return boolean ended false when the time ran out first
function TaskGroup:join(deadline)
  local one = next(self.tasks)
  while one do
    one:join(deadline - core.now())
    if not one:done() then return false end
    self.tasks[one] = nil -- the host may have ended it without a word
    one = next(self.tasks)
  end
  return true
end

return task_group

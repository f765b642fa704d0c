--- A group of background tasks that clean up for a client. They stop or delete resources whose owner was cancelled or collected, and
--- closing the client waits for them.

local core = require "opensandbox.core"
local lazy = require "opensandbox.base.lazy"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules { task = "opensandbox.loop.task" }

---@class opensandbox.TaskGroup
local TaskGroup = {}
TaskGroup.__index = TaskGroup

local task_group = {}

---@return opensandbox.TaskGroup
function task_group.new()
  return setmetatable({ tasks = {} }, TaskGroup)
end

--- Starts a function in a task that continues when the host ends the caller's coroutine. An error of the function is reported like
--- the error of any other task.
---@param fn fun()
---@return opensandbox.Task
function TaskGroup:spawn(fn)
  local spawned = parts.task.spawn_detached(fn, function(ended) self.tasks[ended] = nil end)
  self.tasks[spawned] = core.process()
  return spawned
end

--- Waits until all tasks have ended, including those that are added during the wait. The tasks of a parent process are not waited for.
---@param deadline opensandbox.Deadline
---@return boolean ended false if the time ran out first
function TaskGroup:join(deadline)
  local member, process = next(self.tasks)
  while member do
    if process == core.process() then
      member:join(deadline:remaining())
      if not member:done() then return false end
    end
    self.tasks[member] = nil -- a host can end a task without notice
    member, process = next(self.tasks)
  end
  return true
end

return task_group

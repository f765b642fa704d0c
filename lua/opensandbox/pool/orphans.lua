--- The sandbox of a process that died while it created it. Nobody knows its id, so it is searched by a label, and deleted.

local backoffs = require "opensandbox.loop.backoff"
local deadlines = require "opensandbox.loop.deadline"
local objects = require "opensandbox.lifecycle.objects"
local task = require "opensandbox.loop.task"

local orphans = {}

local LIST_TIMEOUT = 10  -- seconds
local INITIAL_DELAY = 0.5 -- seconds between two lists
local MAX_DELAY = 10     -- seconds
local BACKOFF_FACTOR = 2

--- Searches the sandbox until it is deleted, or until the create cannot succeed any more: GET /sandboxes, DELETE /sandboxes/{id}.
---@param client opensandbox.Client
---@param label string
---@param seconds number after which the create cannot succeed any more
---@return boolean ended false when the task was cancelled
function orphans.delete(client, label, seconds)
  local limit = deadlines.new(math.max(seconds, 0))
  local backoff = backoffs.new(INITIAL_DELAY, MAX_DELAY, BACKOFF_FACTOR)
  while true do
    local is_last = limit:has_passed()
    local found, err = client:list_sandboxes { metadata = { [objects.POOL_LABEL] = label }, timeout = LIST_TIMEOUT }
    if err and (err.kind == "cancelled" or err.kind == "closed") then return false end
    local all_deleted = true
    for _, info in ipairs(found or {}) do all_deleted = client:delete_sandbox(info.id) and all_deleted end
    if found and all_deleted and (#found > 0 or is_last) then return true end
    if not task.sleep(backoff:next()) then return false end
  end
end

return orphans

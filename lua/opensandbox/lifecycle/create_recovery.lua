--- Finds a sandbox whose create was sent and whose response was lost. Every create carries a unique label, by which the sandbox is listed.
--
-- A create is never sent twice, because there is no way to tell the server that both are the same.

local backoffs = require "opensandbox.loop.backoff"
local deadlines = require "opensandbox.loop.deadline"
local loop = require "opensandbox.loop"
local objects = require "opensandbox.lifecycle.objects"

local create_recovery = {}

local LOST_CREATE_TIMEOUT = 30 -- seconds: how long a server that responds is searched
local INITIAL_DELAY = 0.2      -- seconds
local MAX_DELAY = 5            -- seconds
local BACKOFF_FACTOR = 2

--- Returns whether a failed create may have made a sandbox all the same.
---@param err opensandbox.Error
---@return boolean
function create_recovery.outcome_unknown(err)
  if err.not_sent or err.retryable then return false end
  if err.kind == "http" then return err.status == 502 or err.status == 503 or err.status == 504 end
  return err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" or err.kind == "protocol"
end

--- Searches for the sandbox of a lost create.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param label string
---@return opensandbox.SandboxInfo? info nil and no error when it did not appear
---@return opensandbox.Error? err
function create_recovery.find_by_label(client, op, label)
  local deadline = deadlines.new(LOST_CREATE_TIMEOUT)
  local backoff = backoffs.new(INITIAL_DELAY, MAX_DELAY, BACKOFF_FACTOR)
  while true do
    local found, err = client:list_sandboxes { metadata = { [objects.CREATE_LABEL] = label } }
    if not found then return nil, err end
    if found[1] then return found[1] end
    local delay = backoff:next()
    if deadline:remaining() < delay then return nil end
    err = loop.sleep(op, delay)
    if err then return nil, err end
  end
end

--- Deletes the sandbox of a lost create in the background, because nobody waits for it any more.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param label string
function create_recovery.delete_in_background(client, op, label)
  client.cleanup:spawn(function()
    local found = create_recovery.find_by_label(client, op, label)
    if found then client:delete_sandbox(found.id) end
  end)
end

return create_recovery

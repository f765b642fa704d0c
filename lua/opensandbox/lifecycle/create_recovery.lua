--- Creates a sandbox so that none is left behind: POST /sandboxes.
--
-- The request is never sent twice, because the server cannot know that both are the same. Every create carries a unique label.
-- If its response is lost, or if nobody waits for it, a background task searches the sandbox by that label. The caller waits for that task
-- as long as its time limit allows. A sandbox that is found later has no owner, and is deleted.

local backoffs = require "opensandbox.loop.backoff"
local coxpcall = require "opensandbox.loop.coxpcall"
local create_options = require "opensandbox.lifecycle.create_options"
local create_rollback = require "opensandbox.http.create_rollback"
local deadlines = require "opensandbox.loop.deadline"
local loop = require "opensandbox.loop"
local objects = require "opensandbox.lifecycle.objects"
local random = require "opensandbox.base.random"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"
local scheduler = require "opensandbox.loop.scheduler"

local create_recovery = {}

local LOST_CREATE_TIMEOUT = 30 -- seconds: how long the server is searched after the response was lost
local MAX_SEARCH_TIME = 120    -- seconds: how long the search outlasts an outage; it keeps the loop of a host alive
local LIST_TIMEOUT = 10        -- seconds for one list
local INITIAL_DELAY = 0.2      -- seconds between two lists
local MAX_DELAY = 5            -- seconds
local BACKOFF_FACTOR = 2
local RESPONSE_DELAY = 1       -- seconds before the first list, while the response may still come
local SEARCH_SHARE = 1 / 4     -- of create_timeout: reserved for a search after the request has timed out
local MAX_RESERVE = 2          -- seconds
local MIN_TIMEOUT = 0.001      -- seconds, because 0 means no limit

-- Returns whether a failed create may have made a sandbox all the same.
local function outcome_unknown(err)
  if err.not_sent or err.retryable then return false end
  if err.kind == "http" then return err.status == 502 or err.status == 503 or err.status == 504 end
  return err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" or err.kind == "protocol"
end

-- Searches for the sandbox of a create. Runs in a background task. Returns nil when it did not appear, or when the response came.
local function find_by_label(client, label, create)
  local last, deadline = deadlines.new(MAX_SEARCH_TIME), deadlines.new(LOST_CREATE_TIMEOUT)
  local backoff = backoffs.new(INITIAL_DELAY, MAX_DELAY, BACKOFF_FACTOR)
  if not create.outcome then client.resources:sleep(RESPONSE_DELAY) end
  while create:is_ours() and (not create.outcome or (create.outcome == "failed" and outcome_unknown(create.err))) do
    local called, found, err = coxpcall.pcall(client.list_sandboxes, client,
      { metadata = { [objects.CREATE_LABEL] = label }, timeout = LIST_TIMEOUT })
    if not called then found, err = nil, { retryable = true } end -- raised for want of memory
    if found and found[1] then return found[1] end
    if err and not err.retryable then return nil end
    -- The time counts from the end of the request, and from the end of an outage.
    if err or not create.outcome then deadline = deadlines.new(LOST_CREATE_TIMEOUT) end
    if deadline:has_passed() or last:has_passed() then return nil end
    client.resources:sleep(backoff:next())
  end
end

-- A search in the background. The code that called create waits for it, or does not.
local Search = {}
Search.__index = Search

local function start_search(client, label, create, wanted)
  local self = setmetatable({
    create = create,
    wanted = wanted, -- the caller waits
    found = nil, finished = false,
    waiter = nil,    -- of the caller
  }, Search)
  client.cleanup:spawn(function()
    local ok, found = coxpcall.pcall(find_by_label, client, label, create)
    self.finished, self.found = true, ok and found or nil
    if not self.wanted then self:abandon() end
    if self.waiter then scheduler.wake(self.waiter) end
    if not ok then error(found, 0) end
  end)
  return self
end

-- The caller does not wait any more. The sandbox may have been found just before that.
function Search:abandon()
  self.wanted = false
  if self.found then self.create:delete(self.found) end
  self.found = nil
end

-- Waits for the search. Returns nil and no error when the sandbox was not found in time.
local function await(search, op, seconds)
  local deadline = deadlines.new(seconds)
  while not search.finished and not deadline:has_passed() do
    local interruption, reason = loop.wait { seconds = deadline:remaining(), registry = search, key = "waiter", owner = search }
    if interruption then
      search:abandon()
      return nil, loop.interrupted(op, interruption, reason)
    end
  end
  local found = search.found
  if not found then search:abandon() end
  return found
end

--- Creates a sandbox.
---@param client opensandbox.Client
---@param op string the method that the user called
---@param opts opensandbox.SandboxOpts checked
---@param limit opensandbox.Deadline for the request and the search together
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
function create_recovery.create(client, op, opts, limit)
  local http, label = client.http, random.hex(16)
  local request = {
    op = op, method = "POST", path = "/sandboxes", json = create_options.body(opts, label), decode = objects.sandbox_info,
    timeout = math.max(limit:remaining() - math.min(limit.seconds * SEARCH_SHARE, MAX_RESERVE), MIN_TIMEOUT),
    budget = limit.seconds, option_names = { timeout = limit.option },
  }
  local create = create_rollback(client, request, function(info)
    return http:lifecycle_request(sandbox_requests.delete("delete_sandbox", info.id))
  end, {
    on_background = function(create) start_search(client, label, create, false) end,
  })
  local info, err = http:call(request)
  if info or not outcome_unknown(err) then return info, err end
  create:fail(err)
  local found, interrupted = await(start_search(client, label, create, true), op, limit:clamp(LOST_CREATE_TIMEOUT))
  if found then return found end
  if interrupted then return nil, interrupted end
  err.hint = ("Whether the sandbox was created is not known. It would carry the metadata %s=%s, and is deleted if it appears while "
    .. "this client is open"):format(objects.CREATE_LABEL, label)
  return nil, err
end

return create_recovery

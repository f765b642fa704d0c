--- Owned resources: sandboxes, and objects inside sandboxes, that this client created and must delete.
--
-- A resource leaves the set when the server has answered its DELETE, or when it is released. A background task sends the DELETE. If it fails,
-- because the network or the memory fails for a while, it is repeated when the server answers anything again. No task waits for that, because
-- it would keep a host's event loop from ending. Closing the client repeats the DELETE as long as its time allows. Collecting the client, or
-- closing the Lua state, does the same in a finalizer.
--
-- The resource of a create enters the set before the request is sent, see create_rollback.lua. So whatever fails after that, memory included,
-- does not make the client forget the object. Until the response names the object, the resource can have a search for it, whose requests are
-- sent in the same way.
--
-- A resource does not refer to the object that people hold, so that it can outlive that object in its finalizer. It belongs to the process
-- that created it: a forked child does not delete the resources of its parent.

local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadlines = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local finalizer = require "opensandbox.base.finalizer"
local json = require "opensandbox.base.json"
local lazy = require "opensandbox.base.lazy"
local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"
local tables = require "opensandbox.base.tables"

-- Files that are loaded when a method first needs them.
local parts = lazy.modules { call = "opensandbox.http.call", exchange = "opensandbox.http.exchange" }

---@class opensandbox.OwnedResource
---@field delete_request? fun(): table? makes the prepared request that deletes the object, or returns nil when that is no longer needed
---@field search? opensandbox.ObjectSearch while the object is not known
---@field is_wanted boolean the code that called create waits for the search
---@field found? any the object that the search has found
---@field waiter? opensandbox.Waiter of the code that waits for the search
---@field best_effort? boolean one call must do, because the resource ends with its sandbox anyway
---@field retry_at? number on the clock of core.now(): when a request that fails is repeated at the earliest
---@field on_release? fun() called once when the resource is deleted or released
---@field parent_is_owned? fun(): boolean a resource inside a sandbox that is deleted itself needs no request
local OwnedResource = {}
OwnedResource.__index = OwnedResource

---@class opensandbox.OwnedResources
---@field closing boolean the client is being closed: new resources are deleted at once
local OwnedResources = {}
OwnedResources.__index = OwnedResources

local owned_resource = {}

local INITIAL_BACKOFF = 0.25    -- seconds from a failed DELETE to the next one
local MAX_BACKOFF = 30          -- seconds
local BACKOFF_FACTOR = 2
local MAX_CLOSING_BACKOFF = 0.1 -- seconds, while the client is being closed
local FINALIZER_TIMEOUT = 2     -- seconds for all finalizers that run one after the other

owned_resource.LAST_DELETE_TIMEOUT = 0.2 -- seconds for DELETEs when the time for closing is over

--- Makes a set of owned resources.
---@param http opensandbox.HttpClient
---@param cleanup opensandbox.TaskGroup
---@return opensandbox.OwnedResources
function owned_resource.set(http, cleanup)
  local self = setmetatable({
    http = http, cleanup = cleanup, closing = false,
    members = {}, -- the process that created each resource
    retry_at = math.huge, -- the earliest of the members that are not being deleted, so that a response costs nothing when all is well
    creates = setmetatable({}, { __mode = "k" }), -- requests whose response was not received yet, see create_rollback.lua
    sleepers = {},                                -- waiters of background tasks, see sleep
  }, OwnedResources)
  http:set_response_listener(self)
  -- Finalizers run in the reverse order of their creation: this one before that of the transport, and after those of the members.
  self.finalizer = finalizer(function() self:close_blocking(self:finalizer_deadline()) end)
  return self
end

--- Makes the resource of an object that is about to be created. It is in the set after `enter`.
---@return opensandbox.OwnedResource
function OwnedResources:expect()
  return setmetatable({ set = self, delete_request = nil, search = nil, is_wanted = false, found = nil, waiter = nil,
    task = nil, retry_at = nil,
    backoff = backoffs.new(INITIAL_BACKOFF, MAX_BACKOFF, BACKOFF_FACTOR) }, OwnedResource)
end

--- Adds a resource whose object exists.
---@param delete_request fun(): table? makes the prepared request that deletes it; nil when that is no longer needed
---@return opensandbox.OwnedResource
function OwnedResources:add(delete_request)
  local resource = self:expect()
  resource.delete_request = delete_request
  resource:enter()
  if self.closing then resource:delete() end
  return resource
end

-- Returns the resources of this process that must be deleted by a request of their own.
local function members_of(self)
  local list = {}
  for _, resource in ipairs(tables.keys(self.members)) do
    local ends_with_parent = resource.parent_is_owned and resource.parent_is_owned()
    local is_deletable = resource.delete_request or resource.search
    if is_deletable and resource:is_ours() and not ends_with_parent then list[#list + 1] = resource end
  end
  return list
end

--- Returns whether a request is left to be sent, or to be answered.
---@return boolean
function OwnedResources:is_pending()
  return #members_of(self) > 0
end

--- Called when the server has answered a request: repeats the requests that failed before.
function OwnedResources:on_server_response()
  local now = core.now()
  if now < self.retry_at then return end
  self.retry_at = math.huge
  for _, resource in ipairs(members_of(self)) do
    if resource.retry_at and now >= resource.retry_at then
      resource:delete()
    elseif resource.retry_at then
      self.retry_at = math.min(self.retry_at, resource.retry_at)
    end
  end
end

--- Starts to delete all resources, and continues the creates under way in the background. The tasks are in the client's cleanup group.
function OwnedResources:close()
  self.closing = true
  for _, create in ipairs(tables.keys(self.creates)) do create:continue_in_background() end
  for _, resource in ipairs(members_of(self)) do resource:delete() end
  scheduler.wake_all(self.sleepers)
end

-- Ends the creates under way. Returns when that is done, or the deadline has come.
local function settle_creates(self, deadline)
  for _, create in ipairs(tables.keys(self.creates)) do pcall(create.settle_blocking, create, deadline) end -- memory may run out
end

--- Sends a second request for each resource, because the response to the first one may never come. Does not wait: the tasks are in the
--- client's cleanup group.
---@param deadline opensandbox.Deadline of the close, which has passed
function OwnedResources:repeat_requests(deadline)
  settle_creates(self, deadline)
  for _, resource in ipairs(members_of(self)) do
    resource.task = nil
    resource:delete()
  end
end

-- Returns whether a status answers a DELETE for good, because a repetition would not change it.
local function is_final(status)
  return status < 500 and status ~= 429 and status ~= 408
end

-- Starts the next request of a resource.
local function start_request(self, resource)
  local request = resource:next_request()
  return request and parts.exchange.start(self.http, request)
end

-- Sends one request for each resource, and drives the transport until all are answered or the deadline has come.
local function delete_all_blocking(self, deadline)
  local exchanges = {}
  for _, resource in ipairs(members_of(self)) do
    local started, ex = pcall(start_request, self, resource) -- a hook of the user may raise
    if started then exchanges[resource] = ex end
  end
  for resource, ex in each(exchanges) do
    local status, body = ex:finish_blocking(deadline, parts.call.MAX_BODY_SIZE)
    ex:close()
    if resource.search then
      resource:on_search_response(ex.request, status, body)
    elseif resource.best_effort or (status and is_final(status)) then
      resource:release()
    end
  end
  return next(exchanges) ~= nil
end

--- Does the same in code that cannot wait in the loop, as in a finalizer: drives the transport until all is answered.
---@param deadline opensandbox.Deadline
function OwnedResources:close_blocking(deadline)
  self.closing = true
  settle_creates(self, deadline)
  -- An object that became known at the last moment is deleted, too.
  if deadline:has_passed() then deadline = deadlines.new(owned_resource.LAST_DELETE_TIMEOUT) end
  while not deadline:has_passed() and delete_all_blocking(self, deadline) do
    self.http.transport:step(deadline:clamp(MAX_CLOSING_BACKOFF))
  end
end

--- Gives up the resources that are left, because the transport is closed.
function OwnedResources:abandon()
  self.members = {}
end

--- Waits in a background task. Closing the client ends the wait, because there is little time then.
---@param seconds number
function OwnedResources:sleep(seconds)
  local wait = scheduler.expect { registry = self.sleepers, key = {}, shielded = true }
  wait.seconds = self.closing and math.min(seconds, MAX_CLOSING_BACKOFF) or seconds
  loop.wait(wait)
end

--- The deadline for a finalizer that blocks. When the Lua state closes, many of them run one after the other, and share one time limit.
---@return opensandbox.Deadline
function OwnedResources:finalizer_deadline()
  local last = self.deadline
  if not last or core.now() - last.at > FINALIZER_TIMEOUT then self.deadline = deadlines.new(FINALIZER_TIMEOUT) end
  return self.deadline
end

--- Adds the resource to its set.
function OwnedResource:enter()
  self.set.members[self] = core.process()
end

--- Returns whether this process created the resource and still owns it.
---@return boolean
function OwnedResource:is_ours()
  return self.set.members[self] == core.process()
end

--- Sets the object, which is known from now on.
---@param object any
---@param delete_request fun(object: any): table? makes the prepared request that deletes it
function OwnedResource:locate(object, delete_request)
  self.delete_request = function() return delete_request(object) end
  self.search = nil
end

--- Ends the ownership: the resource was deleted, or stays.
function OwnedResource:release()
  local members = self.set.members
  if not members[self] then return end
  members[self] = nil
  if self.on_release then self.on_release() end
end

-- Returns the next request: it finds the object, or deletes it. Returns nil when no request is needed any more.
function OwnedResource:next_request()
  if self.search then return self.search.request() end
  return self.delete_request()
end

-- Sets the object that the search has found. The create waits no longer for its response.
local function set_found(self, object)
  local search = self.search
  self.found = object
  if self.is_wanted then self.retry_at = nil end -- it must not be deleted when the server answers another request
  self:locate(object, search.delete_request)
  if search.weak.create then search.weak.create:on_found() end
end

-- Takes the response of a search that was received in code that cannot wait. Nil: there is none.
function OwnedResource:on_search_response(request, status, body)
  if not status then return end
  local list = status < 300 and json.decode(body)
  list = type(list) == "table" and request.decode(list)
  if list and list[1] then return set_found(self, list[1]) end
  local delay = self.search:next_delay(not list and { kind = "protocol" } or nil)
  if not delay or (status >= 400 and is_final(status)) then self:release() end
end

-- Sends a request, and waits for its response.
local function call(self, request)
  request.timeout, request.explained = request.timeout or self.set.http.timeouts.timeout, false
  local called, value, err = coxpcall.pcall(parts.call.run, self.set.http, request)
  if not called then return nil, { kind = "transport", cause = value } end -- raised for want of memory
  return value, err
end

-- Takes the outcome of a request of a search. Returns the seconds until the next request, or nil when the search ends. A closing client has
-- no later chance.
local function on_searched(self, list, err)
  if list and list[1] then return set_found(self, list[1]) end
  local is_refused = err and err.kind == "http" and is_final(err.status)
  local delay, is_absent = self.search:next_delay(err)
  if is_refused or is_absent or (not delay and self.set.closing) then self:release() end
  return not (err and err.kind == "closed") and delay or nil
end

-- Searches the object, until it is found or the response of its create names it.
local function find(self)
  local set, search = self.set, self.search
  local delay = search:begin()
  if delay then set:sleep(delay) end
  while self.search and self:is_ours() do
    local list, err = call(self, search.request())
    if not self.search or not self:is_ours() then return end
    delay = on_searched(self, list, err)
    if not delay then return end
    set:sleep(delay)
  end
end

-- Lets a request be repeated after some seconds, when the server answers anything.
local function retry_after(self, seconds)
  self.retry_at = core.now() + seconds
  self.set.retry_at = math.min(self.set.retry_at, self.retry_at)
end

-- A task: deletes a resource. While the client is being closed, it tries until it is stopped.
local function delete(self)
  local set = self.set
  if self.search then
    find(self)
    scheduler.wake(self.waiter)
    if self.search or (self.found and self.is_wanted and not set.closing) then return end
  end
  while self:is_ours() do
    local request = self.delete_request()
    if not request then return self:release() end
    local _, err = call(self, request)
    if not err or self.best_effort or (err.kind == "http" and is_final(err.status)) then return self:release() end
    retry_after(self, self.backoff:next())
    if err.kind == "closed" or not set.closing then return end
    set:sleep(MAX_CLOSING_BACKOFF)
  end
end

--- Starts to delete the resource in the background, and to search its object before if that is not known. May run in a finalizer.
function OwnedResource:delete()
  if not self:is_ours() or (self.task and not self.task:done()) then return end
  retry_after(self, INITIAL_BACKOFF) -- in case that memory does not suffice for the task
  self.task = self.set.cleanup:spawn(function() delete(self) end)
end

--- Searches the object, and waits for that.
---@param op string the method that the user called
---@param seconds number
---@return any object nil: it was not found in time, and is deleted if it is found later
---@return opensandbox.Error? err when the task was cancelled
function OwnedResource:await_search(op, seconds)
  local deadline = deadlines.new(seconds)
  self.is_wanted = true
  local wait = scheduler.expect { registry = self, key = "waiter", owner = self }
  self:delete()
  while not self.task:done() and not deadline:has_passed() do
    wait.seconds = deadline:remaining()
    local interruption, reason = loop.wait(wait)
    if interruption then
      self:abandon()
      return nil, loop.interrupted(op, interruption, reason)
    end
  end
  if self.found and not self.set.closing then return self.found end
  self:abandon()
end

--- The code that called create waits no longer. The object may have been found just before that.
function OwnedResource:abandon()
  self.is_wanted = false
  if self.found then self:delete() end
end

return owned_resource

--- Requests that create an object on a server. When the caller waits no longer for the response, the request continues in the background,
--- and the object that it creates is deleted.
--
-- A caller stops waiting in one of three ways. Its task is cancelled, or its coroutine ends: the exchange reports that to `on_abandon`. The
-- client is closed: see continue_in_background. The Lua state closes, or the host drops the coroutine: a finalizer waits for the response.
--
-- The resource of the object is in the client's set from before the request is sent until it is known that there is no object, that the
-- object is deleted, or that the caller has received it. So closing the client cleans up what any failure, or an error that is raised
-- anywhere, has left.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local finalizer = require "opensandbox.base.finalizer"
local json = require "opensandbox.base.json"
local object_search = require "opensandbox.http.object_search"

-- A request belongs to the process that sent it: a forked child neither waits for it nor deletes its object.

---@class opensandbox.PendingCreate
---@field outcome? string "created", "failed" or "not sent"; nil while the request runs
---@field resource opensandbox.OwnedResource of the object
local PendingCreate = {}
PendingCreate.__index = PendingCreate

--- Returns whether this process sent the request.
---@return boolean
function PendingCreate:is_ours()
  return self.process == core.process()
end

-- Returns the created object of a complete response, or nil.
local function created_object(self, status, body)
  local response = status and status < 300 and body and json.decode(body)
  return type(response) == "table" and self.decode(response) or nil
end

local LOST_STATUS = { [502] = true, [503] = true, [504] = true } -- a proxy did not receive the response

-- Returns whether a create that failed may have made an object all the same.
local function may_have_created(err)
  if err.not_sent or err.retryable then return false end
  if err.kind == "http" then return LOST_STATUS[err.status] or false end
  return err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" or err.kind == "protocol"
end

-- Sets the created object, which the response has named.
local function set_created(self, created)
  self.resource:locate(created, self.delete_request)
  self.outcome = "created"
end

-- Sets it and deletes it in the background.
local function delete(self, created)
  set_created(self, created)
  self.resource:delete()
end

--- Internal: called when the search has found the object. The response is not waited for any more.
function PendingCreate:on_found()
  local is_running = self.outcome == nil
  self.outcome = "created"
  if is_running then self.exchange:hand_over():close() end
end

-- Remembers that the request failed, or was not sent. Returns whether the object may exist all the same, and can be searched.
local function set_failed(self, outcome, may_exist)
  local search = self.resource.search
  self.outcome = outcome
  if search and may_exist then
    search.create_runs = false
    return true
  end
  self.resource:release()
  return false
end

--- Remembers that the request of the caller failed.
---@param err opensandbox.Error
---@return boolean is_lost the object may exist all the same, and can be searched
function PendingCreate:fail(err)
  if self.outcome or self.in_background then return false end -- it was taken over from the caller
  return set_failed(self, "failed", may_have_created(err))
end

-- A task: waits for the response, and deletes the created object.
local function settle(self, ex)
  local status, err = ex:head()
  local body
  if status and status < 300 then
    body, err = ex:body(call.MAX_BODY_SIZE)
  elseif status then
    err = call.http_error(ex)
  end
  if self.outcome then return end -- it became known in another way
  local created = created_object(self, status, body)
  if created then return delete(self, created) end
  ex:close()
  set_failed(self, "failed", may_have_created(err or call.unexpected_response(ex, "the response contains no created object")))
end

-- Continues the request in the background, and begins the search, which ends when the response comes.
local function continue(self, ex)
  self.exchange = ex
  if self.resource.search then self.resource.search.create_runs = true end
  self.cleanup:spawn(function() settle(self, ex) end)
  self.in_background = true
  if self.resource.search then self.resource:delete() end
end

--- Takes the request over from the code that waits for it, which receives an error of kind `closed`.
function PendingCreate:continue_in_background()
  if self.outcome or self.in_background or not (self.exchange and self:is_ours()) then return end
  local ex = self.exchange:hand_over()
  if ex:sent() then return continue(self, ex) end
  ex:close()
  set_failed(self, "not sent", false)
end

--- Waits for the response in code that cannot wait in the loop, and deletes the created object.
---@param deadline opensandbox.Deadline
function PendingCreate:settle_blocking(deadline)
  if self.outcome or not (self.exchange and self:is_ours()) then return end
  local sent, status, body = self.exchange:sent(), nil, nil
  if sent then status, body = self.exchange:finish_blocking(deadline, call.MAX_BODY_SIZE) end
  local created = created_object(self, status, body)
  if created then return delete(self, created) end
  local is_refused = status and status >= 300 and not LOST_STATUS[status]
  if set_failed(self, sent and "failed" or "not sent", sent and not is_refused) then self.resource:delete() end
  self.exchange:close()
end

-- Makes the client responsible for the object, at the start of an attempt. If memory runs out, it is not: entering comes last.
local function enter(self, ex)
  -- Finalizers run in the reverse order of their creation: this one before that of the transfer, which closes it.
  -- The finalizer of a failed attempt is collected while the next attempt runs.
  self.finalizer = finalizer(function()
    if self.exchange == ex then self:settle_blocking(self.resources:finalizer_deadline()) end
  end)
  self.exchange = ex
  self.resource:enter()
end

---@class opensandbox.RollbackOpts
---@field best_effort? boolean the object ends with its sandbox, so that one attempt to delete it is enough
---@field find_request? fun(): table makes the prepared request that finds the object if the response is lost; its `decode` returns a list: the object, or nothing. With this, the caller owns the resource of an object that was created, until it releases that

--- Has the object of a request deleted when the caller waits no longer for the response.
---@param client opensandbox.Client
---@param request table for a plain call, with `decode`; gets the hooks that this needs
---@param delete_request fun(created: any): table? makes the prepared request that deletes the object; gets the result of `decode`
---@param opts? opensandbox.RollbackOpts
---@return opensandbox.PendingCreate create
return function(client, request, delete_request, opts)
  local resources, decode = client.resources, request.decode
  local self = setmetatable({
    process = core.process(), resources = resources, cleanup = client.cleanup, decode = decode, delete_request = delete_request,
    resource = resources:expect(),
    exchange = nil,        -- of the current attempt
    in_background = false, -- a task of the cleanup group waits for the response
    outcome = nil,
  }, PendingCreate)
  local find_request = opts and opts.find_request
  self.resource.best_effort = opts and opts.best_effort
  if find_request then
    self.resource.search = object_search.new(find_request, delete_request, self)
  end
  resources.creates[self] = true
  function request.decode(response)
    local created, missing = decode(response)
    if created and find_request then
      set_created(self, created)
    elseif created then
      self.outcome = "created"
      self.resource:release()
    end
    return created, missing
  end
  function request.on_start(ex)
    enter(self, ex)
    if resources.closing then ex:close() end -- nothing is sent yet
  end
  function request.on_abandon(ex)
    if not ex:sent() then
      set_failed(self, "not sent", false)
      return false
    end
    ex:take_over()
    continue(self, ex)
    return true
  end
  return self
end

--- Requests that create an object on a server. When nobody waits for the response any more, the request continues in the background, and
--- the object that it creates is deleted.
--
-- A caller stops waiting in one of three ways. Its task is cancelled, or its coroutine ends: the exchange reports that to `on_abandon`. The
-- client is closed: see continue_in_background. The Lua state closes, or the host drops the coroutine: a finalizer waits for the response.

local call = require "opensandbox.http.call"
local core = require "opensandbox.core"
local finalizer = require "opensandbox.base.finalizer"
local json = require "opensandbox.base.json"

-- A request belongs to the process that sent it: a forked child neither waits for it nor deletes its object.

---@class opensandbox.PendingCreate
---@field outcome? string "created", "failed" (the object may exist all the same, see err), "not sent" or "given up" (there was no more time to wait for the response); nil while the request runs
---@field err? opensandbox.Error of a request that failed
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

--- Deletes the created object in the background, and stops waiting for the response.
---@param created any result of the request's `decode`
function PendingCreate:delete(created)
  if not self:is_ours() then return end
  local is_running = self.outcome == nil
  self.outcome = "created"
  local resource = self.resources:add(function() return self.delete_request(created) end)
  resource.best_effort = self.best_effort
  resource:delete()
  if is_running then self.exchange:hand_over():close() end
end

--- Remembers that the request failed.
---@param err opensandbox.Error
function PendingCreate:fail(err)
  self.outcome, self.err = "failed", err
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
  if created then return self:delete(created) end
  ex:close()
  self:fail(err or call.unexpected_response(ex, "the response contains no created object"))
end

local function continue(self, ex)
  self.exchange, self.in_background = ex, true
  self.cleanup:spawn(function() settle(self, ex) end)
  if self.on_background then self.on_background(self) end
end

--- Takes the request over from the code that waits for it, which receives an error of kind `closed`.
function PendingCreate:continue_in_background()
  if self.outcome or self.in_background or not (self.exchange and self:is_ours()) then return end
  local ex = self.exchange:hand_over()
  if ex:sent() then return continue(self, ex) end
  ex:close()
  self.outcome = "not sent"
end

--- Waits for the response in code that cannot wait in the loop, and deletes the created object.
---@param deadline opensandbox.Deadline
function PendingCreate:settle_blocking(deadline)
  if self.outcome or not (self.exchange and self:is_ours()) then return end
  local status, body
  if self.exchange:sent() then status, body = self.exchange:finish_blocking(deadline, call.MAX_BODY_SIZE) end
  local created = created_object(self, status, body)
  if created then return self:delete(created) end
  self.outcome = "given up"
  self.exchange:close()
end

---@class opensandbox.RollbackOpts
---@field best_effort? boolean the object ends with its sandbox, so that one attempt to delete it is enough
---@field on_background? fun(create: opensandbox.PendingCreate) called when the request continues in the background

--- Has the object of a request deleted when nobody waits for the response.
---@param client opensandbox.Client
---@param request table for a plain call, with `decode`; gets the hooks that this needs
---@param delete_request fun(created: any): table? makes the prepared request that deletes the object; gets the result of `decode`
---@param opts? opensandbox.RollbackOpts
---@return opensandbox.PendingCreate create
return function(client, request, delete_request, opts)
  local resources, decode = client.resources, request.decode
  local self = setmetatable({
    process = core.process(), resources = resources, cleanup = client.cleanup, decode = decode, delete_request = delete_request,
    best_effort = opts and opts.best_effort, on_background = opts and opts.on_background,
    exchange = nil,        -- of the current attempt
    in_background = false, -- a task of the cleanup group waits for the response
    outcome = nil, err = nil,
  }, PendingCreate)
  resources.creates[self] = true
  function request.decode(response)
    self.outcome = "created"
    return decode(response)
  end
  function request.on_start(ex)
    self.exchange = ex
    -- Finalizers run in the reverse order of their creation: this one before that of the transfer, which closes it.
    -- That of an attempt that has failed is collected while the next attempt runs.
    self.finalizer = finalizer(function()
      if self.exchange == ex then self:settle_blocking(resources:finalizer_deadline()) end
    end)
    if resources.closing then ex:close() end
  end
  function request.on_abandon(ex)
    if not ex:sent() then
      self.outcome = "not sent"
      return false
    end
    ex:take_over()
    continue(self, ex)
    return true
  end
  return self
end

--- Base class of resources inside a sandbox: shell sessions, code contexts, isolated sessions, terminals. They are deleted with, or before, the
--- sandbox.
--
-- An object that created its resource deletes it when it is closed or collected. An object that was attached by an id does not.

local each = require "opensandbox.base.each"
local endpoint_call = require "opensandbox.http.endpoint_call"
local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local options = require "opensandbox.base.options"
local tables = require "opensandbox.base.tables"

local child_resource = {}

--- A resource inside a sandbox: a session, a code context or an isolated session.
--- ```lua
--- print(session.id, session.sandbox.id, session.client.url)
--- ```
---@class opensandbox.ChildResource
---@field id string execd's name for it
---@field sandbox opensandbox.Sandbox the sandbox that it is in
---@field client opensandbox.Client the client that it belongs to
local ChildResource = {}

--- Internal: returns the endpoint of the sandbox's execd, or an error when the object is closed.
---@param op string the method that the user called
---@param limit? opensandbox.Deadline for the request
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function ChildResource:execd_endpoint(op, limit)
  if self._closed then
    return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.sandbox.id,
      message = ("the %s is closed"):format(self._noun) }
  end
  return self.sandbox:execd_endpoint(op, limit)
end

--- Internal: calls a client method with that endpoint.
function ChildResource:call_execd(op, method, ...)
  return endpoint_call.call(self.client, op, function(...) return self:execd_endpoint(...) end, method, ...)
end

--- Internal: does the same within the `timeout` of the options, which also limits the lookup of the endpoint.
---@param opts? { timeout?: opensandbox.Duration } of the user
function ChildResource:call_execd_within(op, opts, method, ...)
  local limit = deadline.new(options.timeout(op, opts))
  return endpoint_call.within(self.client, op, limit, function(...) return self:execd_endpoint(...) end, method, ...)
end

--- Closes the object. A created resource is deleted; an attached one continues. It need not be called after the sandbox was killed.
--- ```lua
--- session:close()
--- ```
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, for the delete
---@return true? ok
---@return opensandbox.Error? err
function ChildResource:close(opts)
  local op = self._op_prefix .. ":close"
  local limit = deadline.new(options.timeout(op, opts))
  if self._closed then return true end
  if self._resource and self._resource:is_ours() and not self.sandbox:is_killed() then
    local client = self.client:for_op(op):within(limit)
    local ok, err = client[self._delete](client, self.sandbox:known_execd() or self._execd, self[self._id_field])
    if not ok and err.code ~= "sandbox_gone" then return nil, err end
  end
  self:detach()
  self._closed = true
  return true
end

--- Lets a created resource continue after this object is closed or collected.
--- ```lua
--- print(session:detach().id) -- another process continues with sandbox:session { id = id }
--- ```
---@return any object itself
function ChildResource:detach()
  if self._resource then self._resource:release() end
  self._resource = nil
  return self
end

function ChildResource:__close()
  self:close()
end

function ChildResource:__tostring()
  return ("%s: %s"):format(getmetatable(self).__name, self.id)
end

--- The methods, for classes that extend them.
child_resource.base = ChildResource

--- Makes a class of such objects.
---@param class table its methods, and: __name, _op_prefix (the prefix of its operations), _noun (its name in messages), _delete (the client method that deletes one), _id_field (the field with the id for that, default "id")
---@return table class
function child_resource.class(class)
  for name, method in each(ChildResource) do class[name] = class[name] or method end
  class._id_field = class._id_field or "id"
  class.__index = class
  return class
end

--- Attaches an object to an existing resource.
---@param class table
---@param sandbox opensandbox.Sandbox
---@param fields table id, and the other fields of the class
function child_resource.attach(class, sandbox, fields)
  fields.sandbox, fields.client = sandbox, sandbox.client
  return setmetatable(fields, class)
end

--- Creates a resource and its object.
---@param class table
---@param sandbox opensandbox.Sandbox
---@param op string the method that the user called
---@param opts { timeout?: opensandbox.Duration } the time limit for the whole
---@param method string the client method that creates it and returns its id, or a table with the id
---@param ... any its arguments after the endpoint
---@return table? object
---@return opensandbox.Error? err
function child_resource.create(class, sandbox, op, opts, method, ...)
  local created, err = sandbox:call_execd_within(op, { timeout = opts.timeout }, method, ...)
  if not created then return nil, err end
  local self = child_resource.attach(class, sandbox, type(created) == "table" and tables.merge(created) or { id = created })
  local client, id, execd = sandbox.client, self.id, sandbox:known_execd()
  local delete_request = self._delete .. "_request"
  self._execd = execd -- a pause may change the endpoint; then the sandbox knows the new one after its next request
  local resource = client.resources:add(function()
    if sandbox:is_killed() then return nil end
    return client[delete_request](client, sandbox:known_execd() or execd, id)
  end)
  resource.best_effort = true
  function resource.parent_is_owned() return sandbox:owned_resource() ~= nil end
  self._resource = resource
  self._finalizer = finalizer(function() resource:delete() end)
  return self
end

return child_resource

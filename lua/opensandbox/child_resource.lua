--- Base class of resources inside a sandbox: shell sessions, code contexts, isolated sessions. They are deleted with, or before, the
--- sandbox.
--
-- An object that created its resource deletes it when it is closed or collected. An object that was attached by an id does not.

local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
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
---@return opensandbox.Endpoint? endpoint
---@return opensandbox.Error? err
function ChildResource:execd_endpoint(op)
  if self._closed then
    return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.sandbox.id,
      message = ("the %s is closed"):format(self._noun) }
  end
  return self.sandbox:execd_endpoint(op)
end

--- Internal: calls a client method with that endpoint.
function ChildResource:call_execd(op, method, ...)
  return endpoint_call(self.client, op, function() return self:execd_endpoint(op) end, method, ...)
end

--- Closes the object. A created resource is deleted; an attached one continues. It need not be called after the sandbox was killed.
--- ```lua
--- session:close()
--- ```
---@return true? ok
---@return opensandbox.Error? err
function ChildResource:close()
  if self._closed then return true end
  if self._resource and self._resource:is_ours() and not self.sandbox:is_killed() then
    local client = self.client:for_op(self._op_prefix .. ":close")
    local ok, err = client[self._delete](client, self.sandbox:known_execd() or self._execd, self.id)
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
---@return self
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

--- Makes a class of such objects.
---@param class table its methods, and: __name, _op_prefix (the prefix of its operations), _noun (its name in messages), _delete (the client method that deletes one)
---@return table class
function child_resource.class(class)
  for name, method in pairs(ChildResource) do class[name] = class[name] or method end
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
---@param method string the client method that creates it and returns its id, or a table with the id
---@param ... any its arguments after the endpoint
---@return table? object
---@return opensandbox.Error? err
function child_resource.create(class, sandbox, op, method, ...)
  local created, err = sandbox:call_execd(op, method, ...)
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

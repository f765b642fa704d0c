--- Something that this process made in a sandbox and that ends before the sandbox does: a shell session, a code context, an isolated
--- session. What their objects have in common.
--
-- An object that was attached by its id does not end what it stands for; one that made it does, when it is closed or collected.

local endpoint_call = require "opensandbox.http.endpoint_call"
local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local options = require "opensandbox.base.options"
local url = require "opensandbox.base.url"

local part = {}

---@class opensandbox.Part
---@field id string
local Part = {}


-- The endpoint of the sandbox's execd, as long as the object is open. `op` is what the user called, and what errors name.
function Part:execd_endpoint(op)
  if self._closed then
    return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self.sandbox.id,
      message = ("the %s is closed"):format(self._what) }
  end
  return self.sandbox:execd_endpoint(op)
end

--- Internal: calls a client method with that endpoint.
function Part:call_execd(op, method, ...)
  return endpoint_call(self.client, op, function() return self:execd_endpoint(op) end, method, ...)
end

--- Closes the object: what it made is deleted; what it was attached to stays. Not needed when the sandbox was killed.
---@return true? ok
---@return opensandbox.Error? err
function Part:close()
  if self._closed then return true end
  if self._resource and not self.sandbox:is_killed() then
    local client = self.client:for_op(self._name .. ":close")
    local ok, err = client[self._delete](client, self.sandbox:known_execd() or self._execd, self.id)
    if not ok then return nil, err end
  end
  self:detach()
  self._closed = true
  return true
end

--- Lets what it made stay when this object is closed or collected, for another process perhaps.
function Part:detach()
  if self._resource then self._resource:release() end
  self._resource = nil
  return self
end

function Part:__close()
  self:close()
end

function Part:__tostring()
  return ("opensandbox.%s: %s"):format(self._class, self.id)
end

--- A class of such objects.
---@param class table its methods, and: _class, _name, _what (its name as a type, in operations, in texts), _delete (the client method that ends one), _route (of the same, without the id)
function part.class(class)
  for name, method in pairs(Part) do class[name] = class[name] or method end
  class.__index = class
  class.__name = "opensandbox." .. class._class
  return class
end

--- An object for what is there.
---@param fields table id, and what else the class wants
function part.attach(class, sandbox, fields)
  fields.sandbox, fields.client = sandbox, sandbox.client
  return setmetatable(fields, class)
end

--- Makes one, by a client method that gives its id, or a table with its id and more; and the object for it.
function part.make(class, sandbox, op, method, ...)
  local created, err = sandbox:call_execd(op, method, ...)
  if not created then return nil, err end
  local self = part.attach(class, sandbox, type(created) == "table" and options.merge(created) or { id = created })
  local client, id, execd = sandbox.client, self.id, sandbox:known_execd()
  self._execd = execd -- a pause may move it: then the sandbox knows the new one, once it was asked for
  local resource = client.resources:add(function()
    if sandbox:is_killed() then return nil end
    return client.http:endpoint_request(sandbox:known_execd() or execd, { op = class._name .. ":close", method = "DELETE",
      path = class._route .. url.escape(id), may_repeat = true })
  end)
  function resource.parent_is_owned() return sandbox:owned_resource() ~= nil end
  self._resource = resource
  self._finalizer = finalizer(function() resource:delete() end)
  return self
end

return part

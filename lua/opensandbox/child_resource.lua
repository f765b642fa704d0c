--- Something that this process made in a sandbox and that ends before the sandbox does: a shell session, a code context, an isolated
--- session. What their objects have in common.
--
-- An object that was attached by its id does not end what it stands for; one that made it does, when it is closed or collected.

local errors = require "opensandbox.base.errors"
local finalizer = require "opensandbox.base.finalizer"
local options = require "opensandbox.base.options"
local url = require "opensandbox.base.url"
local wire = require "opensandbox.lifecycle.objects"

local part = {}

---@class opensandbox.Part
---@field id string
local Part = {}

-- Where its execd is now: a pause may have moved it. Does not wait.
local function endpoint_of(life)
  return life.sandbox._endpoints[wire.EXECD_PORT] or life.execd
end

-- The endpoint of the sandbox's execd, as long as the object is open. `op` is what the user called, and what errors name.
function Part:_execd(op)
  if self._closed then
    return nil, errors.new { kind = "closed", code = "closed", op = op, sandbox_id = self._sandbox.id,
      message = ("the %s is closed"):format(self._what) }
  end
  return self._sandbox:_execd(op)
end

-- Calls a client method with that endpoint.
function Part:_ask(op, method, ...)
  return part.ask(self, op, method, ...)
end

--- Closes the object: what it made is deleted; what it was attached to stays. Not needed when the sandbox was killed.
---@return true? ok
---@return opensandbox.Error? err
function Part:close()
  if self._closed then return true end
  local life = self._life
  if life and not life.sandbox._killed then
    local client = self.client
    local ok, err = client[self._delete](client, endpoint_of(life), self.id)
    if not ok then
      err.op = self._name .. ":close"
      return nil, err
    end
  end
  self:detach()
  self._closed = true
  return true
end

--- Lets what it made stay when this object is closed or collected, for another process perhaps.
function Part:detach()
  if self._life then self.client:_forget_life(self._life) end
  self._life = nil
  return self
end

function Part:__close()
  self:close()
end

function Part:__tostring()
  return ("opensandbox.%s: %s"):format(self._class, self.id)
end

--- Calls a client method with the endpoint of execd, and gives the error the name of what the user called.
---@param owner table a sandbox, or a part of one
function part.ask(owner, op, method, ...)
  local execd, err = owner:_execd(op)
  if not execd then return nil, err end
  local client = owner.client
  local value, second = client[method](client, execd, ...)
  if value == nil and second then second.op = op end
  return value, second
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
  fields._sandbox, fields.client = sandbox, sandbox.client
  return setmetatable(fields, class)
end

--- Makes one, by a client method that gives its id, or a table with its id and more; and the object for it.
function part.make(class, sandbox, op, method, ...)
  local execd, err = sandbox:_execd(op)
  if not execd then return nil, err end
  local client = sandbox.client
  local made
  made, err = client[method](client, execd, ...)
  if not made then
    err.op = op
    return nil, err
  end
  local self = part.attach(class, sandbox, type(made) == "table" and options.merge(made) or { id = made })
  local id, life = self.id, nil
  life = client:_begin_life(function()
    if sandbox._killed then return nil end
    return client:_endpoint(endpoint_of(life), { op = class._name .. ":close", method = "DELETE",
      path = class._route .. url.escape(id), may_repeat = true })
  end)
  life.sandbox, life.execd = sandbox, execd
  self._life = life
  self._finalizer = finalizer(function() client:_end_life(life) end)
  return self
end

return part

--- Owned resources: sandboxes, and objects inside sandboxes, that this client created and must delete.
--
-- A resource does not refer to the object that people hold, so that it can outlive that object in its finalizer. It belongs to the process
-- that created it: a forked child does not delete the resources of its parent.

local core = require "opensandbox.core"

---@class opensandbox.OwnedResource
---@field on_release? fun() called once when the resource is deleted or released; may run in a finalizer
---@field parent_is_owned? fun(): boolean a resource inside a sandbox that is deleted itself needs no request
local OwnedResource = {}
OwnedResource.__index = OwnedResource

---@class opensandbox.OwnedResources
local OwnedResources = {}
OwnedResources.__index = OwnedResources

local owned_resource = {}

--- A set of owned resources.
---@param http opensandbox.HttpClient
---@return opensandbox.OwnedResources
function owned_resource.set(http)
  return setmetatable({ http = http, members = {} }, OwnedResources)
end

--- Adds a resource.
---@param delete_request fun(): table? makes the prepared request that deletes it; nil when that is no longer needed
---@return opensandbox.OwnedResource
function OwnedResources:add(delete_request)
  local resource = setmetatable({ set = self, delete_request = delete_request }, OwnedResource)
  self.members[resource] = core.process()
  return resource
end

--- Deletes all resources without waiting. Closing the transport waits for the requests.
function OwnedResources:delete_all()
  for resource in pairs(self.members) do
    if not (resource.parent_is_owned and resource.parent_is_owned()) then resource:delete() end
  end
end

--- Returns whether this process created the resource and still owns it.
---@return boolean
function OwnedResource:is_ours()
  return self.set.members[self] == core.process()
end

--- Ends the ownership: the resource was deleted, or stays.
function OwnedResource:release()
  local members = self.set.members
  if not members[self] then return end
  members[self] = nil
  if self.on_release then self.on_release() end
end

--- Deletes the resource without waiting. Closing the client waits for the request. May run in a finalizer.
function OwnedResource:delete()
  local is_ours = self:is_ours()
  self:release()
  if not is_ours then return end
  local request = self.delete_request()
  if request then self.set.http:send_detached(request, true) end
end

return owned_resource

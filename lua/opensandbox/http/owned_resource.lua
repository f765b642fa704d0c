--- Owned resources: sandboxes, and objects inside sandboxes, that this client created and must delete.
--
-- A resource does not refer to the object that people hold, so that it can outlive that object in its finalizer.

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
  self.members[resource] = true
  return resource
end

--- Deletes all resources without waiting. Closing the transport waits for the requests.
function OwnedResources:delete_all()
  for resource in pairs(self.members) do
    if not (resource.parent_is_owned and resource.parent_is_owned()) then resource:delete() end
  end
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
  if not self.set.members[self] then return end
  self:release()
  local request = self.delete_request()
  if request then self.set.http:send_detached(request, true) end
end

return owned_resource

--- Remembers per endpoint which optional features its server has, so that each is probed only once.

local capabilities = {}

--- Returns whether the server behind an endpoint has a feature.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param feature string
---@return boolean? present nil: not probed yet
function capabilities.get(client, endpoint, feature)
  local features = client.http.capabilities[endpoint]
  return features and features[feature]
end

--- Remembers whether the server has a feature.
---@param present boolean
function capabilities.set(client, endpoint, feature, present)
  local endpoints = client.http.capabilities
  endpoints[endpoint] = endpoints[endpoint] or {}
  endpoints[endpoint][feature] = present
end

return capabilities

--- What an endpoint's server is known to lack, found out by asking: once for each endpoint, not for each call.

local lacks = {}

--- Whether the server behind an endpoint was found to lack a feature.
---@param client opensandbox.Client
---@param endpoint opensandbox.Endpoint|string
---@param feature string
---@return boolean? lacking nil: not asked yet
function lacks.known(client, endpoint, feature)
  local known = client._lacks[endpoint]
  return known and known[feature]
end

--- Remembers whether it lacks the feature.
---@param lacking boolean
function lacks.learn(client, endpoint, feature, lacking)
  local known = client._lacks[endpoint] or {}
  known[feature] = lacking
  client._lacks[endpoint] = known
end

return lacks

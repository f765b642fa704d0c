--- Looks up an endpoint, then calls a client method with it.

local endpoint_call = {}

---@alias opensandbox.EndpointLookup fun(op: string, limit?: opensandbox.Deadline): opensandbox.Endpoint?, opensandbox.Error?

--- Looks up an endpoint and calls a client method with it.
---@param client opensandbox.Client
---@param op string the method that the user called; errors name it
---@param endpoint_of opensandbox.EndpointLookup
---@param method string name of a client method whose first argument is an endpoint
---@param ... any its other arguments
---@return any ... the results of the method, or nil and the error of the lookup
function endpoint_call.call(client, op, endpoint_of, method, ...)
  local endpoint, err = endpoint_of(op, client.http.limit)
  if not endpoint then return nil, err end
  local view = client:for_op(op)
  return view[method](view, endpoint, ...)
end

--- Does the same within a time limit.
---@param limit opensandbox.Deadline for the lookup and the method together
function endpoint_call.within(client, op, limit, endpoint_of, method, ...)
  return endpoint_call.call(client:within(limit), op, endpoint_of, method, ...)
end

return endpoint_call

--- Looks up an endpoint, then calls a client method with it.

---@param client opensandbox.Client
---@param op string the method that the user called; errors name it
---@param endpoint_of fun(op: string): opensandbox.Endpoint?, opensandbox.Error? looks the endpoint up
---@param method string name of a client method whose first argument is an endpoint
---@param ... any its other arguments
---@return any ... the results of the method, or nil and the error of the lookup
return function(client, op, endpoint_of, method, ...)
  local endpoint, err = endpoint_of(op)
  if not endpoint then return nil, err end
  local view = client:for_op(op)
  return view[method](view, endpoint, ...)
end

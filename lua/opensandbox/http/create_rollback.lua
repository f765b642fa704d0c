--- Requests that create an object inside a sandbox: an object that is created although nobody waits for it any more is deleted again.

local call = require "opensandbox.http.call"
local json = require "opensandbox.base.json"

--- Has the object deleted when the request is abandoned after it was sent: the response is awaited in the background.
---@param client opensandbox.Client
---@param request table for a plain call, with `decode`
---@param delete fun(created: any) deletes the object; gets the result of `decode`
---@return table request
return function(client, request, delete)
  function request.on_abandon(ex)
    if not ex:sent() then return false end
    ex:take_over()
    client.cleanup:spawn(function()
      local status = ex:head()
      local body = status and status < 300 and ex:body(call.MAX_BODY_SIZE)
      local response = body and json.decode(body)
      local created = type(response) == "table" and request.decode(response)
      if created then delete(created) end
      ex:close()
    end)
    return true
  end
  return request
end

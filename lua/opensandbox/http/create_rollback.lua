--- Requests that make something in a sandbox: what is made although nobody waits for it any more is deleted again.

local call = require "opensandbox.http.call"
local json = require "opensandbox.base.json"
local task = require "opensandbox.loop.task"

--- Has a request undone when it is abandoned: its answer is waited for in the background.
---@param client opensandbox.Client
---@param request table for a plain call, with `decode`
---@param delete fun(made: any) deletes what decode gave
---@return table request
return function(client, request, delete)
  function request.on_abandon(ex)
    if not ex.transfer:sent() then return false end
    ex.call.on_abandon = nil
    task.background(client, function()
      local status = ex:head()
      local body = status and status < 300 and ex:body(call.LONGEST_BODY)
      local answer = body and json.decode(body)
      local made = type(answer) == "table" and request.decode(answer)
      if made then delete(made) end
      ex:close()
    end)
    return true
  end
  return request
end

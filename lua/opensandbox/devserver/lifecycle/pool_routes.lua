--- Pools, which only a server on Kubernetes has. As on the real server, an invalid body is refused first.

local validation = require "opensandbox.devserver.http.validation"

local check = validation.check
local REQUIRED = { required = true }

local capacity = check.model {
  { "bufferMax", check.integer(0), REQUIRED }, { "bufferMin", check.integer(0), REQUIRED },
  { "poolMax", check.integer(0), REQUIRED }, { "poolMin", check.integer(0), REQUIRED },
}
local create_pool = check.model {
  { "name", check.string, REQUIRED }, { "template", check.map, REQUIRED }, { "capacitySpec", capacity, REQUIRED },
}
local update_pool = check.model { { "capacitySpec", capacity, REQUIRED } }

local function no_pools(call)
  call.response:fail(501, "KUBERNETES::POOL_NOT_SUPPORTED", "Pool management is only available when runtime.type is 'kubernetes'.")
end

-- A route with a body.
local function with_body(check_body)
  return function(call)
    call:body(check_body, function() no_pools(call) end)
  end
end

return {
  ["GET /pools"] = no_pools,
  ["POST /pools"] = with_body(create_pool),
  ["GET /pools/{id}"] = no_pools,
  ["PUT /pools/{id}"] = with_body(update_pool),
  ["DELETE /pools/{id}"] = no_pools,
}

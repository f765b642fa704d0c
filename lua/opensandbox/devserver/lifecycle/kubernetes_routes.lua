--- Pools and templates, which only a server on Kubernetes has. As on the real server, an invalid body is refused first.

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
local create_template = check.model({
  { "image", check.string, REQUIRED }, { "publish", check.string, REQUIRED }, { "resourceLimits", check.string_map },
  { "entrypoint", check.list(check.string, 1) }, { "env", check.string_map }, { "metadata", check.string_map },
  { "readiness", check.map }, { "format", check.literal({ "native", "overlaybd" }, "'native' or 'overlaybd'") },
}, true)

local function no_pools(call)
  call.response:fail(501, "KUBERNETES::POOL_NOT_SUPPORTED", "Pool management is only available when runtime.type is 'kubernetes'.")
end

local function no_templates(call)
  call.response:fail(501, "FSB::API_NOT_SUPPORTED", "Template management requires the kubernetes runtime.")
end

-- A route with a body: `refuse` answers when the body is valid.
local function with_body(check_body, refuse)
  return function(call)
    call:body(check_body, function() refuse(call) end)
  end
end

return {
  ["GET /pools"] = no_pools,
  ["POST /pools"] = with_body(create_pool, no_pools),
  ["GET /pools/{id}"] = no_pools,
  ["PUT /pools/{id}"] = with_body(update_pool, no_pools),
  ["DELETE /pools/{id}"] = no_pools,
  ["GET /templates"] = no_templates,
  ["POST /templates"] = with_body(create_template, no_templates),
  ["GET /templates/{id}"] = no_templates,
  ["DELETE /templates/{id}"] = no_templates,
}

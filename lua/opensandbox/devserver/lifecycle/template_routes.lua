--- The routes of templates. A server on Docker has none; as there, an invalid body is refused first.

local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local labels = require "opensandbox.devserver.lifecycle.labels"
local query = require "opensandbox.devserver.http.query"
local time = require "opensandbox.base.time"
local validation = require "opensandbox.devserver.http.validation"

local check = validation.check
local REQUIRED = { required = true }
local DEFAULT_FORMAT = "overlaybd"
local RESOURCES = { cpu = true, memory = true, disk = true }

local check_create = check.model({
  { "image", check.nonempty_string, REQUIRED }, { "publish", check.nonempty_string, REQUIRED },
  { "resourceLimits", check.string_map }, { "entrypoint", check.list(check.string, 1) }, { "env", check.string_map },
  { "metadata", check.string_map },
  { "readiness", check.model { { "probe", check.string }, { "warmupSeconds", check.integer(0) } } },
  { "format", check.literal({ "native", DEFAULT_FORMAT }, "'native' or 'overlaybd'") },
}, true)

local function description(template)
  local spec = template.spec
  return {
    templateId = template.id, image = spec.image, resourceLimits = spec.resourceLimits,
    entrypoint = spec.entrypoint and json.array(spec.entrypoint), env = spec.env,
    metadata = spec.metadata and next(spec.metadata) and spec.metadata or nil, readiness = spec.readiness, publish = spec.publish,
    format = spec.format or DEFAULT_FORMAT,
    status = { phase = template.phase, manifestRef = template.manifest_ref, message = template.message },
    createdAt = time.format(template.created), updatedAt = time.format(template.updated),
  }
end

-- Returns the problem for which the server refuses a body of the right shape.
local function refusal_of(spec)
  for key, value in each(spec.metadata or {}) do
    local refusal = labels.refusal(key, value)
    if refusal then return refusal end
  end
  for name in each(spec.resourceLimits or {}) do
    if not RESOURCES[name] then
      return validation.refusal(400, "SANDBOX::INVALID_PARAMETER",
        ("Unsupported resourceLimits keys for templates: %s; supported: cpu, memory, disk."):format(name))
    end
  end
  for name in each(spec.env or {}) do
    if not name:find("^[%a_][%w_]*$") then
      return validation.refusal(400, "SANDBOX::INVALID_PARAMETER",
        ("Invalid env names for templates: %s; names must match [A-Za-z_][A-Za-z0-9_]*."):format(name))
    end
  end
end

local routes = {}

-- Returns whether the server has templates. Else the request is answered here.
local function has_templates(call)
  if call.templates then return true end
  call.response:fail(501, "FSB::API_NOT_SUPPORTED", "Template management requires the kubernetes runtime.")
end

-- Returns the template of the path. A request for an unknown one is answered here.
local function named(call)
  if not has_templates(call) then return end
  local template = call.templates:get(call.parameters.id)
  if template then return template end
  call.response:fail(404, "FSB::TEMPLATE_NOT_FOUND", "Template not found.")
end

routes["POST /templates"] = function(call)
  call:body(check_create, function(spec)
    if not has_templates(call) then return end
    local refusal = refusal_of(spec)
    if refusal then return call:answer(refusal) end
    call.response:json(201, description(call.templates:create(spec)))
  end)
end

routes["GET /templates"] = function(call)
  if not has_templates(call) then return end
  local wanted = query.pairs(call:parameter("metadata") or "")
  call:page(function()
    local list = {}
    for _, template in ipairs(call.templates:list()) do
      local fits, metadata = true, template.spec.metadata or {}
      for _, pair in ipairs(wanted) do fits = fits and metadata[pair[1]] == pair[2] end
      if fits then list[#list + 1] = template end
    end
    return list
  end, description)
end

routes["GET /templates/{id}"] = function(call)
  local template = named(call)
  if template then call.response:json(200, description(template)) end
end

routes["DELETE /templates/{id}"] = function(call)
  local template = named(call)
  if not template then return end
  call.templates:remove(template)
  call.response:empty(204)
end

return routes

--- Templates: a client method for each route. The server builds a template from an image in the background, and `create` with its id
--- starts a sandbox from it fast. Only servers on Kubernetes have templates, from 1.1.1; others return 501.

local deadline = require "opensandbox.loop.deadline"
local errors = require "opensandbox.base.errors"
local fields = require "opensandbox.base.fields"
local options = require "opensandbox.base.options"
local pagination = require "opensandbox.lifecycle.pagination"
local readiness = require "opensandbox.lifecycle.readiness"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

---@class (partial) opensandbox.Client
local template_routes = {}

--- A template, as the server knows it.
--- ```lua
--- local info = assert(client:get_template(id))
--- print(info.id, info.image, info.publish, info.format, info.state, info.message, info.manifest_ref, info.metadata.team)
--- print(info.entrypoint, info.env, info.resource_limits, info.readiness, info.created_at, info.updated_at, info.raw)
--- ```
---@class opensandbox.TemplateInfo
---@field id string its name, for `client:create { template_id = }`
---@field image string the image that it is built from
---@field publish string where the server puts the built files
---@field format? string "native" or "overlaybd"
---@field state string `Pending`, `Building`, `Succeeded`, `Failed`: an open set
---@field message? string why it has failed
---@field manifest_ref? string where the server has put it, if the state is Succeeded
---@field metadata table<string, string> that of the create
---@field entrypoint? string[] the command that keeps its sandboxes running
---@field env? table<string, string> environment variables of its sandboxes
---@field resource_limits? table<string, string> of its sandboxes
---@field readiness? { probe?: string, warmup?: number } warmup in seconds
---@field created_at? number Unix seconds
---@field updated_at? number Unix seconds
---@field raw table the decoded JSON object of the response

local function template_info(object)
  if type(object) ~= "table" or not url.is_segment(object.templateId) then return nil, "template" end
  local status, gate = fields.object(object.status) or {}, fields.object(object.readiness)
  return {
    id = object.templateId, image = fields.text(object.image), publish = fields.text(object.publish),
    format = fields.text(object.format), state = fields.text(status.phase) or "Unknown", message = fields.text(status.message),
    manifest_ref = fields.text(status.manifestRef),
    metadata = fields.object(object.metadata) or {}, entrypoint = fields.texts(object.entrypoint), env = fields.object(object.env),
    resource_limits = fields.object(object.resourceLimits),
    readiness = gate and { probe = gate.probe, warmup = gate.warmupSeconds } or nil,
    created_at = time.parse(object.createdAt), updated_at = time.parse(object.updatedAt), raw = object,
  }
end

local function template_path(op, id)
  return "/templates/" .. url.escape(options.path_segment(op, "the template id", id))
end

--- The options of `client:create_template`.
--- ```lua
--- local template = assert(client:create_template {
---   image = "python:3.12", publish = "s3://bucket/templates/python", resource_limits = { cpu = "1", memory = "1Gi", disk = "4Gi" },
---   entrypoint = { "python3", "server.py" }, env = { PORT = "8000" }, metadata = { team = "blue" },
---   readiness = { probe = "tcp://127.0.0.1:8000", warmup = 5 }, format = "overlaybd", timeout = 30,
--- })
--- ```
---@class opensandbox.TemplateOpts
---@field image string the image that it is built from
---@field publish string where the server puts the built files: "s3://BUCKET/PATH"
---@field resource_limits? table<string, string> cpu, memory and disk of its sandboxes; default "1", "512Mi", "2Gi"
---@field entrypoint? string[] default: a command that only waits
---@field env? table<string, string> names of letters, digits and `_`
---@field metadata? table<string, string> as for create
---@field readiness? { probe?: string, warmup?: number } when the build is complete: "tcp://ADDRESS:PORT" or "cmd://COMMAND" succeeds, or that many seconds have passed
---@field format? string "overlaybd" (default) or "native"
---@field timeout? opensandbox.Duration for the call

local create_options = {
  image = "nonempty string", publish = "nonempty string", resource_limits = "string map", entrypoint = "string list",
  env = "environment", metadata = "string map", readiness = "table", format = "nonempty string", timeout = "seconds",
}
local readiness_options = { probe = "nonempty string", warmup = "seconds or 0" }

-- Returns the body of the request for checked options.
local function create_body(op, opts)
  local gate = opts.readiness and options.check(op, opts.readiness, readiness_options)
  return {
    image = opts.image, publish = opts.publish, resourceLimits = opts.resource_limits, entrypoint = opts.entrypoint, env = opts.env,
    metadata = opts.metadata, format = opts.format,
    readiness = gate and { probe = gate.probe, warmupSeconds = gate.warmup and math.ceil(gate.warmup) },
  }
end

--- Starts to build a template: POST /templates. The server builds it in the background: see wait_template. The request is sent once. If
--- its response is lost, the template may exist: search it with list_templates by a unique entry of its metadata.
--- ```lua
--- local template = assert(client:create_template { image = "python:3.12", publish = "s3://bucket/templates/python" })
--- assert(client:wait_template(template.id))
--- local sandbox = assert(client:create { template_id = template.id, timeout = 600 })
--- ```
---@param opts opensandbox.TemplateOpts
---@return opensandbox.TemplateInfo? info
---@return opensandbox.Error? err
function template_routes:create_template(opts)
  local op = self.op or "create_template"
  options.argument(op, "the options", opts, "table")
  opts = options.check(op, opts, create_options)
  options.argument(op, "option 'image'", opts.image, "nonempty string")
  options.argument(op, "option 'publish'", opts.publish, "nonempty string")
  if opts.entrypoint and #opts.entrypoint == 0 then options.raise(op, "option 'entrypoint' must not be empty") end
  return self.http:call { op = op, method = "POST", path = "/templates", timeout = opts.timeout, json = create_body(op, opts),
    decode = template_info }
end

local call_options = { timeout = "seconds" }

--- Returns one template: GET /templates/{id}.
--- ```lua
--- print(assert(client:get_template(id)).state)
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.TemplateInfo? info
---@return opensandbox.Error? err
function template_routes:get_template(id, opts)
  local op = self.op or "get_template"
  opts = options.check(op, opts, call_options)
  return self.http:call { op = op, method = "GET", path = template_path(op, id), timeout = opts.timeout, decode = template_info }
end

--- Which templates a list has.
--- ```lua
--- local list = assert(client:list_templates { metadata = { team = "blue" }, page = 1, page_size = 50, timeout = 10 })
--- ```
---@class opensandbox.TemplateFilter
---@field metadata? table<string, string> all of them must match
---@field page? integer from 1; default: all pages
---@field page_size? integer at most 200
---@field timeout? opensandbox.Duration for the whole call; default: the client's `timeout`

local filter_options = { metadata = "string map", page = "natural", page_size = "natural", timeout = "seconds" }

--- Returns the templates that match a filter: GET /templates.
--- ```lua
--- for _, info in ipairs(assert(client:list_templates { metadata = { team = "blue" } })) do print(info.id, info.state) end
--- ```
---@param filter? opensandbox.TemplateFilter
---@return opensandbox.TemplateInfo[]? list
---@return opensandbox.Error? err
function template_routes:list_templates(filter)
  local op = self.op or "list_templates"
  filter = options.check(op, filter, filter_options)
  local query = { { "metadata", pagination.metadata_filter(filter.metadata) } }
  return pagination.all(self, { op = op, path = "/templates" }, query, filter, template_info)
end

--- Deletes a template: DELETE /templates/{id}. Its sandboxes continue. The call succeeds for a template that does not exist any more.
--- ```lua
--- assert(client:delete_template(id))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return true? ok
---@return opensandbox.Error? err
function template_routes:delete_template(id, opts)
  local op = self.op or "delete_template"
  opts = options.check(op, opts, call_options)
  return errors.ignore_absence(self.http:call { op = op, method = "DELETE", path = template_path(op, id), timeout = opts.timeout,
    shielded = true })
end

--- Waits until a template is Succeeded, so that `create` can use it: GET /templates/{id}.
--- ```lua
--- assert(client:wait_template(id, { timeout = "10m" }))
--- ```
---@param id string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds, default 900
---@return opensandbox.TemplateInfo? info
---@return opensandbox.Error? err kind `state` when it has failed, kind `timeout` and code `not_ready` when it was not Succeeded in time
function template_routes:wait_template(id, opts)
  local op = self.op or "wait_template"
  opts = options.check(op, opts, call_options)
  return readiness.wait_template(self, op, id, deadline.new(opts.timeout or readiness.BUILD_TIMEOUT))
end

return template_routes

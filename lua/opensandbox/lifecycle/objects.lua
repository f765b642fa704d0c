--- Objects of the lifecycle API: camelCase and RFC 3339 in its responses, snake_case and Unix seconds here.

local each = require "opensandbox.base.each"
local fields = require "opensandbox.base.fields"
local headers = require "opensandbox.http.headers"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local objects = {}

--- The metadata key of the unique label that every create carries, so that a create whose response was lost can be found. Users do not
--- see it.
objects.CREATE_LABEL = "opensandbox-lua-create"

--- The metadata key of the sandboxes of a pool that several processes share: its value names the place in the pool. Users do not see it.
objects.POOL_LABEL = "opensandbox-lua-pool"

--- The server's facts about a sandbox.
--- ```lua
--- local info = assert(sandbox:info())
--- print(info.id, info.state, info.reason, info.message, info.last_transition_at, info.created_at, info.expires_at)
--- print(info.metadata.job, info.image, info.snapshot_id, info.entrypoint and info.entrypoint[1])
--- print(info.platform and info.platform.arch, info.extensions and info.extensions.poolRef, info.raw.id)
--- ```
---@class opensandbox.SandboxInfo
---@field id string its name, for `client:connect`
---@field state string `Pending`, `Running`, `Paused`, `Failed`, `Terminated` ...: an open set
---@field reason? string the cause of the state, for programs
---@field message? string the cause of the state, for people
---@field last_transition_at? number Unix seconds
---@field created_at? number Unix seconds
---@field expires_at? number Unix seconds; nil: the sandbox never expires
---@field metadata table<string, string> for a sandbox restored from a snapshot, those of the original too, deleted keys included
---@field image? string the image that it was created from
---@field snapshot_id? string the snapshot that it was restored from
---@field entrypoint? string[] the command that keeps it running
---@field platform? { os: string, arch: string } its platform, if the create asked for one
---@field extensions? table<string, string> those of the create
---@field raw table the decoded JSON object of the response

--- Decodes a sandbox.
---@param object any decoded JSON
---@return opensandbox.SandboxInfo? info nil when it is not a sandbox
---@return string? missing
function objects.sandbox_info(object)
  if type(object) ~= "table" or not url.is_segment(object.id) then return nil, "sandbox" end
  local status = fields.object(object.status) or {}
  local metadata = {}
  for name, value in each(fields.object(object.metadata) or {}) do
    if name ~= objects.CREATE_LABEL and name ~= objects.POOL_LABEL then metadata[name] = value end
  end
  return {
    id = object.id,
    state = fields.text(status.state) or "Unknown",
    reason = fields.text(status.reason),
    message = fields.text(status.message),
    last_transition_at = time.parse(status.lastTransitionAt),
    created_at = time.parse(object.createdAt),
    expires_at = time.parse(object.expiresAt),
    metadata = metadata,
    image = fields.object(object.image) and fields.text(object.image.uri),
    snapshot_id = fields.text(object.snapshotId),
    entrypoint = fields.texts(object.entrypoint),
    platform = fields.object(object.platform),
    extensions = fields.object(object.extensions),
    raw = object,
  }
end

--- How a port of a sandbox can be reached.
--- ```lua
--- local endpoint = assert(sandbox:endpoint(8080))
--- print(endpoint.url, endpoint.host, endpoint.port, endpoint.proxied, endpoint.sandbox_id, endpoint.origin)
--- for name, value in pairs(endpoint.headers) do print(name, value) end
--- ```
---@class opensandbox.Endpoint
---@field url string base URL, without a slash at its end
---@field host string the host of the URL
---@field port integer the port of the URL, which need not be the sandbox's
---@field headers table<string, string> headers that every request to the endpoint must carry
---@field sandbox_id string the sandbox that it belongs to
---@field proxied boolean requests pass through the lifecycle server's proxy
---@field literal_paths? boolean internal: its file routes use every path unchanged, as those of isolated sessions do
---@field origin? string "template" if the sandbox was made from a template, as far as the server reports it

--- The origin of a sandbox that was made from a template. Such a sandbox has no egress sidecar.
objects.TEMPLATE_ORIGIN = "template"

--- Decodes an endpoint.
---@param object table decoded JSON
---@param scheme string of the lifecycle server's URL, for an endpoint without one
---@param hosts? table<string, string> hosts to put in the place of others, see the client's option endpoint_hosts
---@return opensandbox.Endpoint? endpoint without sandbox_id, proxied and origin; nil when it cannot be used
function objects.endpoint(object, scheme, hosts)
  local base = type(object.endpoint) == "string" and url.endpoint(object.endpoint, scheme)
  local parsed = base and url.parse(base)
  if not parsed then return nil end
  local host = hosts and hosts[parsed.host:lower()]
  if host then base, parsed.host = url.with_host(base, host), host end
  local to_send = type(object.headers) == "table" and object.headers or {}
  if headers.validate_all(to_send) then return nil end
  return { url = base, host = parsed.host, port = parsed.port, headers = to_send }
end

--- Returns whether a JSON object carries metadata. Objects that are deleted because they match a filter are checked with this first,
--- because a request can lose its query on its way, and then the server lists the sandboxes of others.
---@param object any decoded JSON
---@param metadata? table<string, string>
---@return boolean
function objects.has_metadata(object, metadata)
  local actual = type(object) == "table" and type(object.metadata) == "table" and object.metadata or {}
  for name, value in each(metadata or {}) do
    if actual[name] ~= value then return false end
  end
  return true
end

return objects

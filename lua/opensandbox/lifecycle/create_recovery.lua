--- Creates a sandbox so that none is left behind: POST /sandboxes.
--
-- The request is never sent twice, because the server cannot know that both are the same. Every create carries a unique label.
-- If its response is lost, or if the caller waits no longer, the sandbox is searched by that label in the background. The caller waits for
-- the search as long as its time limit allows. A sandbox that is found later has no owner, and is deleted.

local create_options = require "opensandbox.lifecycle.create_options"
local create_rollback = require "opensandbox.http.create_rollback"
local deadline = require "opensandbox.loop.deadline"
local objects = require "opensandbox.lifecycle.objects"
local pagination = require "opensandbox.lifecycle.pagination"
local random = require "opensandbox.base.random"
local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"
local server_version = require "opensandbox.lifecycle.server_version"
local url = require "opensandbox.base.url"

local create_recovery = {}

local LIST_TIMEOUT = 10    -- seconds for one request of a search
local MAX_WAIT = 30        -- seconds that the caller waits for a search
local SEARCH_SHARE = 1 / 4 -- of create_timeout: reserved for a search after the request has timed out
local MAX_RESERVE = 2      -- seconds
local MIN_TIMEOUT = 0.001  -- seconds, because 0 means no limit

-- Makes the request that finds the sandbox with a label: GET /sandboxes.
local function find_request(http, label)
  local metadata = { [objects.CREATE_LABEL] = label }
  local filter = pagination.metadata_filter(metadata)
  local request = { op = "list_sandboxes", method = "GET", path = "/sandboxes" .. url.query { { "metadata", filter } },
    timeout = LIST_TIMEOUT, shielded = true }
  function request.decode(response)
    local first = type(response.items) == "table" and response.items[1]
    if not first then return type(response.items) == "table" and {} or nil, "list" end
    if not objects.has_metadata(first, metadata) then return nil, "label of the sandbox" end -- it may be that of another create
    local info, missing = objects.sandbox_info(first)
    return info and { info }, missing
  end
  return http:lifecycle_request(request)
end

-- Returns the hint for a create from a template that the server refused, or nil. A server without templates
-- reports that options are missing, because templates set them.
local function template_hint(err)
  if err.code:find("TEMPLATE_NOT_FOUND", 1, true) then
    return "It does not exist, or is not Succeeded yet: see client:wait_template"
  end
  local misses_image = err.status == 422 and err.message:find("image", 1, true)
  if misses_image or err.code == "DOCKER::INVALID_ENTRYPOINT" then
    return "Only servers on Kubernetes have templates, from 1.1.1"
  end
end

-- Sends the request, and searches the sandbox if the response is lost.
local function create_within(client, op, opts, limit)
  local http, label = client.http, random.hex(16)
  local request = {
    op = op, method = "POST", path = "/sandboxes", json = create_options.body(opts, label), decode = objects.sandbox_info,
    timeout = math.max(limit:remaining() - math.min(limit.seconds * SEARCH_SHARE, MAX_RESERVE), MIN_TIMEOUT),
    budget = limit.seconds, option_names = { timeout = limit.option },
  }
  local create = create_rollback(client, request, function(info)
    return http:lifecycle_request(sandbox_requests.delete("delete_sandbox", info.id))
  end, {
    find_request = function() return find_request(http, label) end,
  })
  local resource = create.resource
  local info, err = http:call(request)
  if info then return info, nil, resource end
  if not create:fail(err) then return nil, err end
  local found, interrupted = resource:await_search(op, limit:clamp(MAX_WAIT))
  if found then return found, nil, resource end
  if interrupted then return nil, interrupted end
  err.hint = ("Whether the sandbox was created is not known. It would carry the metadata %s=%s, and is deleted if it appears while "
    .. "this client is open"):format(objects.CREATE_LABEL, label)
  return nil, err
end

--- Creates a sandbox.
---@param client opensandbox.Client
---@param opts opensandbox.SandboxOpts
---@return opensandbox.SandboxInfo? info
---@return opensandbox.Error? err
---@return opensandbox.OwnedResource? resource of the sandbox: the client deletes it unless the caller releases it
function create_recovery.create(client, opts)
  local op = client.op or "create_sandbox"
  opts = create_options.check(op, opts)
  client = client:for_op(op)
  local timeouts = client.http.timeouts
  local limit = deadline.new(timeouts.create_timeout, "create_timeout")
  local known, err = server_version(client, op, opts, limit:clamp(timeouts.timeout))
  if not known then return nil, limit:has_passed() and limit:error(op, err) or err end
  local info, resource
  info, err, resource = create_within(client, op, opts, limit)
  if err and opts.template_id then err.hint = template_hint(err) or err.hint end
  return info, err, resource
end

return create_recovery

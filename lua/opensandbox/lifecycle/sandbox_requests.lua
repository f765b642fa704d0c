--- Requests to the lifecycle API about one sandbox, for the client methods, and for deletes and renewals in the background.

local options = require "opensandbox.base.options"
local time = require "opensandbox.base.time"
local url = require "opensandbox.base.url"

local sandbox_requests = {}

--- The path of a sandbox, or of a route below it.
---@param op string
---@param id string
---@param rest? string
---@return string
function sandbox_requests.path(op, id, rest)
  return "/sandboxes/" .. url.escape(options.path_segment(op, "the sandbox id", id)) .. (rest or "")
end

--- GET /sandboxes/{id}.
---@return table request for HttpClient:call and HttpClient:lifecycle_request
function sandbox_requests.get(op, id)
  return { op = op, method = "GET", path = sandbox_requests.path(op, id), sandbox_id = id }
end

--- DELETE /sandboxes/{id}.
---@return table request for HttpClient:call and HttpClient:lifecycle_request
function sandbox_requests.delete(op, id)
  return { op = op, method = "DELETE", path = sandbox_requests.path(op, id), sandbox_id = id, may_repeat = true, shielded = true }
end

--- POST /sandboxes/{id}/renew-expiration.
---@param expires_at number Unix seconds, on the server's clock
---@return table request for HttpClient:call and HttpClient:lifecycle_request
function sandbox_requests.renew(op, id, expires_at)
  return { op = op, method = "POST", path = sandbox_requests.path(op, id, "/renew-expiration"), sandbox_id = id,
    json = { expiresAt = time.format(expires_at) },
    may_repeat = true } -- because the time is absolute
end

return sandbox_requests

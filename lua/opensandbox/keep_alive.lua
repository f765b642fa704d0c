--- Keeps a sandbox alive while it is in use. No timer is used: each time data arrives for the sandbox, the expiry is checked. If it is
-- near, a renewal request is sent in the background.
--
-- A renewer knows when its sandbox expires, on the server's clock. The HTTP client holds it weakly, so that it lives as long as its Sandbox
-- object.

local sandbox_requests = require "opensandbox.lifecycle.sandbox_requests"

---@class opensandbox.Renewer
---@field id string of the sandbox
---@field seconds number the lifetime after each renewal
---@field expires_at number Unix seconds, on the server's clock
local Renewer = {}
Renewer.__index = Renewer

local keep_alive = {}

-- The share of the lifetime below which a renewal is sent. It leaves time for another renewal if one is lost.
local RENEWAL_THRESHOLD = 2 / 3

--- Starts to keep a sandbox alive.
---@param client opensandbox.Client
---@param id string
---@param seconds number the lifetime after each renewal
---@param info? opensandbox.SandboxInfo if it contains the expiry, no request is needed
---@param timeout? number seconds for the request
---@return opensandbox.Renewer? renewer nil without an error for a sandbox that never expires
---@return opensandbox.Error? err
function keep_alive.start(client, id, seconds, info, timeout)
  if not (info and info.expires_at) then
    local err
    info, err = client:get_sandbox(id, { timeout = timeout })
    if not info then return nil, err end
  end
  if not info.expires_at then return nil end
  local renewer = setmetatable({ id = id, seconds = seconds, expires_at = info.expires_at, client = client }, Renewer)
  client.http:set_activity_listener(id, renewer)
  return renewer
end

--- Stops it. Another object for the same sandbox may have a renewer of its own by now.
function keep_alive.stop(client, renewer)
  if client.http:activity_listener(renewer.id) == renewer then client.http:set_activity_listener(renewer.id, nil) end
end

--- Called when another expiry of the sandbox becomes known.
---@param expires_at? number Unix seconds; nil: unchanged
---@return number before the expiry that was known
function Renewer:set_expiry(expires_at)
  local before = self.expires_at
  self.expires_at = expires_at or before
  return before
end

--- Called on activity. Sends a renewal when it is due. Never shortens the lifetime.
---@param ex table the exchange
function Renewer:on_activity(ex)
  local now = self.client.http.clock:now()
  if self.expires_at - now > self.seconds * RENEWAL_THRESHOLD or ex:is_shielded() then return end
  self.expires_at = now + self.seconds
  ex:call_user(function() -- because it calls the user's on_request
    local http = self.client.http
    http:send_detached(http:lifecycle_request(sandbox_requests.renew("renew_sandbox", self.id, self.expires_at)))
  end)
end

return keep_alive

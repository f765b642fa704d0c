--- Keeping a sandbox alive while it is in use, without a timer: whatever moves for it, a command's stream included, looks whether its
-- life should be made longer, and sends the renewal in the background.
--
-- A keeper knows when its sandbox expires. The client finds it by the sandbox's id, and holds it weakly: it lives as long as the Sandbox
-- object that holds it.

local core = require "opensandbox.core"

local Keeper = {}
Keeper.__index = Keeper

local keep_alive = {}

-- Of the whole time. A renewal comes when more than a third has passed, so one that is lost leaves time for another.
local ENOUGH = 2 / 3

--- Begins to keep a sandbox alive.
---@param client opensandbox.Client
---@param id string
---@param seconds number its life after each renewal
---@param info? opensandbox.SandboxInfo what is known of it; one that says when it expires saves a request
---@return table? keeper nil without an error for a sandbox that never expires
---@return opensandbox.Error? err
function keep_alive.begin(client, id, seconds, info)
  if not (info and info.expires_at) then
    local err
    info, err = client:get_sandbox(id)
    if not info then return nil, err end
  end
  if not info.expires_at then return nil end
  local keeper = setmetatable({ id = id, seconds = seconds, expires_at = info.expires_at }, Keeper)
  client._keepers[id] = keeper
  return keeper
end

--- Ends it. Another object for the same sandbox may have a keeper of its own by now.
function keep_alive.stop(client, keeper)
  if client._keepers[keeper.id] == keeper then client._keepers[keeper.id] = nil end
end

--- Another time at which the sandbox expires is known. Gives the one before.
function Keeper:told(expires_at)
  local before = self.expires_at
  self.expires_at = expires_at or before
  return before
end

--- Something has moved for the sandbox. Renews it when that is due; a life that is longer than ours would be is left as it is.
---@param ex table the exchange
function Keeper:moved(ex)
  local now = core.wall_clock()
  if self.expires_at - now > self.seconds * ENOUGH or ex.call.ends_things then return end
  self.expires_at = now + self.seconds
  ex:guard(ex.client._renew_later, ex.client, self.id, self.expires_at) -- it calls the user's on_request
end

return keep_alive

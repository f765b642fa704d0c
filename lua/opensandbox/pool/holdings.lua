--- The places of a pool that this process holds, see rules.lua: renews their leases, and sends the changes to be recorded.
--
-- A change is recorded here at once, and stays here until the store has answered it, so that an outage of the store loses none.

local core = require "opensandbox.core"
local each = require "opensandbox.base.each"
local tables = require "opensandbox.base.tables"

---@class opensandbox.PoolHoldings
---@field session opensandbox.StoreSession
---@field has_surplus boolean a place became idle that the reserve does not need any more
local Holdings = {}
Holdings.__index = Holdings

local holdings = {}

local RENEWALS_PER_LEASE = 4

---@param session opensandbox.StoreSession
---@return opensandbox.PoolHoldings
function holdings.new(session)
  return setmetatable({
    session = session,
    held = {},        -- by token: the handle of the sandbox, or false while it is not known
    puts = {},        -- by token: { value, lifetime } of a place that becomes idle
    assignments = {}, -- by token: the handle of a sandbox that was created and is in use
    removals = {},    -- set of tokens
    has_surplus = false,
    next_renewal = core.now() + session.lease / RENEWALS_PER_LEASE,
  }, Holdings)
end

--- Records that this process holds a place.
---@param token string
---@param value? table the handle of its sandbox, if there is one
function Holdings:add(token, value)
  self.held[token] = value or false
end

--- Records the sandbox that was created for a place, which this process keeps.
function Holdings:assign(token, value)
  self.held[token], self.assignments[token] = value, value
end

--- Makes a place idle.
---@param token string
---@param value table the handle of its sandbox
---@param lifetime number|false seconds; false: it does not expire
function Holdings:put(token, value, lifetime)
  self.puts[token] = { value = value, lifetime = lifetime or nil }
end

--- Removes a place, whose sandbox is deleted or was never created. The second call for a place does nothing.
function Holdings:remove(token)
  if self.held[token] == nil then return end
  self.held[token], self.assignments[token] = nil, nil
  self.removals[token] = true
end

--- Gives up a place without a message to the store: its lease ends.
function Holdings:drop(token)
  self.held[token], self.assignments[token] = nil, nil
end

--- Returns whether this process holds no place, and has nothing to record.
---@return boolean
function Holdings:is_empty()
  return next(self.held) == nil and next(self.removals) == nil and next(self.puts) == nil
end

-- Sends a change of one place. If the store was emptied meanwhile, the places are added to it again first.
local function record(self, op, step, fields)
  local response, err = self.session:perform(op, step, fields)
  if not response or not response.lost or not self.session.was_emptied then return response, err end
  local ok
  ok, err = self:renew(op)
  if not ok then return nil, err end
  return self.session:perform(op, step, fields)
end

--- Sends the changes.
---@param op string
---@return true? ok
---@return opensandbox.Error? err
function Holdings:flush(op)
  for _, token in ipairs(tables.keys(self.puts)) do
    local put = self.puts[token]
    local response, err = record(self, op, "put", { token = token, value = put.value, lifetime = put.lifetime })
    if not response then return nil, err end
    self.puts[token] = nil
    self.has_surplus = self.has_surplus or response.surplus == true
    self:drop(token) -- when it is lost, another process has taken it already, or deletes it
  end
  for _, token in ipairs(tables.keys(self.assignments)) do
    local response, err = record(self, op, "assign", { token = token, value = self.assignments[token] })
    if not response then return nil, err end
    self.assignments[token] = nil
    if response.lost then self:drop(token) end
  end
  local removed = tables.keys(self.removals)
  if #removed == 0 then return true end
  local response, err = self.session:perform(op, "remove", { tokens = removed })
  if not response then return nil, err end
  for _, token in ipairs(removed) do self.removals[token] = nil end
  return true
end

--- Renews the leases when that is due, and after the store was emptied: then their places are added again.
---@param op string
---@return true? ok
---@return opensandbox.Error? err
function Holdings:renew(op)
  local session = self.session
  local now = core.now()
  if now < self.next_renewal and not session.was_emptied then return true end
  local tokens, values = tables.keys(self.held), nil
  if session.was_emptied then
    values = {}
    for token, value in each(self.held) do values[token] = value end
  end
  if #tokens > 0 then
    local response, err = session:perform(op, "renew", { tokens = tokens, values = values })
    if not response then return nil, err end
    -- The place of another holder, which took it when the lease had ended: that deletes the sandbox.
    for _, token in ipairs(response.lost or {}) do self:drop(token) end
  end
  session.was_emptied = false
  self.next_renewal = now + session.lease / RENEWALS_PER_LEASE
  return true
end

return holdings

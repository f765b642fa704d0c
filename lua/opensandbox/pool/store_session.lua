--- A pool's view of its store: sends the steps of rules.lua, and makes errors that name the store.

local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local random = require "opensandbox.base.random"

---@class opensandbox.StoreSession
---@field store opensandbox.PoolStore
---@field owner string names this pool object among all that share the store
---@field limits { min_idle: integer, max_size: integer, rate?: number } that the program has given
---@field counts? table idle, busy, creating, min_idle, max_size, rate: of the last response
---@field was_emptied boolean the store has lost its places since the last renewal
local StoreSession = {}
StoreSession.__index = StoreSession

local store_session = {}

-- The fields that every response contains, unless the store is empty.
local NUMBERS = { "idle", "busy", "creating", "min_idle", "max_size", "rate" }

-- The kinds of errors, by their code.
local KINDS = { store_unreachable = "transport", store_timeout = "timeout", store_foreign = "protocol", store_failed = "protocol" }
local HINTS = {
  store_unreachable = "Sandboxes that were acquired stay usable. Check that the store runs and that `connect` names it",
  store_foreign = "Give the pool another name, or remove the entry",
}

--- Makes a session. Nothing is sent yet.
---@param store opensandbox.PoolStore
---@param facts { url: string, lease: number, create_timeout: number, limits: table } lease, create_timeout: seconds
---@return opensandbox.StoreSession
function store_session.new(store, facts)
  return setmetatable({
    store = store, owner = random.hex(8), url = facts.url, lease = facts.lease, create_timeout = facts.create_timeout,
    limits = facts.limits, counts = nil, epoch = nil, was_emptied = false,
    pending = {}, -- by step under way: the time when it began
  }, StoreSession)
end

--- Makes an error that names the store.
---@param op string
---@param code string of KINDS
---@param text string
---@param seconds? number for store_timeout: the time that ran out
---@return opensandbox.Error
function StoreSession:error(op, code, text, seconds)
  local message = ("the store of the pool (%s): %s"):format(tostring(self.store.name or "custom"), text)
  if code == "store_timeout" then
    return errors.timeout { op = op, code = code, text = message, option = "store_timeout", seconds = seconds, retryable = true,
      hint = "The store is slow, or does not answer. Sandboxes that were acquired stay usable" }
  end
  return errors.new { kind = KINDS[code], code = code, op = op, message = message, hint = HINTS[code],
    retryable = code == "store_unreachable" }
end

--- Returns the time when the oldest step began that the store has not answered, or nil.
---@return number? since on the clock of core.now()
function StoreSession:pending_since()
  local oldest
  for _, since in each(self.pending) do oldest = math.min(oldest or since, since) end
  return oldest
end

-- Sends a step once.
local function send(self, op, request)
  self.pending[request] = core.now()
  local ok, response, problem = coxpcall.pcall(self.store.transact, self.store, request)
  self.pending[request] = nil
  if not ok then response, problem = nil, response end
  if errors.is(problem) and not response then return nil, problem end
  if not response then
    local known = type(problem) == "table" and KINDS[problem.code] and problem
    local text = known and problem.message or tostring(problem)
    return nil, self:error(op, known and known.code or "store_failed", text, known and known.seconds)
  end
  if type(response) ~= "table" then return nil, self:error(op, "store_failed", "its response is not a table") end
  if response.foreign then return nil, self:error(op, "store_foreign", "it holds " .. tostring(response.foreign)) end
  for _, name in ipairs(NUMBERS) do
    if not response.unknown and type(response[name]) ~= "number" then
      return nil, self:error(op, "store_failed", ("its response has no number '%s'"):format(name))
    end
  end
  return response
end

-- Records the fields that every response contains.
local function note(self, response)
  self.counts = response
  if self.epoch and response.epoch ~= self.epoch then self.was_emptied = true end
  self.epoch = response.epoch
  return response
end

--- Performs a step. A new or emptied store is opened first.
---@param op string the method that the user called
---@param step string
---@param fields? table of the request
---@return table? response
---@return opensandbox.Error? err
function StoreSession:perform(op, step, fields)
  local request = { step = step, owner = self.owner, lease = self.lease, create_timeout = self.create_timeout, url = self.url }
  for name, value in each(fields or {}) do request[name] = value end
  if self.counts then
    local response, err = send(self, op, request)
    if not response then return nil, err end
    if not response.unknown then return note(self, response) end
  end
  local opened, err = send(self, op, { step = "open", token = random.hex(16), url = self.url, min_idle = self.limits.min_idle,
    max_size = self.limits.max_size, rate = self.limits.rate })
  if not opened then return nil, err end
  if not opened.unknown then note(self, opened) end
  local response
  response, err = send(self, op, request)
  if not response then return nil, err end
  if response.unknown then return nil, self:error(op, "store_failed", "it loses what is written") end
  return note(self, response)
end

return store_session

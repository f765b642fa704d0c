--- The search for the object of a create whose response was lost, or is not waited for any more: when it is repeated, and when it ends.
--
-- The requests are sent by the resource of the object, see owned_resource.lua.

local backoffs = require "opensandbox.loop.backoff"
local core = require "opensandbox.core"

---@class opensandbox.ObjectSearch
---@field request fun(): table makes the prepared request, whose `decode` returns a list: the object, or nothing
---@field delete_request fun(object: any): table? makes the prepared request that deletes the object
---@field weak { create?: opensandbox.PendingCreate } a weak reference to the create
---@field create_runs boolean the response of the create may still come
local ObjectSearch = {}
ObjectSearch.__index = ObjectSearch

local object_search = {}

local LOST_CREATE_TIMEOUT = 30 -- seconds after which an object that does not appear was not created
local MAX_SEARCH_TIME = 120    -- seconds: how long a search outlasts an outage; it keeps the loop of a host alive
local INITIAL_DELAY = 0.2      -- seconds between two requests
local MAX_DELAY = 5            -- seconds
local BACKOFF_FACTOR = 2
local MAX_UNUSABLE = 4         -- responses without a list, one after the other, as from a broken server or a page of a proxy
local RESPONSE_DELAY = 1       -- seconds before the first request, while the response of the create may still come

--- Makes a search, which has not begun.
---@param request fun(): table makes the prepared request, whose `decode` returns a list: the object, or nothing
---@param delete_request fun(object: any): table? makes the prepared request that deletes the object
---@param create opensandbox.PendingCreate its `on_found()` is called, unless it was collected
---@return opensandbox.ObjectSearch
function object_search.new(request, delete_request, create)
  return setmetatable({ request = request, delete_request = delete_request, create_runs = false,
    weak = setmetatable({ create = create }, { __mode = "v" }),
    backoff = backoffs.new(INITIAL_DELAY, MAX_DELAY, BACKOFF_FACTOR),
    absent_at = nil, -- when the object was not created if it has not appeared, on the clock of core.now()
    pause_at = nil,  -- when the search ends until the server answers another request
    unusable = 0,    -- number of responses without a list, one after the other
  }, ObjectSearch)
end

--- Begins, or continues after a pause.
---@return number? seconds to wait before the first request
function ObjectSearch:begin()
  local now = core.now()
  self.absent_at = self.absent_at or now + LOST_CREATE_TIMEOUT
  self.pause_at = now + MAX_SEARCH_TIME
  self.unusable = 0
  self.backoff:reset()
  return self.create_runs and RESPONSE_DELAY or nil
end

--- Decides about the next request after a request that has found nothing.
---@param err? opensandbox.Error nil: the server has answered with an empty list
---@return number? seconds until the next request; nil: the search ends
---@return boolean? is_absent the object was not created
function ObjectSearch:next_delay(err)
  local now = core.now()
  local is_unusable = err and not err.retryable and (err.kind == "http" or err.kind == "protocol")
  self.unusable = is_unusable and self.unusable + 1 or 0
  -- The time counts from the end of the create, and from the end of an outage.
  if err or self.create_runs then self.absent_at = now + LOST_CREATE_TIMEOUT end
  if now >= self.absent_at then return nil, true end
  if now >= self.pause_at or self.unusable >= MAX_UNUSABLE then return nil, false end
  return self.backoff:next()
end

return object_search

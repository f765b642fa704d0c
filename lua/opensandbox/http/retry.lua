--- Decides which failures are retried, and when.
--
-- Retry by proof: a request is sent twice only if that is harmless (`may_repeat`), or if the first one was provably not carried out
-- because it was not sent, or because the server says that it refused it.

local tables = require "opensandbox.base.tables"

local retry = {}

--- How calls that may be repeated are repeated.
--- ```lua
--- local patient = { max_attempts = 6, base_delay = 0.5, max_delay = 20, max_retry_after = 60 }
--- local client = opensandbox.new(url, key, { retry = patient })
--- ```
---@class opensandbox.RetryOpts
---@field max_attempts? integer default 3
---@field base_delay? opensandbox.Duration the delay before attempt n+1 is random between 0 and base_delay * 2^(n-1), default 0.2
---@field max_delay? opensandbox.Duration default 5
---@field max_retry_after? opensandbox.Duration a longer Retry-After is not waited for, default 30

local DEFAULTS = {
  max_attempts = 3,
  base_delay = 0.2,     -- seconds
  max_delay = 5,        -- seconds
  max_retry_after = 30, -- seconds
}

retry.option_types = { max_attempts = "natural", base_delay = "seconds", max_delay = "seconds", max_retry_after = "seconds" }

--- Makes the policy for `options.retry`.
---@param given opensandbox.RetryOpts|false|nil false means a single attempt
---@return table policy
function retry.policy(given)
  return tables.merge(DEFAULTS, given == false and { max_attempts = 1 } or given)
end

local transient = { [429] = true, [502] = true, [503] = true, [504] = true }

local function refused_by_server(err)
  return err.status == 429 or (err.status == 503 and err.retry_after ~= nil)
    or err.code == "BACKEND_CONNECTION_FAILED"
    or (err.status == 502 and tostring(err.message):find("Could not connect to the backend sandbox", 1, true) ~= nil)
end

--- Sets on an error whether the call can be repeated. Returns the error.
---@param err opensandbox.Error
---@param may_repeat boolean the call is harmless if it is carried out twice
function retry.set_retryable(err, may_repeat)
  local again = false
  if err.kind == "http" then
    again = refused_by_server(err) or (may_repeat and transient[err.status] or false)
  elseif err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" then
    again = (err.not_sent or may_repeat) and err.code ~= "tls_failed" and err.code ~= "no_memory"
  end
  err.retryable = again and true or false
  return err
end

--- Returns the delay before the next attempt.
---@param policy table
---@param attempt integer the number of attempts made
---@param err opensandbox.Error
---@param left number seconds that are left for the whole call
---@return number? seconds nil: there is no next attempt
function retry.delay(policy, attempt, err, left)
  if not err.retryable or attempt >= policy.max_attempts then return nil end
  -- A timeout has used the whole budget, except for connect_timeout.
  if err.kind == "timeout" and err.timer ~= "connect_timeout" then return nil end
  local delay = math.random() * math.min(policy.max_delay, policy.base_delay * 2 ^ (attempt - 1))
  if err.retry_after then
    if err.retry_after > policy.max_retry_after then return nil end
    delay = math.max(delay, err.retry_after)
  end
  if delay >= left then return nil end
  return delay
end

return retry

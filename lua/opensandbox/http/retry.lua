--- Which failures are tried again, and when.
--
-- Retry by proof: what is sent twice must be harmless (`may_repeat`), or must provably not have been carried out the first time:
-- it was not sent at all, or the server says that it refused it.

local retry = {}

local DEFAULTS = {
  attempts = 3,     -- tries in all
  base = 0.2,       -- seconds; the wait before try n+1 is random between 0 and base * 2^(n-1)
  longest = 5,      -- seconds, for one wait; Retry-After may ask for up to `patience`
  patience = 30,    -- seconds
}

retry.known = { attempts = "count", base = "seconds", longest = "seconds", patience = "seconds" }

--- The policy for `options.retry`: a table of the fields above, or false for a single try.
function retry.policy(given)
  local policy = {}
  for name, value in pairs(DEFAULTS) do policy[name] = value end
  if given == false then policy.attempts = 1 end
  for name, value in pairs(given or {}) do policy[name] = value end
  return policy
end

local transient = { [429] = true, [502] = true, [503] = true, [504] = true }

local function refused_by_server(err)
  return err.status == 429 or (err.status == 503 and err.retry_after ~= nil)
    or err.code == "BACKEND_CONNECTION_FAILED"
    or (err.status == 502 and tostring(err.message):find("Could not connect to the backend sandbox", 1, true) ~= nil)
end

--- Marks on an error whether the call can be made again, and returns it.
---@param err opensandbox.Error
---@param may_repeat boolean the call does no harm when it is carried out twice
function retry.judge(err, may_repeat)
  local again = false
  if err.kind == "http" then
    again = refused_by_server(err) or (may_repeat and transient[err.status] or false)
  elseif err.kind == "transport" or err.kind == "timeout" or err.kind == "stream" then
    again = (err.not_sent or may_repeat) and err.code ~= "tls_failed" and err.code ~= "no_memory"
  end
  err.retryable = again and true or false
  return err
end

--- Seconds to wait before the next try, or nil when there is none.
---@param policy table
---@param attempt integer tries made
---@param err opensandbox.Error
---@param left number seconds of the call's budget
function retry.delay(policy, attempt, err, left)
  if not err.retryable or attempt >= policy.attempts then return nil end
  -- A clock that ran out has used the budget; only the connect clock leaves some.
  if err.kind == "timeout" and err.clock ~= "connect_timeout" then return nil end
  local delay = math.random() * math.min(policy.longest, policy.base * 2 ^ (attempt - 1))
  if err.retry_after then
    if err.retry_after > policy.patience then return nil end
    delay = math.max(delay, err.retry_after)
  end
  if delay >= left then return nil end
  return delay
end

return retry

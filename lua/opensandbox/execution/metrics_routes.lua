--- The routes of execd that report on execd and its machine: a client method for each. The first argument is an endpoint of
--- `discover_execd`, or a URL.

local options = require "opensandbox.base.options"
local event_stream = require "opensandbox.http.event_stream"

---@class (partial) opensandbox.Client
local metrics_routes = {}

local ping_options = { timeout = "seconds" }

--- Checks that execd answers: GET /ping.
--- ```lua
--- assert(client:ping(execd, { timeout = 2 }))
--- ```
--- Checks that execd answers: GET /ping. Where access to a sandbox renews its lifetime, this does not.
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout: seconds
---@return true? ok
---@return opensandbox.Error? err
function metrics_routes:ping(endpoint, opts)
  local op = self.op or "ping"
  opts = options.check(op, opts, ping_options)
  local _, err = self.http:call_endpoint(endpoint, { op = op, method = "GET", path = "/ping", timeout = opts.timeout,
    headers = { ["OpenSandbox-Access-Renew"] = "skip" }, -- a ping is no use of the sandbox, where use renews its lifetime
    explained = false }) -- because its callers ask for the state themselves
  if err then return nil, err end
  return true
end

--- Load and memory of the machine that a sandbox runs on.
--- ```lua
--- local metrics = assert(sandbox:metrics())
--- print(metrics.cpu_count, metrics.cpu_used_percent, metrics.memory_used / metrics.memory_total, metrics.time)
--- ```
---@class opensandbox.Metrics
---@field cpu_count number the number of processors
---@field cpu_used_percent number of the whole machine
---@field memory_total number bytes, of the whole machine
---@field memory_used number bytes
---@field time number Unix seconds

local MIB = 1048576                  -- bytes
local MAX_COUNT = 2 ^ 32             -- processors, percent, or MiB
local LAST_INSTANT = 253402300799    -- Unix seconds: the end of the year 9999

-- Returns a number of the sandbox, or nil for an impossible one, because callers calculate with it, and write it as a date.
local function plausible(value, highest)
  return type(value) == "number" and value >= 0 and value <= highest and value or nil
end

local function decode_metrics(object)
  local cpu_count = plausible(object.cpu_count, MAX_COUNT)
  if not cpu_count then return nil, "metrics" end
  local function bytes(given)
    local mib = plausible(given, MAX_COUNT)
    return mib and math.floor(mib * MIB + 0.5)
  end
  local milliseconds = plausible(object.timestamp, LAST_INSTANT * 1000)
  return {
    cpu_count = cpu_count, cpu_used_percent = plausible(object.cpu_used_pct, MAX_COUNT),
    memory_total = bytes(object.mem_total_mib), memory_used = bytes(object.mem_used_mib),
    time = milliseconds and milliseconds / 1000,
  }
end

--- Returns the load and the memory of the machine that the sandbox runs on: GET /metrics. It takes a second, in which execd
--- measures.
--- ```lua
--- print(assert(client:get_metrics(execd)).memory_used)
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { timeout?: opensandbox.Duration } timeout in seconds
---@return opensandbox.Metrics? metrics
---@return opensandbox.Error? err
function metrics_routes:get_metrics(endpoint, opts)
  local op = self.op or "get_metrics"
  return self.http:call_endpoint(endpoint, { op = op, timeout = options.timeout(op, opts),
    method = "GET", path = "/metrics", decode = decode_metrics })
end

local watch_options = { idle_timeout = "seconds" }

--- Opens a stream of metrics, one every two seconds until it is closed: GET /metrics/watch.
--- ```lua
--- local stream = assert(client:watch_metrics(execd))
--- for metrics in stream:events() do print(metrics.cpu_used_percent) end
--- ```
---@param endpoint opensandbox.Endpoint|string
---@param opts? { idle_timeout?: opensandbox.Duration } idle_timeout: seconds without a byte, default: the client's
---@return opensandbox.Stream? stream of opensandbox.Metrics
---@return opensandbox.Error? err
function metrics_routes:watch_metrics(endpoint, opts)
  local op = self.op or "watch_metrics"
  opts = options.check(op, opts, watch_options)
  return event_stream.open(self.http, self.http:endpoint_request(endpoint, {
    op = op, method = "GET", path = "/metrics/watch", headers = { Accept = "text/event-stream" },
    idle_timeout = opts.idle_timeout or self.http.timeouts.idle_timeout,
  }), function(object)
    local value = decode_metrics(object)
    if value then return value end
    return nil, type(object.error) == "string" and object.error or "an event holds no metrics"
  end)
end

return metrics_routes

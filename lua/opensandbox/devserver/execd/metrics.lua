--- Load and memory of this machine: GET /metrics and /metrics/watch. Like execd's, they are the whole machine's.

local uv = require "luv"
local json = require "opensandbox.base.json"
local time = require "opensandbox.devserver.base.time"
local timers = require "opensandbox.devserver.base.timer"

local SAMPLE = 1000   -- milliseconds over which the load is measured, and between two measurements of a watch
local MIB = 1048576

-- Time that the processors spent working, and in all.
local function processor_times()
  local busy, all = 0, 0
  for _, processor in ipairs(uv.cpu_info() or {}) do
    for kind, spent in pairs(processor.times) do
      all = all + spent
      if kind ~= "idle" then busy = busy + spent end
    end
  end
  return busy, all
end

-- Measures, and hands over the result a second later.
local function measure(timer, callback)
  local seconds, microseconds = time.now()
  local busy, all = processor_times()
  timer:start(SAMPLE, function()
    local busy_now, all_now = processor_times()
    local passed = all_now - all
    local total = uv.get_total_memory()
    callback {
      cpu_count = #(uv.cpu_info() or {}), cpu_used_pct = passed > 0 and 100 * (busy_now - busy) / passed or 0,
      mem_total_mib = total / MIB, mem_used_mib = (total - uv.get_free_memory()) / MIB,
      timestamp = seconds * 1000 + math.floor(microseconds / 1000),
    }
  end)
end

local routes = {}

routes["GET /metrics"] = function(call)
  local timer = timers.new()
  call.response.on_abort = function() timer:close() end
  measure(timer, function(answer)
    timer:close()
    call.response:json(200, answer)
  end)
end

routes["GET /metrics/watch"] = function(call)
  local timer = timers.new()
  call.response.on_abort = function() timer:close() end
  call.response:stream(200, {
    { "Cache-Control", "no-cache" }, { "Content-Type", "text/event-stream" }, { "X-Accel-Buffering", "no" },
  })
  local function again()
    timer:start(SAMPLE, function()
      measure(timer, function(answer)
        call.response:write { json.encode(answer) .. "\n" }
        again()
      end)
    end)
  end
  again()
end

return routes

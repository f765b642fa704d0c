--- Load and memory of this machine: GET /metrics and /metrics/watch. As in execd, they are those of the whole machine.

local uv = require "luv"
local each = require "opensandbox.base.each"
local json = require "opensandbox.base.json"
local clock = require "opensandbox.devserver.base.clock"
local timers = require "opensandbox.devserver.base.timer"

local SAMPLE_TIME = 1000 -- milliseconds over which the load is measured, and between two measurements of a watch
local MIB = 1048576

-- Returns the time that the processors were busy, and the whole time.
local function processor_times()
  local busy, all = 0, 0
  for _, processor in ipairs(uv.cpu_info() or {}) do
    for kind, spent in each(processor.times) do
      all = all + spent
      if kind ~= "idle" then busy = busy + spent end
    end
  end
  return busy, all
end

-- Measures the load, and calls back with the result after the sample time.
local function measure(timer, callback)
  local now = clock.milliseconds()
  local busy, all = processor_times()
  timer:start(SAMPLE_TIME, function()
    local busy_now, all_now = processor_times()
    local passed = all_now - all
    local total = uv.get_total_memory()
    callback {
      cpu_count = #(uv.cpu_info() or {}), cpu_used_pct = passed > 0 and 100 * (busy_now - busy) / passed or 0,
      mem_total_mib = total / MIB, mem_used_mib = (total - uv.get_free_memory()) / MIB,
      timestamp = now,
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
    timer:start(SAMPLE_TIME, function()
      measure(timer, function(answer)
        call.response:write { json.encode(answer) .. "\n" }
        again()
      end)
    end)
  end
  again()
end

return routes

--- Load and memory of a sandbox, whose numbers nobody can trust.

local fault_server = require "spec.support.fault_server"
local json = require "opensandbox.base.json"
local opensandbox = require "opensandbox"
local time = require "opensandbox.base.time"

describe("metrics", function()
  -- Returns the metrics for a response of execd.
  local function metrics_of(text)
    local server = fault_server.start("return function(_, connection) connection:respond(200, {}, [[" .. text .. "]]) end")
    local client = opensandbox.new("http://127.0.0.1:1", "")
    local metrics, err = client:get_metrics(server.url)
    client:close()
    server:stop()
    return metrics, err
  end

  it("have no number that no machine has", function()
    for _, value in ipairs { "1e308", "-1", "-1e308", '"text"', "{}", "null" } do
      local text = '{"cpu_count": 2, "cpu_used_pct": V, "mem_total_mib": V, "mem_used_mib": V, "timestamp": V}'
      local metrics = assert(metrics_of((text:gsub("V", value))))
      assert.equal('{"cpu_count":2}', json.encode(metrics))
      local _, err = metrics_of(('{"cpu_count": %s}'):format(value))
      assert.equal("protocol", err.kind)
    end
  end)

  it("have a time that can be written as a date", function()
    local metrics = assert(metrics_of('{"cpu_count": 2, "timestamp": 253402300799000}'))
    assert.equal("9999-12-31T23:59:59Z", time.format(metrics.time))
    assert.is_nil(assert(metrics_of('{"cpu_count": 2, "timestamp": 253402300799001}')).time)
  end)
end)

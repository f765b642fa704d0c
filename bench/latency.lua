--- How soon a command's end is known.

local core = require "opensandbox.core"
local process = require "spec.support.process"
local programs = require "bench.programs"
local statistics = require "bench.statistics"

local COMMANDS = 200
local CURLS = 20 -- processes; each costs more than a command of ours

local function curl_arguments(url)
  return { "curl", "-sSN", "-H", "Content-Type: application/json", "-d", '{"command":"true"}', url .. "/command" }
end

-- Runs curl up to the terminal event. Gives milliseconds from the event to its arrival here, and from the start of curl to that.
local function curl_to_the_event(url)
  local began = core.now()
  local child = process.start { argv = curl_arguments(url) }
  while true do
    local line = assert(child:read_line(10))
    local ended = line:match('"monotonic":([%d.]+)')
    if ended then
      local now = core.now()
      child:kill("sigkill")
      child:stop()
      return (now - tonumber(ended)) * 1000, (now - began) * 1000
    end
  end
end

-- Runs curl to its end. Gives milliseconds from the terminal event to that.
local function curl_to_the_end(url)
  local lines = programs.run(curl_arguments(url))
  local now = core.now()
  for _, line in ipairs(lines) do
    local ended = line:match('"monotonic":([%d.]+)')
    if ended then return (now - tonumber(ended)) * 1000 end
  end
end

return function(report, rounds, url)
  local ours = { aftermedian = {}, afterhigh = {}, wholemedian = {}, wholehigh = {} }
  local curl = { whole_stream = {}, after = {}, afterhigh = {}, whole = {}, wholehigh = {} }
  for round = 1, rounds do
    local figures = programs.ours("latency", url, tostring(COMMANDS))
    for name, values in pairs(ours) do values[round] = figures[name] end
    curl.whole_stream[round] = curl_to_the_end(url)
    local after, whole = {}, {}
    for index = 1, CURLS do after[index], whole[index] = curl_to_the_event(url) end
    curl.after[round], curl.afterhigh[round] = statistics.median(after), statistics.quantile(after, 0.99)
    curl.whole[round], curl.wholehigh[round] = statistics.median(whole), statistics.quantile(whole, 0.99)
  end
  report:heading(("LATENCY  %d commands a round"):format(COMMANDS))
  local name = "terminal event to return"
  report:row { name = name, unit = "ms, median", ours = ours.aftermedian, other = curl.whole_stream, at_most = 2 }
  report:row { name = name, unit = "ms, p99", ours = ours.afterhigh, other = curl.whole_stream, at_most = 2 }
  report:note "curl: from the same event to the end of `curl -sN`, which ends with the stream, a second later (1 a round)"
  report:row { name = "terminal event to its line in a pipe", unit = "ms, median", ours = ours.aftermedian, other = curl.after }
  report:row { name = "whole round trip", unit = "ms, median", ours = ours.wholemedian, other = curl.whole }
  report:row { name = "whole round trip", unit = "ms, p99", ours = ours.wholehigh, other = curl.wholehigh }
  report:note(("curl: cut at the terminal event as soon as a reader of its output has seen it (%d a round); includes its start")
    :format(CURLS))
end

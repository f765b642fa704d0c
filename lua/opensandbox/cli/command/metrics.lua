--- `opensandbox metrics`: load and memory, once or as they change; at a terminal as a plot.

local check = require "opensandbox.cli.base.check"
local core = require "opensandbox.core"
local json = require "opensandbox.base.json"
local numbers = require "opensandbox.base.numbers"
local output = require "opensandbox.cli.base.output"
local show = require "opensandbox.cli.base.show"
local time = require "opensandbox.base.time"

local metrics = { example = "opensandbox metrics SANDBOX --watch" }

local BLOCKS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local ASCII = { "_", ".", "-", "=", "+", "*", "%", "#" }
local LABEL = 30     -- columns beside a plot
local MIN_PLOT = 8   -- columns

function metrics.declare(parser)
  parser:argument("sandbox", "Id of the sandbox."):argname "SANDBOX"
  parser:flag("-w --watch", "Show them every two seconds, until Ctrl-C.")
end

local function is_utf8()
  local locale = os.getenv("LC_ALL") or os.getenv("LC_CTYPE") or os.getenv("LANG") or ""
  return locale:upper():find("UTF%-?8") ~= nil
end

local function percent(value)
  return numbers.format(math.floor(value * 10 + 0.5) / 10) .. "%"
end

local function memory_part(sample)
  return sample.memory_used and sample.memory_total and sample.memory_total > 0 and sample.memory_used / sample.memory_total or 0
end

local function memory_text(sample)
  return ("%s of %s"):format(show.bytes(sample.memory_used or 0), show.bytes(sample.memory_total or 0))
end

-- Returns a plot of values from 0 to 1, the newest at its right end.
local function plot(history, width, marks)
  local parts = {}
  for index = math.max(1, #history - width + 1), #history do
    local level = math.floor(math.max(0, math.min(history[index], 0.999)) * #marks) + 1
    parts[#parts + 1] = marks[level]
  end
  return table.concat(parts)
end

local function watch_at_terminal(next_sample)
  local cpu, memory, marks = {}, {}, is_utf8() and BLOCKS or ASCII
  local sample = next_sample()
  while sample do
    cpu[#cpu + 1], memory[#memory + 1] = (sample.cpu_used_percent or 0) / 100, memory_part(sample)
    local columns = output.columns() or 80
    local width = columns - LABEL
    local function line(name, text, history)
      local label = ("%s %s"):format(name, text)
      if width < MIN_PLOT then return label:sub(1, columns - 1) end
      return ("%-" .. LABEL - 1 .. "s%s"):format(label:sub(1, LABEL - 2), plot(history, width, marks))
    end
    local lines = { line("CPU", percent(sample.cpu_used_percent or 0), cpu), line("MEM", memory_text(sample), memory) }
    output.write((#cpu > 1 and "\27[2A" or "") .. ("\r\27[K%s\n\r\27[K%s\n"):format(lines[1], lines[2]))
    sample = next_sample()
  end
end

local function watch_in_lines(next_sample, as_json)
  local sample = next_sample()
  while sample do
    if as_json then
      output.write(assert(json.encode(sample)) .. "\n")
    else
      output.write(("%s  cpu %s  memory %s\n"):format(time.format(math.floor(sample.time or core.wall_clock())),
        percent(sample.cpu_used_percent or 0), memory_text(sample)))
    end
    sample = next_sample()
  end
end

local function watch(context, sandbox)
  local client = context:client()
  local stream = check(client:watch_metrics(check(client:discover_execd(sandbox.id))))
  local function next_sample()
    local sample, err = stream:next()
    if err then error(err, 0) end
    return sample
  end
  if output.columns() and not context:wants_json() then return watch_at_terminal(next_sample) end
  watch_in_lines(next_sample, context:wants_json())
end

function metrics.run(context)
  local sandbox = context:sandbox(context.args.sandbox)
  if context.args.watch then return watch(context, sandbox) end
  local sample = check(sandbox:metrics())
  if context:wants_json() then return output.json(sample) end
  output.facts {
    { "cpus", sample.cpu_count }, { "cpu used", percent(sample.cpu_used_percent or 0) }, { "memory", memory_text(sample) },
  }
end

return metrics

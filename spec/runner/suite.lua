--- Runs spec files in processes of their own, several at a time, and the tests that must not run beside others afterwards.

local uv = require "luv"
local FileProcess = require "spec.runner.file_process"

local suite = {}

local SIGNALS = { sigint = 2, sigterm = 15, sighup = 1 }

-- Makes a list of runs, at most `jobs` at a time, until all have ended or a signal has arrived.
local function make(runs, jobs, options, state, on_result)
  local position, running = 0, 0
  local function start_more()
    while running < jobs and runs[position + 1] and not state.signal do
      position, running, state.started = position + 1, running + 1, state.started + 1
      local process
      process = FileProcess.start(runs[position], {
        command = options.command, directory = options.directory .. "/" .. state.started, limit = options.limit,
        preload = options.preload,
      }, function(result)
        running = running - 1
        state.processes[process] = nil
        on_result(result)
        start_more()
      end)
      state.processes[process] = true
    end
  end
  start_more()
  while running > 0 do uv.run("once") end
end

--- Makes runs of files, as selection.divide returns them.
--- @param shared table[] those that may run at the same time, in their order
--- @param alone table[] those that run one after the other, after the others
--- @param options table `command`, `directory`, `limit`, `preload` as in file_process.lua; `jobs`; `retry`: whether a run in which something
--- failed is made a second time, alone
--- @param on_result fun(result: table, is_retry: boolean) called when a run has ended
--- @return table[] results of the runs; of a run that was made twice, the second
--- @return integer? signal the number of the signal that interrupted the suite
function suite.run(shared, alone, options, on_result)
  local state = { processes = {}, started = 0 }
  local handles = {}
  for name, number in pairs(SIGNALS) do
    local handle = uv.new_signal()
    handle:start(name, function()
      state.signal = number
      for process in pairs(state.processes) do process:stop() end
    end)
    handles[#handles + 1] = handle
  end
  local results, failed = {}, {}
  local function collect(result)
    results[result.run] = result
    if result.failure + result.error > 0 then failed[#failed + 1] = result.run end
    on_result(result, false)
  end
  make(shared, options.jobs, options, state, collect)
  make(alone, 1, options, state, collect)
  if options.retry then
    make(failed, 1, options, state, function(result)
      results[result.run] = result
      on_result(result, true)
    end)
  end
  for _, handle in ipairs(handles) do handle:close() end
  uv.run("nowait")
  local list = {}
  for _, runs in ipairs { shared, alone } do
    for _, run in ipairs(runs) do list[#list + 1] = results[run] end
  end
  return list, state.signal
end

return suite

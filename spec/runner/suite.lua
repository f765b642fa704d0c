--- Runs spec files in processes of their own, several at a time, and those that say so alone.

local uv = require "luv"
local FileProcess = require "spec.runner.file_process"

local suite = {}

local SIGNALS = { sigint = 2, sigterm = 15, sighup = 1 }

-- Runs a queue of files, at most `jobs` at a time, until all have exited or a signal has arrived.
local function run(files, jobs, options, state, on_result)
  local next_index, running = 1, 0
  local function start_more()
    while running < jobs and files[next_index] and not state.signal do
      local file = files[next_index]
      next_index, running, state.started = next_index + 1, running + 1, state.started + 1
      local process
      process = FileProcess.start({
        file = file, command = options.command, directory = options.directory .. "/" .. state.started, limit = options.limit,
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

--- Runs files.
--- @param shared string[] the files that run beside others, first of all the first
--- @param alone string[] the files that run alone, after the others
--- @param options table `command`, `directory`, `limit`, `preload` as in file_process.lua; `jobs`; `retry`: whether a file in which
--- something failed runs a second time, alone
--- @param on_result fun(result: table, is_retry: boolean) called when a file has been run
--- @return table[] the results, of a file that ran twice those of the second time, with `retried`
--- @return integer? the number of the signal that interrupted the suite
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
    results[result.file] = result
    if result.failure + result.error > 0 then failed[#failed + 1] = result.file end
    on_result(result, false)
  end
  run(shared, options.jobs, options, state, collect)
  run(alone, 1, options, state, collect)
  if options.retry then
    run(failed, 1, options, state, function(result)
      result.retried = true
      results[result.file] = result
      on_result(result, true)
    end)
  end
  for _, handle in ipairs(handles) do handle:close() end
  uv.run("nowait")
  local list = {}
  for _, files in ipairs { shared, alone } do
    for _, file in ipairs(files) do list[#list + 1] = results[file] end
  end
  return list, state.signal
end

return suite

--- A process of a shared pool, which may be killed at any time: several tasks acquire sandboxes, hold them for a moment, and release them.
--- Each step is a line of a log file: "A id time pid" (acquired), "R id time pid" (about to be released), "C token time pid" (about to take
--- something over from a process that has died), "T id/token time pid" (taken over; the label of the create if there is no id, and the
--- token of the dead process), "E error" (no sandbox).

local core = require "opensandbox.core"
local opensandbox = require "opensandbox"

local pool_worker = {}

local TASKS = 3
local MAX_HOLD = 0.06 -- seconds
local ERROR_DELAY = 0.05 -- seconds

-- Writes a line at once and whole, because the file is open for appending.
local function writer(path)
  local file = assert(io.open(path, "a"))
  file:setvbuf("full", 4096)
  return function(...)
    file:write(table.concat({ ... }, " "), "\n")
    file:flush()
  end
end

--- Makes a log.
---@param path string
---@param pid integer of this process
---@return fun(kind: string, text: string)
function pool_worker.log(path, pid)
  local write = writer(path)
  return function(kind, text) write(kind, text, ("%.6f %d"):format(core.now(), pid)) end
end

--- Makes a store that records in a log the places that this process takes over.
---@param store opensandbox.PoolStore
---@param log fun(kind: string, text: string)
---@return opensandbox.PoolStore
function pool_worker.recording(store, log)
  return { name = store.name, transact = function(_, request)
    if request.step == "reap" then log("C", request.token) end
    local response, err = store:transact(request)
    if response and response.reaped then
      log("T", (response.value and response.value.id or response.label) .. "/" .. response.from)
    end
    return response, err
  end }
end

--- Works until `stopped()` is true.
---@param pool opensandbox.Pool
---@param log fun(kind: string, text: string)
---@param stopped fun(): boolean
function pool_worker.run(pool, log, stopped)
  local tasks = {}
  local function work(index)
    local step = index
    while not stopped() do
      local sandbox, err = pool:acquire { timeout = 5 }
      if sandbox then
        log("A", sandbox.id)
        step = step + 1
        opensandbox.sleep(step * 7 % 10 / 10 * MAX_HOLD)
        log("R", sandbox.id)
        pool:release(sandbox)
      else
        log("E", (tostring(err):gsub("%s", " ")))
        opensandbox.sleep(ERROR_DELAY)
      end
    end
  end
  for index = 1, TASKS do tasks[index] = opensandbox.spawn(work, index) end
  for _, task in ipairs(tasks) do task:wait() end
end

return pool_worker

--- A relay before a server. Each of its ports forwards connections until it is changed: then it is silent, or sends the same response to
--- all requests.

local process = require "spec.support.process"

local silencing_relay = {}

--- Starts a relay.
---@param port integer of the server
---@return table relay `open()` returns a new port; `change(port, mode)` changes a port and its connections to "silent", "busy" (503 with Retry-After) or "agreeing" (204); `stop()`
function silencing_relay.start(port)
  local child = process.start { argv = { process.lua(), "spec/support/silencing_relay_main.lua", port },
    env = process.module_paths() }
  local function ask(question)
    collectgarbage "stop" -- a finalizer that waits would let other tasks ask in between
    local sent, problem = child:write(question .. "\n")
    local answer = sent and child:read_line(10)
    collectgarbage "restart"
    if answer then return answer end
    local code, signal = child:stop()
    error(("the relay does not answer %q (%s), exit code %s, signal %s\n%s"):format(question, tostring(problem), tostring(code),
      tostring(signal), child:stderr_text()), 0)
  end
  return {
    open = function() return assert(tonumber((ask "open"))) end,
    change = function(changed, mode) assert(ask(mode .. " " .. changed) == "ok") end,
    stop = function() return child:stop() end,
  }
end

return silencing_relay

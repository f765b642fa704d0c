--- A relay before a server. Each of its ports forwards connections until it is changed: then it is silent, or answers that it is busy.

local process = require "spec.support.process"

local silencing_relay = {}

--- Starts a relay.
---@param port integer of the server
---@return table relay `open()` returns a new port; `change(port, mode)` changes a port and its connections to "silent" or "busy"; `stop()`
function silencing_relay.start(port)
  local child = process.start { argv = { process.lua(), "spec/support/silencing_relay_main.lua", port },
    env = process.module_paths() }
  local function ask(question)
    assert(child:write(question .. "\n"))
    local answer = child:read_line(10)
    return assert(answer, "the relay does not answer: " .. question)
  end
  return {
    open = function() return assert(tonumber((ask "open"))) end,
    change = function(changed, mode) assert(ask(mode .. " " .. changed) == "ok") end,
    stop = function() return child:stop() end,
  }
end

return silencing_relay

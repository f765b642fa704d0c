--- A TCP connection of a test that sends and receives bytes as they are.

local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

local RawSocket = {}
RawSocket.__index = RawSocket

--- Connects to a port of this machine; raises when that fails.
---@param port integer
local function connect(port)
  local self = setmetatable({ tcp = uv.new_tcp(), received = "" }, RawSocket)
  local outcome
  self.tcp:connect("127.0.0.1", port, function(problem) outcome = problem or "connected" end)
  uv_loop.wait(function() return outcome end, 10)
  if outcome ~= "connected" then
    uv_loop.close(self.tcp)
    error(("cannot connect to port %d: %s"):format(port, outcome or "timeout"), 2)
  end
  self:resume()
  return self
end

--- Receives nothing until `resume` is called.
function RawSocket:pause()
  self.tcp:read_stop()
end

--- Receives again.
function RawSocket:resume()
  self.tcp:read_start(function(problem, data)
    if data then self.received = self.received .. data else self.ended = problem or "closed" end
  end)
end

--- Sends bytes and waits until the kernel has them.
function RawSocket:send(bytes)
  local outcome
  uv_loop.wait(function() return outcome end, 10, function()
    self.tcp:write(bytes, function(problem) outcome = problem or "sent" end)
  end)
  return outcome == "sent"
end

--- Waits until `done(received)` returns a true value.
-- @return that value, or nil when the time is over or the peer has ended the connection
function RawSocket:wait(done, seconds)
  local result
  uv_loop.wait(function()
    result = done(self.received)
    return result or self.ended
  end, seconds or 10)
  return result or nil
end

--- Waits for the end of the peer's side.
-- @treturn boolean whether it came
function RawSocket:wait_end(seconds)
  return uv_loop.wait(function() return self.ended end, seconds or 10)
end

--- Removes bytes from the received ones, and returns them.
function RawSocket:take(count)
  local taken = self.received:sub(1, count)
  self.received = self.received:sub(count + 1)
  return taken
end

--- Ends the sending side.
function RawSocket:shutdown()
  local done
  uv_loop.wait(function() return done end, 10, function() self.tcp:shutdown(function() done = true end) end)
end

function RawSocket:close()
  uv_loop.close(self.tcp)
end

return { connect = connect }

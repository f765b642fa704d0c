--- Ports for servers that cannot choose one themselves.

local uv = require "luv"
local uv_loop = require "spec.support.uv_loop"

--- Returns a port of this machine that is free now.
---@return integer
return function()
  local tcp = uv.new_tcp()
  assert(tcp:bind("127.0.0.1", 0))
  local port = tcp:getsockname().port
  uv_loop.close(tcp)
  return port
end

--- The program behind fault_server.lua: runs the handler of a test as a server.

local uv = require "luv"
local json = require "opensandbox.base.json"
local recordings = require "spec.support.recordings"
local server_main = require "spec.support.server_main"
local websocket_peer = require "spec.support.websocket_peer"

-- The chunk with an environment of its own, in the two ways Lua has for that.
local function compile(source, environment)
  local setfenv = rawget(_G, "setfenv")
  if setfenv then
    local chunk = assert(rawget(_G, "loadstring")(source, "=handler"))
    return setfenv(chunk, environment)
  end
  return assert(load(source, "=handler", "t", environment))
end

server_main.run(function(config, state)
  local environment = setmetatable({
    json = json, uv = uv, state = state, recording = recordings.load, websocket = websocket_peer,
  }, { __index = _G })
  local handler = compile(config.source, environment)()
  if type(handler) == "function" then handler = { on_request = handler } end
  assert(type(handler) == "table", "the chunk returned neither a function nor a table")
  if not handler.on_request then
    function handler.on_request(_, connection) connection:respond(500, {}, "no on_request in the handler") end
  end
  return handler
end)

--- A stream of events. They are read one by one until the stream ends or is closed.

local call = require "opensandbox.http.call"
local json = require "opensandbox.base.json"

local stream = {}

--- A stream of events, for example of `client:watch_metrics`.
--- ```lua
--- local stream = assert(client:watch_metrics(execd))
--- print(assert(stream:next()).cpu_used_percent)
--- stream:close()
--- ```
---@class opensandbox.Stream
local Stream = {}
Stream.__index = Stream
Stream.__name = "opensandbox.Stream"

--- Opens a stream.
---@param client opensandbox.Client
---@param request table prepared, as for call.open
---@param decode fun(event: table): any, string? returns the value for the JSON object of an event, or nil and the problem
---@return opensandbox.Stream? stream
---@return opensandbox.Error? err
function stream.open(client, request, decode)
  request.max_event, request.timeout = call.MAX_EVENT_SIZE, request.timeout or 0
  local ex, err = call.open(client, request)
  if not ex then return nil, err end
  return setmetatable({ exchange = ex, decode = decode }, Stream)
end

--- Waits for the next event.
--- ```lua
--- local metrics, err = stream:next()
--- ```
---@return any value nil at the end
---@return opensandbox.Error? err
function Stream:next()
  local ex = self.exchange
  while true do
    local frame, err = ex:frame()
    if not frame then return nil, err end
    local event = json.decode(frame)
    if type(event) == "table" then -- other frames are ignored
      local value, problem = self.decode(event)
      if value ~= nil then return value end
      return nil, ex:error { kind = "protocol", code = "unexpected_response", message = problem }
    end
  end
end

--- Iterates over the events. Raises the error of a stream that breaks, because a loop would hide it.
--- ```lua
--- for metrics in stream:events() do print(metrics.cpu_used_percent) end
--- ```
---@return fun(): any
function Stream:events()
  return function()
    local value, err = self:next()
    if err then error(err, 0) end
    return value
  end
end

--- Closes the stream. Later reads return an error of kind `closed`.
--- ```lua
--- stream:close()
--- ```
---@return true
function Stream:close()
  self.exchange:close()
  return true
end

Stream.__close = Stream.close

return stream

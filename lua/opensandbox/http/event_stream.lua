--- A stream of events that is read one by one, until it ends or is closed.

local call = require "opensandbox.http.call"
local json = require "opensandbox.base.json"

local stream = {}

local LONGEST_EVENT = 64 * 1024 * 1024 -- bytes

---@class opensandbox.Stream
local Stream = {}
Stream.__index = Stream
Stream.__name = "opensandbox.Stream"

--- Opens a stream. `decode` makes a value of the JSON object of each event, or gives nil and what is wrong.
---@param client opensandbox.Client
---@param request table complete, as for call.open
---@param decode fun(event: table): any, string?
---@return opensandbox.Stream? stream
---@return opensandbox.Error? err
function stream.open(client, request, decode)
  request.max_event, request.timeout = LONGEST_EVENT, request.timeout or 0
  local ex, err = call.open(client, request)
  if not ex then return nil, err end
  return setmetatable({ exchange = ex, decode = decode }, Stream)
end

--- The next event.
---@return any value nil at the end
---@return opensandbox.Error? err
function Stream:next()
  local ex = self.exchange
  while true do
    local frame, err = ex:frame()
    if not frame then return nil, err end
    local event = json.decode(frame)
    if type(event) == "table" then -- what is not JSON is passed over
      local value, problem = self.decode(event)
      if value ~= nil then return value end
      return nil, ex:error { kind = "protocol", code = "unexpected_answer", message = problem }
    end
  end
end

--- Iterates over the events. A stream that breaks raises its error: a loop would hide it otherwise.
function Stream:events()
  return function()
    local value, err = self:next()
    if err then error(err, 0) end
    return value
  end
end

--- Ends the stream. Reading on gives an error of kind `closed`.
function Stream:close()
  self.exchange:close()
  return true
end

Stream.__close = Stream.close

return stream

--- An exchange: one request and its response, during the transfer.
--
-- An exchange wraps a transfer of the core and waits for the head of the response, for bytes, or for events. All waiting for the
-- network happens in `wait_for_progress`.

local core = require "opensandbox.core"
local coxpcall = require "opensandbox.loop.coxpcall"
local deadlines = require "opensandbox.loop.deadline"
local each = require "opensandbox.base.each"
local errors = require "opensandbox.base.errors"
local headers = require "opensandbox.http.headers"
local loop = require "opensandbox.loop"
local scheduler = require "opensandbox.loop.scheduler"
local transfer_error = require "opensandbox.http.transfer_error" -- now, because a transfer can fail when no more files can be opened
local url = require "opensandbox.base.url"

---@class opensandbox.Exchange
---@field http opensandbox.HttpClient
---@field request table as it was given to exchange.start
---@field transfer userdata of the core
---@field started number on the clock of core.now()
---@field wait opensandbox.Wait for news of the transfer
---@field status? integer of the response, once its head has arrived
---@field headers? table<string, string> of the response, by lower-case name
---@field is_closed? boolean `close` or `detach` was called
local Exchange = {}
Exchange.__index = Exchange

local exchange = {}

local READ_SIZE = 1024 * 1024 -- bytes
local EMPTY_CHUNK_DELAY = 0.01 -- seconds until a reader function that returned "" is called again
local READERS_TURN = 0.05 -- seconds that reader functions fill the queue, until the loop checks time limits and other tasks run
local MIN_SECRET_LENGTH = 4 -- bytes: shorter secrets are not redacted, because they would match ordinary text

-- The kinds of errors that the deletes of a closing client can cause in its other requests.
local BROKEN = { transport = true, http = true, stream = true, protocol = true }

-- The fields of a request that the core takes.
local core_fields = {
  "method", "url", "body", "parts", "boundary", "may_repeat", "sink", "sink_mode", "max_event", "high_water",
  "receive_buffer", "connect_timeout", "timeout", "idle_timeout",
  "websocket", "max_message", "receive_high_water", "send_high_water", "ping_interval", "ping_timeout", "close_timeout", "channels",
}

-- Starts the transfer of an exchange. Nothing is sent before the next step of the loop.
local function start_transfer(self, core_request)
  self.transfer = self.http.transport:start(core_request)
  self.wait.key = self.transfer:id()
  if self.request.on_start then self.request.on_start(self) end
end

--- Starts a request. If this raises an error, because memory runs out or `on_start` has failed, nothing is sent.
---@param http opensandbox.HttpClient
---@param request table op, method, url, headers (name -> value), body | parts and readers, may_repeat, max_event (bytes of an event; the response is an event stream), connect_timeout, timeout, idle_timeout (seconds), budget (seconds of all attempts together), option_names (options by the core's time limits), sandbox_id, secrets (values never to be shown), explained (false: its errors are not explained by the state of the sandbox), shielded, on_start (called with the exchange), on_abandon, on_transfer_progress; for the fields of a WebSocket see websocket.lua
---@return opensandbox.Exchange
function exchange.start(http, request)
  local lines = {}
  for name, value in each(request.headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  local core_request = { headers = lines }
  for _, name in ipairs(core_fields) do core_request[name] = request[name] end
  local self = setmetatable({ http = http, request = request, transfer = nil, started = core.now() }, Exchange)
  self.wait = scheduler.expect { registry = http.transport.waiters, key = nil, shielded = request.shielded, owner = self }
  local ok, problem = pcall(start_transfer, self, core_request)
  if ok then return self end
  if self.transfer then self.transfer:close() end
  error(problem, 0)
end

--- Replaces the secrets that were sent by "***", because a server may repeat them.
---@param text string
---@return string
function Exchange:redact(text)
  for _, secret in ipairs(self.request.secrets or {}) do
    if #secret >= MIN_SECRET_LENGTH then text = text:gsub(secret:gsub("%W", "%%%0"), "***") end
  end
  return text
end

--- Makes an error of this exchange.
---@param fields table they are completed by the facts of the request and the response
---@return opensandbox.Error
function Exchange:error(fields)
  local request = self.request
  if self.http.is_closing and BROKEN[fields.kind] and not self.wait.shielded then
    fields = { kind = "closed", code = "closed", message = "the client is closed", not_sent = fields.not_sent }
  end
  fields.op = request.op
  fields.url = request.method .. " " .. url.redacted(request.url)
  fields.sandbox_id = fields.sandbox_id or request.sandbox_id
  fields.status = fields.status or self.status
  fields.request_id = fields.request_id or (self.headers and self.headers["x-request-id"])
  for _, name in ipairs { "message", "code", "request_id" } do
    if fields[name] then fields[name] = self:redact(fields[name]) end
  end
  return errors.new(fields)
end

--- Explains an error by the state of the sandbox, see HttpClient:explain_error.
---@param err opensandbox.Error
---@return opensandbox.Error err
function Exchange:explain(err)
  return self.http:explain_error(self.request, err)
end

--- Makes the error for a transfer that failed.
---@return opensandbox.Error? err nil while the transfer runs, and after it is complete
function Exchange:failure()
  local outcome, message, sent = self.transfer:outcome()
  if not outcome or outcome == "complete" then return nil end
  local request = self.request
  if outcome == "closed" and self.is_closed and not self.http.is_closing then
    return self:error { kind = "closed", code = "closed", message = "the response was closed while it was read",
      not_sent = not sent }
  end
  return self:error(transfer_error.fields(outcome, message, {
    url = request.url, sent = sent, has_head = self.status ~= nil, proxy = self.http.transport.defaults.proxy,
    seconds = function(timer) return timer == "timeout" and request.budget or request[timer] end,
    option_name = function(timer) return request.option_names and request.option_names[timer] or timer end,
  }))
end

--- Calls a function of the user. If it raises an error, the exchange is abandoned before the error is raised again.
function Exchange:call_user(callback, ...)
  local ok, value, problem = coxpcall.pcall(callback, ...)
  if ok then return value, problem end
  self:abandon()
  error(value, 0)
end

-- Sends the bytes that the current part of the body waits for. Returns whether a reader function was called, an error if it failed, and
-- the seconds to wait before the next call: a reader had no bytes yet, or readers that return few bytes need a pause.
function Exchange:send_body_chunks()
  local readers = self.request.readers
  local part = readers and self.transfer:wants()
  if not part then return false end
  local turn = deadlines.new(READERS_TURN)
  while part do
    if turn:has_passed() then return true, nil, 0 end
    local bytes, problem = self:call_user(readers[part])
    if bytes ~= nil and type(bytes) ~= "string" then
      problem = "the reader returned a " .. type(bytes) .. " instead of a string"
    end
    if problem ~= nil then
      self:close()
      return true, self:error { kind = "state", code = "body_failed",
        message = "the content could not be read: " .. tostring(problem) }
    end
    if self.transfer:outcome() then return true end -- the reader function may have closed the client
    if bytes == "" then return true, nil, EMPTY_CHUNK_DELAY end
    self.transfer:write(part, bytes)
    part = self.transfer:wants()
  end
  return true
end

--- Closes the exchange because its caller has stopped waiting. The request's `on_abandon(exchange)` may stop something on the server. If
--- it returns true, it has taken the exchange over (see take_over), which then continues in the background.
function Exchange:abandon()
  local on_abandon = self.request.on_abandon
  if not (on_abandon and on_abandon(self)) then self:close() end
end

--- Returns whether bytes of the request may have reached the server.
function Exchange:sent()
  return self.transfer:sent()
end

--- Returns whether the request deletes or stops something.
function Exchange:is_shielded()
  return self.request.shielded == true
end

--- For `on_abandon`: the function that it starts owns the exchange from now on, and `on_abandon` is not called again.
function Exchange:take_over()
  self.request.on_abandon = nil
end

--- Sets a function that is called with the bytes received and sent so far whenever the transfer progresses. It is called once at once.
---@param fn fun(received: number, sent: number)
function Exchange:on_progress(fn)
  self.request.on_transfer_progress = fn
  self:call_user(fn, self.transfer:progress())
end

-- Stands for the transfer of an exchange that was handed over.
local closed_transfer = {
  outcome = function() return "closed", "it was closed", true end, sent = function() return true end,
  head = function() end, read = function() end, frame = function() end, event = function() end, wants = function() end,
  progress = function() return 0, 0 end, close = function() end, detach = function() end,
}

--- Hands the exchange over to a new owner, although other code waits for it. That code receives an error of kind `closed`.
---@return opensandbox.Exchange exchange for the new owner
function Exchange:hand_over()
  local wait = self.wait
  local registry, key = wait.registry, wait.key
  local waiter = key and registry[key] -- a transfer has no id once its client is closed
  local heir = setmetatable({ http = self.http, request = self.request, transfer = self.transfer, started = self.started,
    status = self.status, headers = self.headers, pieces = self.pieces, size = self.size }, Exchange)
  heir.wait = scheduler.expect { registry = registry, key = key, shielded = true, owner = heir }
  heir:take_over()
  if waiter then registry[key], wait.registry = nil, nil end -- the waiter must not remove its successor
  self.transfer = closed_transfer
  if waiter then scheduler.wake(waiter) end
  return heir
end

--- Receives the whole response in code that cannot wait in the loop, as in a finalizer: drives the transport until then.
---@param deadline opensandbox.Deadline
---@param limit integer bytes of the body
---@return integer? status nil when the response is not complete
---@return string? body
function Exchange:finish_blocking(deadline, limit)
  local transfer, pieces, size = self.transfer, self.pieces or {}, self.size or 0
  while true do
    local bytes = transfer:read(READ_SIZE)
    if bytes then
      size = size + #bytes
      if size > limit then return nil end
      pieces[#pieces + 1] = bytes
    elseif transfer:outcome() then
      break
    elseif deadline:has_passed() then
      return nil
    else
      self.http.transport:step(deadline:remaining())
    end
  end
  if transfer:outcome() ~= "complete" then return nil end
  return self.status or (transfer:head()), table.concat(pieces)
end

--- Waits until the transfer has progressed.
---@return opensandbox.Error? err when the exchange has failed
function Exchange:wait_for_progress()
  local called_user, err, pause = self:send_body_chunks()
  if err then return err end
  -- A reader function can make calls of its own. News of this transfer that came meanwhile will not be reported again.
  if called_user and not pause then return nil end
  self.wait.seconds = pause
  local interruption, reason = loop.wait(self.wait)
  if interruption then
    local not_sent = not self:sent()
    self:abandon()
    return loop.interrupted(self.request.op, interruption, reason,
      self:error { kind = "cancelled", code = "cancelled", message = "the task was cancelled", not_sent = not_sent })
  end
  self.http:notify_activity(self)
  if self.request.on_transfer_progress then self:call_user(self.request.on_transfer_progress, self.transfer:progress()) end
end

--- Waits for the head of the response.
---@return integer? status
---@return table|opensandbox.Error headers by lower-case name, or the error
function Exchange:head()
  while not self.status do
    local status, lines = self.transfer:head()
    if status then
      self.status, self.headers = status, headers.parse(lines)
    elseif self.transfer:outcome() then
      -- libcurl accepts a head that was cut off.
      return nil, self:failure() or self:error { kind = "transport", code = "receive_failed",
        message = "the connection broke in the head of the response" }
    else
      local err = self:wait_for_progress()
      if err then return nil, err end
    end
  end
  return self.status, self.headers
end

--- Reads the next bytes of the body.
---@param most integer the number of bytes to return at most
---@return string? bytes nil at the end of the body
---@return opensandbox.Error? err when the transfer failed
function Exchange:read(most)
  while true do
    local bytes = self.transfer:read(most)
    if bytes then return bytes end
    if self.transfer:outcome() then return nil, self:failure() end
    local err = self:wait_for_progress()
    if err then return nil, err end
  end
end

--- Reads the whole body.
---@param limit number bytes
---@param truncate? boolean a longer body is not an error: its first bytes are returned
---@return string? body
---@return opensandbox.Error? err
---@return boolean? truncated
function Exchange:body(limit, truncate)
  local pieces = self.pieces or {} -- in a field, because another owner may continue to read
  local size = self.size or 0
  self.pieces = pieces
  while true do
    local bytes, err = self:read(READ_SIZE)
    if err then return nil, err end
    if not bytes then return table.concat(pieces) end
    size = size + #bytes
    self.size = size
    if size > limit and truncate then
      self:close()
      pieces[#pieces + 1] = bytes
      return table.concat(pieces), nil, true
    elseif size > limit then
      self:close()
      return nil, self:error { kind = "protocol", code = "body_too_large",
        message = ("the response is longer than %d bytes"):format(limit) }
    end
    pieces[#pieces + 1] = bytes
  end
end

--- Waits for the end of a response whose body goes to a file.
---@return true? ok
---@return opensandbox.Error? err
function Exchange:finish()
  while not self.transfer:outcome() do
    local err = self:wait_for_progress()
    if err then return nil, err end
  end
  local err = self:failure()
  return not err and true or nil, err
end

--- Returns the next event of an event stream if it has arrived. Does not wait. The core decodes plain lines of output itself.
---@return string? stream "stdout" or "stderr" for a decoded line; nil for any other event
---@return string? text the line's text, or the event's JSON; nil: no event has arrived
function Exchange:output_event()
  return self.transfer:next_output()
end

--- Does the same as `output_event`, but leaves all decoding to the caller: `stream` is always nil.
function Exchange:any_event()
  return nil, (self.transfer:next_event())
end

--- Waits for the next frame of an event stream.
---@return string? frame nil at the end of the stream
---@return opensandbox.Error? err when the transfer failed
function Exchange:frame()
  local transfer = self.transfer
  while true do
    local frame, problem = transfer:next_event()
    if frame then return frame end
    if problem == "too_large" then
      self:close()
      return nil, self:error { kind = "protocol", code = "frame_too_large",
        message = ("an event is longer than %d bytes"):format(self.request.max_event) }
    elseif problem then
      self:close()
      return nil, self:error { kind = "transport", code = "no_memory", message = "not enough memory" }
    end
    if transfer:outcome() then
      -- The transfer may have ended with the last bytes. Now an unterminated frame is returned too.
      frame = transfer:next_event()
      if frame then return frame end
      return nil, self:failure()
    end
    local err = self:wait_for_progress()
    if err then return nil, err end
  end
end

-- Continues other code that waits for the transfer, because the core reports nothing more about a closed or detached transfer.
local function wake_others(self)
  self.is_closed = true
  local wait = self.wait
  scheduler.wake(wait.registry and wait.key and wait.registry[wait.key])
end

--- Closes the exchange, and the connection if the transfer still runs. Other code that waits for it receives an error of kind `closed`.
function Exchange:close()
  self.transfer:close()
  wake_others(self)
end

--- Leaves the transfer to the core, which ignores the rest of the response, so that the connection can be used again.
---@param seconds number after this time the connection is closed
---@param wait_on_close? boolean closing the client waits for it
function Exchange:detach(seconds, wait_on_close)
  self.transfer:detach(seconds, wait_on_close)
  wake_others(self)
end

return exchange
